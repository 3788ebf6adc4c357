package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/larder-registry/larder/internal/oci"
)

// Registry is what is special about one upstream registry, or about the part
// of it below a path.
type Registry struct {
	// Host is the registry as clients name it, with its port if it has one.
	Host string `yaml:"host"`
	// PathPrefix narrows the entry to repositories at or below this path. The
	// longest match on '/' boundaries wins.
	PathPrefix string `yaml:"path_prefix,omitempty"`
	// Username and Password are the mirror's own credentials there.
	Username string `yaml:"username,omitempty"`
	Password Secret `yaml:"password,omitempty"`
	// PasswordFile holds the password instead. A Password that starts with
	// file:// is moved here by Load.
	PasswordFile string `yaml:"password_file,omitempty"`
	// TokenServer is the host of a token server in another domain than Host
	// that may be sent the credentials.
	TokenServer string `yaml:"token_server,omitempty"`
	// CredentialProvider is a program that gives the credentials instead.
	CredentialProvider *CredentialProvider `yaml:"credential_provider,omitempty"`
	// AWS is for what the name of an ECR registry does not say.
	AWS *AWS `yaml:"aws,omitempty"`
	// Insecure: plain HTTP.
	Insecure bool `yaml:"insecure,omitempty"`
	// CAFile holds PEM certificates that are trusted for this registry
	// besides the system's.
	CAFile string `yaml:"ca_file,omitempty"`
	// ClientCertFile and ClientKeyFile hold a PEM pair to authenticate with.
	ClientCertFile string `yaml:"client_cert_file,omitempty"`
	ClientKeyFile  string `yaml:"client_key_file,omitempty"`
	// Endpoints are URLs that are tried in order before the host itself.
	Endpoints []string `yaml:"endpoints,omitempty"`
	// Access says who may have what was fetched with these credentials:
	// "node", everybody the listener admits, or "caller", those who prove that
	// their own credentials are let in, too.
	Access string `yaml:"access,omitempty"`
}

// registry checks one entry of registries.
func (c *checker) registry(key string, r *Registry) {
	if _, given := c.at[key+".host"]; !given {
		c.problemAt(key, "host is missing", "name the registry: host: docker.io")
		return
	}
	c.host(key+".host", &r.Host)
	if r.PathPrefix != "" {
		trimmed := strings.Trim(r.PathPrefix, "/")
		if _, err := oci.NewName("localhost", trimmed); err != nil && trimmed != "" {
			c.problemAt(key+".path_prefix", fmt.Sprintf("%q is not the start of a repository's name", r.PathPrefix), `write lower-case components: "team-a" or "team-a/images"`)
		}
		r.PathPrefix = trimmed
	}
	c.credentials(key, r)
	c.tls(key, r)
	for i, e := range r.Endpoints {
		if err := checkEndpoint(e); err != nil {
			text, fix, _ := strings.Cut(err.Error(), "; ")
			c.problemAt(key+".endpoints["+strconv.Itoa(i)+"]", text, fix)
		}
	}
	c.access(key, r)
}

// unusable reports whether host is a name that DNS knows and images cannot
// have: one with an underscore. Files for an earlier product may hold it.
func unusable(host string) bool {
	if !strings.Contains(host, "_") {
		return false
	}
	_, err := oci.NewName(strings.ReplaceAll(host, "_", "-"), "repository")
	return err == nil
}

// dropUnusable removes the entries that no image can be from, and returns a
// warning for each.
func (c *checker) dropUnusable(p *RegistryProxies) (warnings []Problem) {
	kept := []Registry{}
	for i, r := range p.Registries {
		if !unusable(r.Host) {
			kept = append(kept, r)
			continue
		}
		key := "registry_proxies.registries[" + strconv.Itoa(i) + "].host"
		warnings = append(warnings, Problem{
			File: c.file, Line: c.at[key].Line, Column: c.at[key].Column, Key: key,
			Text: "no image can be from a host with an underscore; the entry has NO effect",
		})
	}
	p.Registries = kept
	return warnings
}

// maxSideFile bounds the files a configuration names, in bytes. A bundle of
// all public authorities takes a quarter of it.
const maxSideFile = 1 << 20

// readSmall reads a regular file of bounded size, so that a wrong path, to a
// device or a pipe, neither blocks nor fills memory.
func readSmall(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSideFile {
		return nil, fmt.Errorf("read %s: not a regular file of at most %d bytes", file, maxSideFile)
	}
	return os.ReadFile(file)
}

// tls checks that the files named are there and hold what they should.
func (c *checker) tls(key string, r *Registry) {
	if r.CAFile != "" {
		r.CAFile = c.path(r.CAFile)
		switch content, err := readSmall(r.CAFile); {
		case err != nil:
			c.problemAt(key+".ca_file", err.Error(), "")
		case !x509.NewCertPool().AppendCertsFromPEM(content):
			c.problemAt(key+".ca_file", r.CAFile+" holds no PEM certificate", "")
		case r.Insecure && len(r.Endpoints) == 0:
			c.problemAt(key+".ca_file", "ca_file is never used, since insecure means plain HTTP", "remove one of them")
		}
	}
	if (r.ClientCertFile == "") != (r.ClientKeyFile == "") {
		c.problemAt(key, "client_cert_file and client_key_file belong together", "give both")
		return
	}
	if r.ClientCertFile == "" {
		return
	}
	r.ClientCertFile, r.ClientKeyFile = c.path(r.ClientCertFile), c.path(r.ClientKeyFile)
	cert, err := readSmall(r.ClientCertFile)
	if err != nil {
		c.problemAt(key+".client_cert_file", err.Error(), "")
		return
	}
	private, err := readSmall(r.ClientKeyFile)
	if err != nil {
		c.problemAt(key+".client_key_file", err.Error(), "")
		return
	}
	if _, err := tls.X509KeyPair(cert, private); err != nil {
		c.problemAt(key+".client_cert_file", err.Error(), "")
	}
}

// checkEndpoint accepts an http or https URL with a host, and a path if it
// likes. The text of its error never repeats userinfo, which holds secrets.
func checkEndpoint(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Opaque != "":
		return fmt.Errorf("not a URL; write it like https://mirror.example/v2/hub")
	case u.Scheme == "":
		return fmt.Errorf("the URL has no scheme; write https://%s", strings.TrimPrefix(u.Redacted(), "//"))
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("unknown scheme %q; write http or https", u.Scheme)
	case u.Host == "" || u.Hostname() == "":
		return fmt.Errorf("the URL has no host; write it like https://mirror.example/v2/hub")
	case u.User != nil:
		return fmt.Errorf("a URL cannot carry credentials; use username and password_file")
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("a URL of an endpoint has no query and no fragment; remove them")
	}
	return nil
}
