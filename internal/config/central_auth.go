package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/larder-registry/larder/central/auth"
	"github.com/larder-registry/larder/internal/oci"
)

// CentralUser is somebody with a password at the central registry.
type CentralUser struct {
	// Name is what rules call "user:<name>".
	Name string `yaml:"name"`
	// PasswordHash is bcrypt's, as htpasswd -nB prints it.
	PasswordHash Secret `yaml:"password_hash"`
}

// CentralAccess gives rights at the central registry; see auth.Rule.
type CentralAccess struct {
	Subjects     []string `yaml:"subjects"`
	Repositories []string `yaml:"repositories"`
	Actions      []string `yaml:"actions"`
}

// CentralTokens configures the tokens that the central registry signs.
type CentralTokens struct {
	// KeyFile holds the secret they are signed with. Without one, the data
	// directory keeps one.
	KeyFile string `yaml:"key_file,omitempty"`
	// Lifetime is how long a token is good for.
	Lifetime Duration `yaml:"lifetime"`
	// PublicURL is scheme and host as clients reach the registry, for where
	// they get tokens. Without one, it is what each request came to.
	PublicURL string `yaml:"public_url,omitempty"`
}

// CentralKubernetes has a cluster say who service accounts are.
type CentralKubernetes struct {
	// Audiences are what a token must be made out for, one of them.
	Audiences []string `yaml:"audiences"`
	// ReviewAccess also has the cluster's roles give rights, by
	// SubjectAccessReview.
	ReviewAccess bool `yaml:"review_access"`
	// Issuer limits it to tokens of this issuer.
	Issuer string `yaml:"issuer,omitempty"`
	// APIURL is the API server's; without one it is the cluster's that the
	// process runs in.
	APIURL string `yaml:"api_url,omitempty"`
	// ServiceAccountDir holds the files token and ca.crt.
	ServiceAccountDir string `yaml:"service_account_dir,omitempty"`
}

// CentralIssuer is somebody whose tokens the central registry takes for
// passwords: a CI system, an identity provider, a cluster from outside.
type CentralIssuer struct {
	// Name stands before its subjects in rules: "<name>:<sub>".
	Name string `yaml:"name"`
	// URL is the issuer claim, and where its keys are found.
	URL string `yaml:"url"`
	// Audiences are what a token must be made out for, one of them.
	Audiences []string `yaml:"audiences"`
	// GroupsClaim names a claim with groups: "group:<name>:<group>" in rules.
	GroupsClaim string `yaml:"groups_claim,omitempty"`
	// JWKSURL is where the keys are, for an issuer without discovery.
	JWKSURL string `yaml:"jwks_url,omitempty"`
	// CAFile holds PEM certificates to trust for it besides the system's.
	CAFile string `yaml:"ca_file,omitempty"`
	// TokenFile holds a bearer token that its endpoints ask for.
	TokenFile string `yaml:"token_file,omitempty"`
}

// CentralTLS configures TLS beyond --tls-cert and --tls-key.
type CentralTLS struct {
	// ClientCAFile holds the authorities of client certificates; a client with
	// one is the subject "cert:<common name>".
	ClientCAFile string `yaml:"client_ca_file,omitempty"`
	// RequireClientCert refuses connections without one.
	RequireClientCert bool `yaml:"require_client_cert"`
}

// serviceAccountDir is where Kubernetes mounts a pod's own account.
const serviceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// defaultTokens returns the settings for tokens where a file says nothing.
func defaultTokens() CentralTokens { return CentralTokens{Lifetime: Duration(5 * time.Minute)} }

// Rule gives the entry as who decides reads it.
func (a CentralAccess) Rule() auth.Rule {
	rule := auth.Rule{Subjects: a.Subjects, Repositories: a.Repositories}
	for _, action := range a.Actions {
		rule.Actions = append(rule.Actions, oci.Action(action))
	}
	return rule
}

// User gives the entry as who decides reads it.
func (u CentralUser) User() auth.User {
	return auth.User{Name: u.Name, PasswordHash: string(u.PasswordHash)}
}

// centralAuth checks what the central registry is told about who may do what.
func (c *checker) centralAuth(cfg *Central) {
	const section = "central"
	names := map[string]bool{}
	for i, u := range cfg.Users {
		key := section + ".users[" + strconv.Itoa(i) + "]"
		if err := auth.CheckUser(u.User()); err != nil {
			c.problemAt(key, err.Error(), "")
		} else if names[u.Name] {
			c.problemAt(key, fmt.Sprintf("user %q is there twice", u.Name), "keep one of them")
		}
		names[u.Name] = true
	}
	if cfg.HtpasswdFile != "" {
		cfg.HtpasswdFile = c.path(cfg.HtpasswdFile)
		c.sideFile(section+".htpasswd_file", cfg.HtpasswdFile, auth.CheckHtpasswd)
	}
	for i, a := range cfg.Access {
		if err := auth.CheckRule(a.Rule()); err != nil {
			c.problemAt(section+".access["+strconv.Itoa(i)+"]", err.Error(), "")
		}
	}
	if cfg.Tokens.KeyFile != "" {
		cfg.Tokens.KeyFile = c.path(cfg.Tokens.KeyFile)
		c.sideFile(section+".tokens.key_file", cfg.Tokens.KeyFile, auth.CheckKeys)
	}
	if cfg.Tokens.Lifetime < Duration(time.Minute) || cfg.Tokens.Lifetime > Duration(time.Hour) {
		c.problemAt(section+".tokens.lifetime", "tokens last from a minute to an hour", "")
	}
	if cfg.Tokens.PublicURL != "" {
		if err := checkEndpoint(cfg.Tokens.PublicURL); err != nil {
			c.problemAt(section+".tokens.public_url", err.Error(), "")
		}
	}
	if cfg.TLS.ClientCAFile != "" {
		cfg.TLS.ClientCAFile = c.path(cfg.TLS.ClientCAFile)
		c.sideFile(section+".tls.client_ca_file", cfg.TLS.ClientCAFile, checkPEM)
	} else if cfg.TLS.RequireClientCert {
		c.problemAt(section+".tls.require_client_cert", "there is no authority to check certificates by", "add client_ca_file")
	}
	c.centralProviders(cfg)
}

// centralProviders checks those who vouch for tokens.
func (c *checker) centralProviders(cfg *Central) {
	names := map[string]bool{}
	if k := cfg.Kubernetes; k != nil {
		names["kubernetes"] = true
		const key = "central.kubernetes"
		if len(k.Audiences) == 0 {
			c.problemAt(key, "audiences is missing, and a token for the API server must not be good for the registry", "name the registry: audiences: [registry.example]")
		}
		if k.ServiceAccountDir == "" {
			k.ServiceAccountDir = serviceAccountDir
		}
		k.ServiceAccountDir = c.path(k.ServiceAccountDir)
		if k.APIURL != "" {
			if err := auth.CheckIssuerURL(k.APIURL); err != nil {
				c.problemAt(key+".api_url", err.Error(), "")
			}
		}
	}
	for i := range cfg.Issuers {
		issuer := &cfg.Issuers[i]
		key := "central.issuers[" + strconv.Itoa(i) + "]"
		if err := auth.CheckProviderName(issuer.Name); err != nil {
			c.problemAt(key, err.Error(), "")
		} else if names[issuer.Name] {
			c.problemAt(key, fmt.Sprintf("the name %q is there twice, and rules could not tell whose subjects they mean", issuer.Name), "")
		}
		names[issuer.Name] = true
		if err := auth.CheckIssuerURL(issuer.URL); err != nil {
			c.problemAt(key, "url: "+err.Error(), "")
		}
		if issuer.JWKSURL != "" {
			if err := auth.CheckIssuerURL(issuer.JWKSURL); err != nil {
				c.problemAt(key+".jwks_url", err.Error(), "")
			}
		}
		if len(issuer.Audiences) == 0 {
			c.problemAt(key, "audiences is missing, and a token for another service must not be good for the registry", "name the registry: audiences: [registry.example]")
		}
		if issuer.CAFile != "" {
			issuer.CAFile = c.path(issuer.CAFile)
			c.sideFile(key+".ca_file", issuer.CAFile, checkPEM)
		}
		if issuer.TokenFile != "" {
			issuer.TokenFile = c.path(issuer.TokenFile)
		}
	}
}

func checkPEM(content []byte) error {
	if !x509.NewCertPool().AppendCertsFromPEM(content) {
		return errors.New("it holds no PEM certificate")
	}
	return nil
}

// sideFile checks that a file can be read and holds what it should.
func (c *checker) sideFile(key, name string, check func([]byte) error) {
	content, err := readSmall(name)
	if err == nil {
		err = check(content)
	}
	if err != nil {
		c.problemAt(key, err.Error(), "")
	}
}
