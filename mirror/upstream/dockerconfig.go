package upstream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// maxDockerConfig bounds Docker's configuration file, in bytes.
	maxDockerConfig = 1 << 20
	// dockerHubKey is Docker Hub's name in that file.
	dockerHubKey = "https://index.docker.io/v1/"
)

// dockerConfig is Docker's config.json, also as a Kubernetes pull secret holds
// it (type kubernetes.io/dockerconfigjson), as far as it says how to log in.
type dockerConfig struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredHelpers map[string]string     `json:"credHelpers"`
	CredsStore  string                `json:"credsStore"`
}

// dockerAuth is one credential in it. Auth is base64 of user:password and goes
// before the two spelt out.
type dockerAuth struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// ParseDockerConfig checks content, Docker's config.json: that it is one, and
// that the credentials in it can be read. Its errors hold none of them.
func ParseDockerConfig(content []byte) error {
	_, err := parseDockerConfig(content)
	return err
}

func parseDockerConfig(content []byte) (*dockerConfig, error) {
	cfg := &dockerConfig{}
	if err := json.Unmarshal(content, cfg); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("not JSON, at byte %d", syntax.Offset)
		}
		return nil, errors.New("not Docker's configuration: a field is of another type")
	}
	for _, key := range slices.Sorted(maps.Keys(cfg.Auths)) {
		if _, err := cfg.Auths[key].credential(); err != nil {
			host, _ := splitKey(key)
			return nil, fmt.Errorf("auths of %s: %w", sanitise(host), err)
		}
	}
	for _, helper := range cfg.helpers() {
		if err := checkHelper(helper); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

func (cfg *dockerConfig) helpers() []string {
	all := slices.Sorted(maps.Values(cfg.CredHelpers))
	if cfg.CredsStore != "" {
		all = append(all, cfg.CredsStore)
	}
	return all
}

// credential reads a; empty if there is nothing in it, as beside a credsStore.
func (a dockerAuth) credential() (auth.Credential, error) {
	cred := auth.Credential{Username: a.Username, Password: a.Password, RefreshToken: a.IdentityToken, AccessToken: a.RegistryToken}
	if a.Auth != "" {
		content, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			content, err = base64.RawStdEncoding.DecodeString(a.Auth)
		}
		username, password, ok := strings.Cut(string(content), ":")
		if err != nil || !ok {
			return auth.EmptyCredential, errors.New("auth is not the base64 of user:password")
		}
		cred.Username, cred.Password = username, strings.TrimRight(password, "\x00")
	}
	if cred.RefreshToken != "" {
		// The identity token stands in for the password, which Docker leaves
		// empty beside it.
		cred.Username, cred.Password = "", ""
	}
	return cred, nil
}

// dockerFile is a configuration file of Docker's on disk, read again when it
// may have changed. All hosts share one.
type dockerFile struct {
	path string
	now  func() time.Time

	mu   sync.Mutex
	cfg  *dockerConfig
	err  error
	read time.Time
}

func (f *dockerFile) load() (*dockerConfig, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if (f.cfg != nil || f.err != nil) && f.now().Sub(f.read) < fileLogin/2 {
		return f.cfg, f.err
	}
	f.read = f.now()
	content, err := readBounded(f.path, maxDockerConfig)
	if err == nil {
		f.cfg, err = parseDockerConfig(content)
	}
	if err != nil {
		f.cfg, err = nil, fmt.Errorf("read docker_config %s: %w", f.path, err)
	}
	f.err = err
	return f.cfg, f.err
}

// dockerLogin is the source of one host's logins in such a file. As with
// Docker, a helper named for the host goes before the store, and that before
// what stands in the file.
type dockerLogin struct {
	file *dockerFile
	host string
	now  func() time.Time
}

// scope implements source: the key in the file, since a key may have a path.
func (d *dockerLogin) scope(repository string) string {
	cfg, err := d.file.load()
	if err != nil {
		return ""
	}
	if _, path := splitKey(bestKey(slices.Collect(maps.Keys(cfg.Auths)), d.host, repository)); path != "" {
		return path
	}
	return ""
}

// login implements source.
func (d *dockerLogin) login(ctx context.Context, repository string) (login, error) {
	cfg, err := d.file.load()
	if err != nil {
		return login{}, err
	}
	soon := d.now().Add(fileLogin)
	if key := bestKey(slices.Collect(maps.Keys(cfg.CredHelpers)), d.host, repository); key != "" {
		cred, err := runHelper(ctx, cfg.CredHelpers[key], helperURL(d.host))
		return login{Credential: cred, renew: d.now().Add(helperLogin)}, err
	}
	key := bestKey(slices.Collect(maps.Keys(cfg.Auths)), d.host, repository)
	if cred, err := cfg.Auths[key].credential(); err == nil && cred != auth.EmptyCredential {
		return login{Credential: cred, renew: soon}, nil
	}
	if cfg.CredsStore != "" {
		cred, err := runHelper(ctx, cfg.CredsStore, helperURL(d.host))
		return login{Credential: cred, renew: d.now().Add(helperLogin)}, err
	}
	return login{}, nil
}

// helperURL is how Docker names a registry to a helper.
func helperURL(host string) string {
	if host == "docker.io" {
		return dockerHubKey
	}
	return host
}
