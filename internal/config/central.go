package config

// Central configures the central registry.
type Central struct {
	// Users and HtpasswdFile are who has a password. Both may be changed
	// while the registry runs.
	Users        []CentralUser `yaml:"users"`
	HtpasswdFile string        `yaml:"htpasswd_file,omitempty"`
	// AnonymousPull lets everybody pull everything.
	AnonymousPull bool `yaml:"anonymous_pull"`
	// Access gives rights; nobody has any otherwise.
	Access []CentralAccess `yaml:"access"`
	// Tokens, Kubernetes, Issuers and TLS are in central_auth.go.
	Tokens     CentralTokens      `yaml:"tokens"`
	Kubernetes *CentralKubernetes `yaml:"kubernetes,omitempty"`
	Issuers    []CentralIssuer    `yaml:"issuers"`
	TLS        CentralTLS         `yaml:"tls"`
}

// defaultCentral returns the registry's settings where a file says nothing.
func defaultCentral() Central {
	return Central{Users: []CentralUser{}, Access: []CentralAccess{}, Issuers: []CentralIssuer{}, Tokens: defaultTokens()}
}

// central checks the section.
func (c *checker) central(cfg *Central) {
	c.centralAuth(cfg)
}
