// Package config reads Larder's configuration file: one YAML file for all
// modes, strict, every mistake reported at once with its line and its fix.
//
// [Load] reads a file over the [Default] settings, checks it and the files it
// names, and returns what is in force. [Config.Print] writes that back as
// YAML with secrets masked. The package decides what a file may say; what a
// setting does is decided where cmd/larder hands it to: package store for
// limits, package mirror for freshness, mirror/upstream for registries.
//
// It refuses what it cannot honour: a key nobody knows, and a value only a later
// version can serve, are errors. docs/configuration.md describes every key, and
// a test holds it to that.
package config

import "github.com/larder-registry/larder/internal/policy"

// Config is what a configuration file says.
type Config struct {
	// RegistryProxies is what the node mirror does.
	RegistryProxies RegistryProxies `yaml:"registry_proxies"`
	// Webhook is how the admission webhook is served.
	Webhook Webhook `yaml:"webhook"`
	// Central is what the push registry does.
	Central Central `yaml:"central"`
	// Tracing is where traces go.
	Tracing Tracing `yaml:"tracing"`
	// ImageValidation says which images may run; nil if the file does not.
	ImageValidation *policy.Config `yaml:"image_validation,omitempty"`
}

// RegistryProxies configures the node mirror.
type RegistryProxies struct {
	// Offline: never contact an upstream; serve what is there.
	Offline bool `yaml:"offline"`
	// MaxSize bounds what the cache keeps; by default 20 % of the file
	// system, at most 50 GiB.
	MaxSize Limit `yaml:"max_size"`
	// MinFree is what must stay free on the file system, whoever fills it.
	MinFree Limit `yaml:"min_free"`
	// LockWait is how long to wait at start for another process to let go of
	// the data directory; zero fails at once.
	LockWait Duration `yaml:"lock_wait"`
	// Pin holds glob patterns (path.Match) of references that are evicted
	// last: "registry.k8s.io/pause:*".
	Pin []string `yaml:"pin"`

	// RevalidateAfter is how long a tag counts as confirmed after upstream
	// was asked for it; zero asks each time.
	RevalidateAfter Duration `yaml:"revalidate_after"`
	// RevalidateTimeout is how long a request for a cached tag waits for the
	// upstream's word before it is served what is there.
	RevalidateTimeout Duration `yaml:"revalidate_timeout"`
	// StaleIfError is how old the last confirmation of a tag may be for it to
	// be served while its upstream is unavailable; zero never serves it.
	StaleIfError Duration `yaml:"stale_if_error"`
	// StallTimeout is how long an upstream may send nothing before the fill
	// goes on elsewhere.
	StallTimeout Duration `yaml:"stall_timeout"`
	// FinishTimeout is how long a fill goes on once nobody follows it.
	FinishTimeout Duration `yaml:"finish_timeout"`
	// BlobStreams is how many connections bring in one large blob at most.
	BlobStreams int `yaml:"blob_streams"`
	// FillRate bounds what is fetched of blobs from all upstreams together, and
	// ClientRate what one client is sent, in bytes a second; zero for no bound.
	FillRate   Rate `yaml:"fill_rate"`
	ClientRate Rate `yaml:"client_rate"`
	// Warm lists images that are brought in before anybody asks, at the start
	// and every WarmEvery.
	Warm      []string `yaml:"warm"`
	WarmEvery Duration `yaml:"warm_every"`
	// PrefetchWait is how long the start of blobs that an image manifest
	// lists is held ready for the client that was given it; zero fetches
	// nothing before it is asked for.
	PrefetchWait Duration `yaml:"prefetch_wait"`

	// PrivateImages says what becomes of requests for content that its
	// upstream does not give to everybody: "challenge", "bypass" or "shared".
	PrivateImages string `yaml:"private_images"`
	// ProofTTL is how long a caller whose credentials the upstream let in may
	// have what the repository holds before the upstream is asked again.
	ProofTTL Duration `yaml:"proof_ttl"`
	// ProofGrace is how long that lasts while the upstream cannot be asked;
	// zero lets nobody in then.
	ProofGrace Duration `yaml:"proof_grace"`
	// Allow says who may connect: "any", "local", or a comma list of
	// addresses, CIDR prefixes and "local". The flag --allow goes before it.
	Allow string `yaml:"allow"`
	// CloudCredentials: ask ECR, Artifact Registry and Azure's registries
	// with the credentials that this machine or pod has in their cloud.
	CloudCredentials bool `yaml:"cloud_credentials"`
	// DockerConfig is a file like Docker's config.json, whose credentials and
	// credential helpers serve every registry whose entry has none.
	DockerConfig string `yaml:"docker_config,omitempty"`
	// DefaultRegistry is meant by clients that name none.
	DefaultRegistry string `yaml:"default_registry"`
	// Registries holds what is special about single upstreams. Any registry
	// works without an entry.
	Registries []Registry `yaml:"registries"`
}
