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

	// Hosts are the names clients know the registry by, with ports: ?ns= with
	// one of them means its own content.
	Hosts []string `yaml:"hosts"`
	// PullThrough also serves other registries, as registry_proxies says, to
	// who may pull f/<registry>/<repository>.
	PullThrough bool `yaml:"pull_through"`
	// MinFree is what pushes leave free of the file system.
	MinFree Limit `yaml:"min_free"`
	// SparseIndexes takes indexes some of whose images are missing.
	SparseIndexes bool `yaml:"sparse_indexes"`
	// ImmutableTags, Quotas and GC are in central_registry.go.
	ImmutableTags []CentralTagRule `yaml:"immutable_tags"`
	Quotas        []CentralQuota   `yaml:"quotas"`
	GC            CentralGC        `yaml:"gc"`
}

// defaultCentral returns the registry's settings where a file says nothing.
func defaultCentral() Central {
	return Central{
		Users: []CentralUser{}, Access: []CentralAccess{}, Issuers: []CentralIssuer{}, Tokens: defaultTokens(),
		Hosts: []string{}, MinFree: defaultMinFree(), ImmutableTags: []CentralTagRule{}, Quotas: []CentralQuota{}, GC: defaultGC(),
	}
}

// central checks the section.
func (c *checker) central(cfg *Central) {
	c.centralAuth(cfg)
	c.centralRegistry(cfg)
}
