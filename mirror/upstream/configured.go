package upstream

import (
	"cmp"
	"errors"
	"net/http"
	"strings"
	"sync"
)

// maxFound bounds the hosts without an entry whose credentials are remembered.
const maxFound = 256

// AWS says of an ECR registry what its name does not.
type AWS struct {
	// Region to ask for a token; by default the one in the host's name.
	Region string
	// RoleARN is a role to assume before; empty for none.
	RoleARN string
}

// found are the credentials that no entry spells out: from Docker's
// configuration, and from the cloud a registry belongs to. There is one for
// each host, or one for all hosts that share it.
type found struct {
	docker   *dockerFile // nil: there is none
	metadata *http.Client
	aws      *awsChain

	mu    sync.Mutex
	hosts *lru[string, *credential]
	ecr   *lru[ecrKey, *credential]
	gcp   *credential
}

type ecrKey struct {
	host ecrHost
	role string
}

func (c *Client) newFound(cfg Config) (*found, error) {
	f := &found{hosts: newLRU[string, *credential](maxFound), ecr: newLRU[ecrKey, *credential](maxFound), metadata: metadataClient(cfg.Resolver), aws: &awsChain{now: c.now, log: c.log}}
	if cfg.DockerConfig != "" {
		f.docker = &dockerFile{path: cfg.DockerConfig, now: c.now}
		if _, err := f.docker.load(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// credentialOf makes the credential of entry e, made of r; nil if it has none.
// What an entry says counts alone; one that says nothing gets what is found.
func (c *Client) credentialOf(r Registry, e *entry) (*credential, error) {
	switch {
	case r.Username != "" || r.Password != "" || r.PasswordFile != "":
		return c.newCredential(r.String(), password{username: r.Username, secret: r.Password, file: r.PasswordFile, now: c.now}, c.timeouts.Token), nil
	case r.Provider != nil:
		return c.newCredential(r.String(), &plugin{Plugin: *r.Provider, host: e.host, now: c.now}, cmp.Or(r.Provider.Timeout, c.timeouts.Program)), nil
	case r.AWS != nil:
		h, _ := parseECRHost(e.host)
		if r.AWS.Region != "" {
			h.region = r.AWS.Region
		}
		if h.region == "" {
			return nil, errors.New("aws: the region is missing, and the host's name does not say it")
		}
		c.found.mu.Lock()
		defer c.found.mu.Unlock()
		return c.ecrCredential(ecrKey{h, r.AWS.RoleARN}), nil
	}
	return c.foundFor(e), nil
}

// foundFor is the credential found for an entry that spells none out, or for
// what stands in for an entry; nil if there is nowhere to look.
func (c *Client) foundFor(e *entry) *credential {
	f := c.found
	f.mu.Lock()
	defer f.mu.Unlock()
	key := originOf(e.base)
	if known, ok := f.hosts.get(key); ok {
		return known
	}
	cred := c.ofCloud(e)
	if f.docker != nil {
		inFile := c.newCredential(e.host, &dockerLogin{file: f.docker, host: e.host, now: c.now}, c.timeouts.Program)
		inFile.next = cred
		cred = inFile
	}
	f.hosts.put(key, cred)
	return cred
}

// ofCloud is the credential that comes with a cloud, by the registry's host;
// found.mu is held. Nobody is asked for it before it is needed.
func (c *Client) ofCloud(e *entry) *credential {
	if c.env == nil {
		return nil
	}
	if h, ok := parseECRHost(e.host); ok {
		return c.ecrCredential(ecrKey{host: h})
	}
	switch {
	case isGoogle(e.host):
		if c.found.gcp == nil {
			src := &googleSource{metadata: c.found.metadata, env: c.env, now: c.now}
			c.found.gcp = c.newCredential("google", src, c.timeouts.Token)
			c.found.gcp.found = true
		}
		return c.found.gcp
	case isAzure(e.host):
		src := &azureSource{base: e.base, transport: e.exchange.foreign, metadata: c.found.metadata, env: c.env, now: c.now}
		cred := c.newCredential(e.host, src, c.timeouts.Token)
		cred.found = true
		return cred
	}
	return nil
}

// ecrCredential is shared by all registries that one token opens; found.mu is
// held.
func (c *Client) ecrCredential(key ecrKey) *credential {
	cred, ok := c.found.ecr.get(key)
	if !ok {
		cred = c.newCredential(strings.TrimSuffix("ecr "+key.host.region+" "+key.role, " "), &ecrSource{host: key.host, roleARN: key.role, chain: c.found.aws}, c.timeouts.Token)
		cred.found = key.role == ""
		c.found.ecr.put(key, cred)
	}
	return cred
}
