package upstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// Plugin runs a kubelet credential-provider plugin (Kubernetes API
// credentialprovider.kubelet.k8s.io: a CredentialProviderRequest on standard
// input, a CredentialProviderResponse on standard output).
type Plugin struct {
	// Command is the program, with Args.
	Command string
	Args    []string
	// Env adds NAME=value to the environment it gets, which is this process's.
	Env []string
	// APIVersion is the version of the protocol; the default is
	// credentialprovider.kubelet.k8s.io/v1.
	APIVersion string
	// Timeout bounds one run, after which the program and all it started are
	// killed; Timeouts.Program when zero.
	Timeout time.Duration
	// CacheDuration is how long an answer is used that does not say; 10
	// minutes when zero.
	CacheDuration time.Duration
}

const (
	defaultPluginAPI   = "credentialprovider.kubelet.k8s.io/v1"
	defaultPluginCache = 10 * time.Minute
	// maxPluginCache bounds what an answer says.
	maxPluginCache = 24 * time.Hour
)

// plugin is the source of one host's logins from a Plugin.
type plugin struct {
	Plugin
	host string
	now  func() time.Time
}

type pluginRequest struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Image      string `json:"image"`
}

type pluginResponse struct {
	Kind          string  `json:"kind"`
	APIVersion    string  `json:"apiVersion"`
	CacheKeyType  string  `json:"cacheKeyType"`
	CacheDuration *string `json:"cacheDuration"`
	Auth          map[string]struct {
		Username string `json:"username"`
		Password string `json:"password"`
	} `json:"auth"`
}

// scope implements source: the answer may be for one image only.
func (p *plugin) scope(repository string) string { return repository }

// login implements source.
func (p *plugin) login(ctx context.Context, repository string) (login, error) {
	request, err := json.Marshal(pluginRequest{
		Kind: "CredentialProviderRequest", APIVersion: p.api(), Image: p.host + "/" + repository,
	})
	if err != nil {
		return login{}, fmt.Errorf("ask %s: %w", filepath.Base(p.Command), err)
	}
	out, err := runProgram(ctx, request, p.Env, p.Command, p.Args...)
	if err != nil {
		return login{shared: true}, err // it would fail for other images, too
	}
	l, err := p.read(out, repository)
	if err != nil {
		return login{shared: true}, fmt.Errorf("run %s: %w", filepath.Base(p.Command), err)
	}
	return l, nil
}

func (p *plugin) api() string { return cmp.Or(p.APIVersion, defaultPluginAPI) }

// read makes a login of an answer; none if nothing in it fits the repository.
// Its errors hold nothing of the answer.
func (p *plugin) read(out []byte, repository string) (login, error) {
	var resp pluginResponse
	switch err := json.Unmarshal(out, &resp); {
	case err != nil:
		return login{}, errors.New("its answer is not a CredentialProviderResponse")
	case resp.Kind != "CredentialProviderResponse":
		return login{}, errors.New("its answer is of another kind than CredentialProviderResponse")
	case resp.APIVersion != p.api():
		return login{}, fmt.Errorf("its answer is not of version %s", p.api())
	}
	var l login
	switch resp.CacheKeyType {
	case "Image":
	case "Registry", "Global":
		l.shared = true
	default:
		return login{}, errors.New("its answer's cacheKeyType is none of Image, Registry and Global")
	}
	keep := cmp.Or(p.CacheDuration, defaultPluginCache)
	if resp.CacheDuration != nil {
		said, err := time.ParseDuration(*resp.CacheDuration)
		if err != nil || said < 0 {
			return login{}, errors.New("its answer's cacheDuration is not a duration")
		}
		keep = min(said, maxPluginCache)
	}
	if key := bestKey(slices.Collect(maps.Keys(resp.Auth)), p.host, repository); key != "" {
		a := resp.Auth[key]
		l.Credential = auth.Credential{Username: a.Username, Password: a.Password}
	}
	l.once = keep == 0
	l.expires = p.now().Add(keep)
	return l, nil
}
