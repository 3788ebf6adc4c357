package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/larder-registry/larder/internal/oci"
)

// checker holds settings against what they mean, once they are decoded.
type checker struct {
	*decoder
	// dir is where relative paths start.
	dir string
}

// problemAt notes a mistake in the value of key, if the file gives one.
func (c *checker) problemAt(key, text, fix string) {
	if n, ok := c.at[key]; ok {
		c.problem(n, key, text, fix)
	}
}

// check looks at everything, normalises names and makes paths absolute or
// relative to the working directory.
func (c *checker) check(cfg *Config) {
	c.webhook(&cfg.Webhook)
	const section = "registry_proxies"
	p := &cfg.RegistryProxies
	c.oneOf(section+".private_images", p.PrivateImages, "bypass", "challenge", "shared")
	c.positive(section+".revalidate_timeout", p.RevalidateTimeout)
	c.positive(section+".stall_timeout", p.StallTimeout)
	c.positive(section+".finish_timeout", p.FinishTimeout)
	if p.DefaultRegistry != "" {
		c.host(section+".default_registry", &p.DefaultRegistry)
	}
	for i, glob := range p.Pin {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			c.problemAt(fmt.Sprintf("%s.pin[%d]", section, i), fmt.Sprintf("bad pattern %q", glob),
				`write a reference with * and ?: "registry.k8s.io/pause:*"`)
		}
	}
	seen := map[string]int{}
	for i := range p.Registries {
		r := &p.Registries[i]
		key := section + ".registries[" + strconv.Itoa(i) + "]"
		c.registry(key, r)
		id := r.Host + "/" + r.PathPrefix
		if first, dup := seen[id]; dup && r.Host != "" {
			c.problemAt(key, fmt.Sprintf("%s is there twice, first in line %d", strings.TrimSuffix(id, "/"), c.at[section+".registries["+strconv.Itoa(first)+"]"].Line),
				"merge the entries, or tell them apart by path_prefix")
			continue
		}
		seen[id] = i
	}
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
		if _, err := oci.NewName("localhost", trimmed); err != nil {
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
	c.oneOf(key+".access", r.Access, "node", "caller")
	c.problemAt(key+".aws", "credentials for ECR are not available in this version", "remove the key; username and password_file work")
}

// oneOf accepts the first of the known values, and says of the others that
// only a later version serves them.
func (c *checker) oneOf(key, got, served string, later ...string) {
	if got == served || got == "" && c.at[key] == nil {
		return
	}
	if slices.Contains(later, got) {
		c.problemAt(key, fmt.Sprintf("%q is not available in this version", got), fmt.Sprintf("only %q is", served))
		return
	}
	c.problemAt(key, fmt.Sprintf("unknown value %q", got), fmt.Sprintf("write %q", served))
}

// positive refuses a patience of nothing.
func (c *checker) positive(key string, d Duration) {
	if d == 0 {
		c.problemAt(key, "the time must be longer than nothing", "")
	}
}

// host normalises the name of a registry.
func (c *checker) host(key string, host *string) {
	if strings.Contains(*host, "@") {
		// What stands before it may be a password, so it is not repeated.
		c.problemAt(key, "a host's name is wanted, without a user", "use username and password_file")
		return
	}
	if scheme, rest, ok := strings.Cut(*host, "://"); ok {
		fix := fmt.Sprintf("write %q", strings.TrimRight(rest, "/"))
		if scheme == "http" {
			fix += " and insecure: true"
		}
		c.problemAt(key, "a host's name is wanted, not a URL", fix)
		return
	}
	if name, rest, ok := strings.Cut(*host, "/"); ok {
		c.problemAt(key, "a host's name is wanted, without a path", fmt.Sprintf("write host: %s and path_prefix: %s", name, rest))
		return
	}
	name, err := oci.NewName(*host, "repository")
	if e, ok := errors.AsType[*oci.Error](err); ok {
		c.problemAt(key, e.Message, "")
		return
	}
	*host = name.Registry
}

// credentials checks that there is one whole pair, and that it can be read.
func (c *checker) credentials(key string, r *Registry) {
	if file, ok := strings.CutPrefix(string(r.Password), "file://"); ok {
		if r.PasswordFile != "" {
			c.problemAt(key+".password", "password and password_file are both given", "keep one of them")
			return
		}
		r.Password, r.PasswordFile = "", file
		c.at[key+".password_file"] = c.at[key+".password"]
	}
	switch hasPassword := r.Password != "" || r.PasswordFile != ""; {
	case r.Password != "" && r.PasswordFile != "":
		c.problemAt(key+".password", "password and password_file are both given", "keep one of them")
		return
	case r.Username != "" && !hasPassword:
		c.problemAt(key+".username", "username has no password", "add password_file")
	case r.Username == "" && hasPassword:
		c.problemAt(key, "password has no username", "add username")
	case strings.Contains(r.Username, ":"):
		c.problemAt(key+".username", "a username cannot hold a colon (RFC 7617 section 2)", "")
	}
	if r.PasswordFile != "" {
		r.PasswordFile = c.path(r.PasswordFile)
		if _, err := r.ReadPassword(); err != nil {
			c.problemAt(key+".password_file", err.Error(), "")
		}
	}
}

// ReadPassword returns the entry's password, from its file if it names one, so
// that a secret that was rotated on disk is seen by whoever asks again. A
// line's end after the password does not belong to it.
func (r *Registry) ReadPassword() (Secret, error) {
	if r.PasswordFile == "" {
		return r.Password, nil
	}
	content, err := readSmall(r.PasswordFile)
	if err != nil {
		return "", err
	}
	password := strings.TrimRight(string(content), "\r\n")
	if password == "" {
		return "", fmt.Errorf("read %s: the file is empty", r.PasswordFile)
	}
	return Secret(password), nil
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

// path makes p relative to the configuration file.
func (c *checker) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
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
