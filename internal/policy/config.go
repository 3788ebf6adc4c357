package policy

// Action is what becomes of an image no entry speaks of.
type Action string

// The actions, as a configuration file writes them.
const (
	Allow Action = "Allow"
	Deny  Action = "Deny"
)

// Mode says what a denial comes to.
type Mode string

// The modes.
const (
	// Enforce refuses the image.
	Enforce Mode = "enforce"
	// Warn lets it through, and tells whoever asked for it.
	Warn Mode = "warn"
	// Audit lets it through, and tells only the operator.
	Audit Mode = "audit"
)

// Config is a policy as it is written, with the keys of a configuration file's
// image_validation. The zero value of each field means what
// the field's comment says; [Check] tells what is wrong with a Config, [New]
// makes a Policy of one.
type Config struct {
	// Default is what becomes of an image that no entry matches; Deny if
	// empty, which is refused when there is no Allow entry either, as nothing
	// could run then.
	Default Action `yaml:"default,omitempty"`
	// Mode is what a denial comes to; Enforce if empty.
	Mode Mode `yaml:"mode,omitempty"`
	// RequireDigest denies images that are not named by digest, whatever
	// else allows them.
	RequireDigest bool `yaml:"require_digest,omitempty"`
	// Allow and Deny are the entries. The longest that matches an image
	// decides, and Deny where both are as long.
	Allow []Rule `yaml:"allow,omitempty"`
	Deny  []Rule `yaml:"deny,omitempty"`
	// Aliases are further names of registries, alias to name: what is asked
	// for by the alias is decided as if asked for by the name. Docker Hub's
	// are built in.
	Aliases map[string]string `yaml:"aliases,omitempty"`
	// Namespaces changes the policy for single Kubernetes namespaces, by
	// name.
	Namespaces map[string]Namespace `yaml:"namespaces,omitempty"`
}

// Namespace is what is different in one Kubernetes namespace. Its entries come
// on top of the general ones and replace those that speak of the same images;
// what it leaves empty is inherited.
type Namespace struct {
	Default       Action `yaml:"default,omitempty"`
	Mode          Mode   `yaml:"mode,omitempty"`
	RequireDigest *bool  `yaml:"require_digest,omitempty"`
	Allow         []Rule `yaml:"allow,omitempty"`
	Deny          []Rule `yaml:"deny,omitempty"`
}

// Rule is one entry of an allow or deny list.
type Rule struct {
	// Image says which repositories: host[:port][/path]. The path is matched
	// by whole segments; a / or /* at the end leaves out the path itself, and
	// *. in front of the host stands for any names before it.
	Image string `yaml:"image"`
	// Mode is what a denial by this entry comes to; empty means the policy's.
	Mode Mode `yaml:"mode,omitempty"`
	// RequireDigest overrides the policy's for what this entry allows.
	RequireDigest *bool `yaml:"require_digest,omitempty"`
}

// UnmarshalText reads the short form of an entry, its Image alone.
func (r *Rule) UnmarshalText(text []byte) error {
	*r = Rule{Image: string(text)}
	return nil
}

// MarshalYAML writes the short form where there is nothing but the Image.
func (r Rule) MarshalYAML() (any, error) {
	if r.Mode == "" && r.RequireDigest == nil {
		return r.Image, nil
	}
	type plain Rule // without this method
	return plain(r), nil
}
