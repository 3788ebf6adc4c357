package config

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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
	c.central(&cfg.Central)
	c.tracing(cfg.Tracing)
	const section = "registry_proxies"
	p := &cfg.RegistryProxies
	c.private(section, p)
	c.positive(section+".revalidate_timeout", p.RevalidateTimeout)
	c.positive(section+".stall_timeout", p.StallTimeout)
	c.positive(section+".finish_timeout", p.FinishTimeout)
	if p.BlobStreams < 1 || p.BlobStreams > 16 {
		c.problemAt(section+".blob_streams", fmt.Sprintf("%d is out of range", p.BlobStreams), "write a number from 1 to 16")
	}
	if err := checkAllow(p.Allow); err != nil {
		c.problemAt(section+".allow", err.Error(), "write any, local, or addresses and prefixes such as 10.0.0.0/8")
	}
	c.dockerConfig(section+".docker_config", &p.DockerConfig)
	if p.DefaultRegistry != "" {
		c.host(section+".default_registry", &p.DefaultRegistry)
	}
	for i, glob := range p.Pin {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			c.problemAt(fmt.Sprintf("%s.pin[%d]", section, i), fmt.Sprintf("bad pattern %q", glob),
				`write a reference with * and ?: "registry.k8s.io/pause:*"`)
		}
	}
	c.atLeast(section+".warm_every", p.WarmEvery, Duration(time.Second))
	for i, image := range p.Warm {
		if _, err := oci.ParseReference(image); err != nil {
			c.problemAt(fmt.Sprintf("%s.warm[%d]", section, i), err.Error(), `write an image with its registry: "docker.io/library/nginx:1.27"`)
		}
	}
	seen := map[string]int{}
	for i := range p.Registries {
		r := &p.Registries[i]
		if unusable(r.Host) {
			continue
		}
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

// atLeast refuses what would be done without a pause.
func (c *checker) atLeast(key string, d, least Duration) {
	if d < least {
		c.problemAt(key, fmt.Sprintf("%s is too often", d), fmt.Sprintf("write %s or more", least))
	}
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

// path makes p relative to the configuration file.
func (c *checker) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}
