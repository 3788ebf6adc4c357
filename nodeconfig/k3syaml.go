package nodeconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// registriesYAML is k3s's registries.yaml, as far as it decides for which
// registries k3s writes a directory of its own.
type registriesYAML struct {
	Mirrors map[string]any `yaml:"mirrors"`
	Configs map[string]any `yaml:"configs"`
}

// own reports whether k3s writes the directory for registry.
func (r registriesYAML) own(registry string) bool {
	_, mirrored := r.Mirrors[registry]
	_, configured := r.Configs[registry]
	return mirrored || configured
}

// names are all registries with a directory of their own, in order.
func (r registriesYAML) names() []string {
	var names []string
	for _, all := range []map[string]any{r.Mirrors, r.Configs} {
		for name := range all {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// parseRegistries reads registries.yaml, which may be missing or say nothing.
// YAML's errors name the line.
func parseRegistries(content []byte) (registriesYAML, error) {
	var r registriesYAML
	if err := yaml.Unmarshal(content, &r); err != nil {
		return r, err
	}
	return r, nil
}

// errYAMLByHand is returned for YAML that is beyond what is edited safely.
var errYAMLByHand = errors.New("its form is beyond what is edited safely")

// addEndpoints returns registries.yaml with endpoints before those the entry of
// registry has, every other byte kept; the entry is made if there is none. An
// endpoint that is listed, wherever, is not moved.
func addEndpoints(content []byte, registry string, endpoints []string) ([]byte, error) {
	byHand := func(err error) error {
		return fmt.Errorf("%w; add %q to mirrors, %q, endpoint by hand", err, endpoints, registry)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil {
		return nil, err
	}
	var before map[string]any
	if err := yaml.Unmarshal(content, &before); err != nil {
		return nil, err
	}
	want, missing, err := intended(before, registry, endpoints)
	if err != nil {
		return nil, byHand(err)
	}
	if len(missing) == 0 {
		return content, nil
	}
	e := yamlEdit{content: content, end: "\n"}
	if bytes.Contains(content, []byte("\r\n")) {
		e.end = "\r\n"
	}
	edited, err := e.insert(&doc, registry, missing)
	if err != nil {
		return nil, byHand(err)
	}
	var after map[string]any
	if err := yaml.Unmarshal(edited, &after); err != nil || !reflect.DeepEqual(after, want) {
		return nil, byHand(errYAMLByHand)
	}
	return edited, nil
}

// intended is what the file is to say, and which endpoints it lacks.
func intended(before map[string]any, registry string, endpoints []string) (want map[string]any, missing []string, err error) {
	object := func(of map[string]any, key string) (map[string]any, error) {
		child := map[string]any{}
		switch value := of[key].(type) {
		case nil:
		case map[string]any:
			maps.Copy(child, value)
		default:
			return nil, fmt.Errorf("%s is no mapping", key)
		}
		of[key] = child
		return child, nil
	}
	want = map[string]any{}
	maps.Copy(want, before)
	mirrors, err := object(want, "mirrors")
	if err != nil {
		return nil, nil, err
	}
	entry, err := object(mirrors, registry)
	if err != nil {
		return nil, nil, err
	}
	have, ok := entry["endpoint"].([]any)
	if !ok && entry["endpoint"] != nil {
		return nil, nil, errors.New("endpoint is no list")
	}
	missing = slices.DeleteFunc(slices.Clone(endpoints), func(e string) bool {
		return slices.Contains(have, any(e)) || slices.Contains(have, any(e+"/"))
	})
	entry["endpoint"] = append(anySlice(missing), have...)
	return want, missing, nil
}

// yamlEdit puts text into a YAML file at the places where the parser found
// things.
type yamlEdit struct {
	content []byte
	end     string // of lines
}

// insert adds endpoints to the entry of registry.
func (e yamlEdit) insert(doc *yaml.Node, registry string, endpoints []string) ([]byte, error) {
	key := quoteYAML(registry)
	if len(doc.Content) == 0 || yamlEmpty(doc.Content[0]) {
		return e.atEnd("mirrors", key, endpoints), nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode || root.Style&yaml.FlowStyle != 0 {
		return nil, errYAMLByHand
	}
	mirrorsKey, mirrors := yamlChild(root, "mirrors")
	if mirrors == nil {
		return e.atEnd("mirrors", key, endpoints), nil
	}
	if yamlEmpty(mirrors) {
		return e.below(mirrorsKey, mirrors, func(indent string) string {
			return indent + key + ":" + e.end + e.list(indent+"  ", endpoints)
		}, key+": "+flowEndpoint(endpoints))
	}
	entryKey, entry := yamlChild(mirrors, registry)
	if entry == nil {
		return e.before(mirrors, func(indent string) string {
			return indent + key + ":" + e.end + e.list(indent+"  ", endpoints)
		}, key+": "+flowEndpoint(endpoints))
	}
	if yamlEmpty(entry) {
		return e.below(entryKey, entry, func(indent string) string { return e.list(indent, endpoints) }, "endpoint: "+flowList(endpoints))
	}
	listKey, list := yamlChild(entry, "endpoint")
	if list == nil {
		return e.before(entry, func(indent string) string { return e.list(indent, endpoints) }, "endpoint: "+flowList(endpoints))
	}
	items := func(indent string) string {
		var b strings.Builder
		for _, endpoint := range endpoints {
			b.WriteString(indent + "- " + quoteYAML(endpoint) + e.end)
		}
		return b.String()
	}
	if yamlEmpty(list) {
		return e.below(listKey, list, items, strings.Trim(flowList(endpoints), "[]"))
	}
	return e.before(list, items, strings.Trim(flowList(endpoints), "[]"))
}

// list is an endpoint key with its list, each line indented.
func (e yamlEdit) list(indent string, endpoints []string) string {
	var b strings.Builder
	b.WriteString(indent + "endpoint:" + e.end)
	for _, endpoint := range endpoints {
		b.WriteString(indent + "  - " + quoteYAML(endpoint) + e.end)
	}
	return b.String()
}

// atEnd adds a mapping of one entry to the end of the file.
func (e yamlEdit) atEnd(name, key string, endpoints []string) []byte {
	text := name + ":" + e.end + "  " + key + ":" + e.end + e.list("    ", endpoints)
	if len(e.content) > 0 && e.content[len(e.content)-1] != '\n' {
		text = e.end + text
	}
	return slices.Concat(e.content, []byte(text))
}

// before puts lines before the first child of a block, or flow text after the
// bracket of a flow collection.
func (e yamlEdit) before(of *yaml.Node, lines func(indent string) string, flow string) ([]byte, error) {
	if of.Kind == yaml.AliasNode || of.Anchor != "" {
		return nil, errYAMLByHand
	}
	if of.Style&yaml.FlowStyle != 0 {
		return e.intoFlow(of, flow)
	}
	first := of.Content[0]
	at, prefix, err := e.line(first)
	if err != nil {
		return nil, err
	}
	if of.Kind == yaml.SequenceNode {
		// The item stands after its dash.
		prefix, _ = strings.CutSuffix(strings.TrimRight(prefix, " "), "-")
	}
	if strings.Trim(prefix, " ") != "" {
		return nil, errYAMLByHand
	}
	return e.put(at, lines(prefix)), nil
}

// below puts lines after the line of a key whose value is empty, or flow text
// into empty brackets.
func (e yamlEdit) below(key, value *yaml.Node, lines func(indent string) string, flow string) ([]byte, error) {
	if value.Kind != yaml.ScalarNode {
		return e.intoFlow(value, flow)
	}
	at, prefix, err := e.line(key)
	if err != nil {
		return nil, err
	}
	if value.Value != "" || strings.Trim(prefix, " ") != "" {
		return nil, errYAMLByHand // null and ~ would have to go
	}
	next := bytes.IndexByte(e.content[at:], '\n')
	if next < 0 {
		return slices.Concat(e.content, []byte(e.end+lines(prefix+"  "))), nil
	}
	return e.put(at+next+1, lines(prefix+"  ")), nil
}

// intoFlow puts text after the opening bracket of a flow collection.
func (e yamlEdit) intoFlow(of *yaml.Node, text string) ([]byte, error) {
	at, prefix, err := e.line(of)
	if err != nil {
		return nil, err
	}
	at += len(prefix)
	if at >= len(e.content) || !strings.ContainsRune("[{", rune(e.content[at])) {
		return nil, errYAMLByHand
	}
	if len(of.Content) > 0 {
		text += ", "
	}
	return e.put(at+1, text), nil
}

// line is where a node's line starts, and what stands before the node on it.
func (e yamlEdit) line(node *yaml.Node) (at int, prefix string, err error) {
	for range node.Line - 1 {
		next := bytes.IndexByte(e.content[at:], '\n')
		if next < 0 {
			return 0, "", errYAMLByHand
		}
		at += next + 1
	}
	runes := []rune(string(e.content[at:]))
	if node.Line < 1 || node.Column < 1 || node.Column-1 > len(runes) {
		return 0, "", errYAMLByHand
	}
	return at, string(runes[:node.Column-1]), nil
}

func (e yamlEdit) put(at int, text string) []byte {
	return slices.Concat(e.content[:at], []byte(text), e.content[at:])
}

// yamlChild finds a key of a mapping, and its value.
func yamlChild(of *yaml.Node, name string) (key, value *yaml.Node) {
	if of.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(of.Content); i += 2 {
		if of.Content[i].Value == name {
			return of.Content[i], of.Content[i+1]
		}
	}
	return nil, nil
}

// yamlEmpty reports whether a value says nothing.
func yamlEmpty(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.Tag == "!!null" ||
		(node.Kind == yaml.MappingNode || node.Kind == yaml.SequenceNode) && len(node.Content) == 0
}

func flowEndpoint(endpoints []string) string { return "{endpoint: " + flowList(endpoints) + "}" }

func flowList(endpoints []string) string {
	quoted := slices.Clone(endpoints)
	for i := range quoted {
		quoted[i] = quoteYAML(quoted[i])
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// quoteYAML writes a double-quoted scalar. JSON's are a subset of YAML's
// (YAML 1.2, section 1.3).
func quoteYAML(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		return `""` // a string always encodes
	}
	return string(raw)
}
