package auth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/larder-registry/larder/internal/oci"
)

// scope is what a token may be used for, as the distribution project's token
// specification has it: a list of resources with actions.
type scope []access

// access is one resource of a scope.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

const (
	repositoryType = "repository"
	registryType   = "registry"
	catalogName    = "catalog"
	// maxScopes bounds how many resources one token names: a mount needs two.
	maxScopes = 64
	// maxScopeName bounds a repository's name with a registry before it.
	maxScopeName = 512
	// maxScope bounds the text that asks for them, in bytes.
	maxScope = 16 << 10
)

// parseScope reads scope parameters: "repository:<name>:<action>,<action>",
// several to a parameter with spaces between, and "registry:catalog:*".
// Resources of other types and actions nobody knows are passed over: the token
// is good for less, as for what the caller has no right to. An error is one of
// form.
func parseScope(parameters []string) (scope, error) {
	var parsed scope
	for _, parameter := range parameters {
		if len(parameter) > maxScope {
			return nil, fmt.Errorf("a scope has more than %d bytes", maxScope)
		}
		for item := range strings.FieldsSeq(parameter) {
			first, last := strings.IndexByte(item, ':'), strings.LastIndexByte(item, ':')
			if first < 0 || first == last {
				return nil, fmt.Errorf("scope %.80q: write repository:<name>:<actions>", item)
			}
			kind, name := item[:first], item[first+1:last]
			switch {
			case kind == registryType && name == catalogName:
				parsed = parsed.with("", oci.ActionCatalog)
			case kind != repositoryType:
				continue
			case len(name) > maxScopeName || !isRepository(name):
				return nil, fmt.Errorf("scope %.80q: not the name of a repository", item)
			default:
				parsed = parsed.with(name, actionsOf(item[last+1:])...)
			}
			if len(parsed) > maxScopes {
				return nil, fmt.Errorf("more than %d scopes", maxScopes)
			}
		}
	}
	return parsed, nil
}

// actionsOf reads a list of actions. An asterisk, in the words of the
// specification, is all of them.
func actionsOf(list string) []oci.Action {
	var listed []oci.Action
	for word := range strings.SplitSeq(list, ",") {
		if word == "*" {
			return actions()
		}
		if action := oci.Action(word); slices.Contains(actions(), action) {
			listed = append(listed, action)
		}
	}
	return listed
}

// with returns s with actions added for a repository, or, without one, for the
// registry.
func (s scope) with(name string, added ...oci.Action) scope {
	resource := access{Type: repositoryType, Name: name, Actions: []string{}}
	if name == "" {
		resource.Type, resource.Name = registryType, catalogName
	}
	i := slices.IndexFunc(s, func(a access) bool { return a.Type == resource.Type && a.Name == resource.Name })
	if i < 0 {
		i, s = len(s), append(s, resource)
	}
	for _, action := range added {
		word := string(action)
		if action == oci.ActionCatalog {
			word = "*"
		}
		if !slices.Contains(s[i].Actions, word) {
			s[i].Actions = append(s[i].Actions, word)
		}
	}
	return s
}

// holds reports whether the scope includes action in the repository.
func (s scope) holds(action oci.Action, repository string) bool {
	if action == oci.ActionCatalog {
		return slices.ContainsFunc(s, func(a access) bool { return a.Type == registryType && a.Name == catalogName })
	}
	return slices.ContainsFunc(s, func(a access) bool {
		return a.Type == repositoryType && a.Name == repository && slices.Contains(a.Actions, string(action))
	})
}

// String gives the form that parseScope reads.
func (s scope) String() string {
	items := make([]string, len(s))
	for i, a := range s {
		items[i] = a.Type + ":" + a.Name + ":" + strings.Join(a.Actions, ",")
	}
	return strings.Join(items, " ")
}

// repository is the resource in the words of oci.Want: empty for the registry.
func (a access) repository() string {
	if a.Type == registryType {
		return ""
	}
	return a.Name
}

// rights are the actions on the resource.
func (a access) rights() []oci.Action {
	if a.Type == registryType {
		return []oci.Action{oci.ActionCatalog}
	}
	rights := make([]oci.Action, len(a.Actions))
	for i, word := range a.Actions {
		rights[i] = oci.Action(word)
	}
	return rights
}
