package config

import (
	"time"

	"github.com/larder-registry/larder/store"
)

// Default returns the settings in force where a file says nothing. It is the
// only place that holds them.
func Default() *Config {
	return &Config{RegistryProxies: RegistryProxies{
		// Above the marks at which the kubelet starts to delete images.
		MinFree:  Limit{store.Percent(25)},
		LockWait: Duration(30 * time.Second),
		Pin:      []string{},

		RevalidateAfter:   0,
		RevalidateTimeout: Duration(800 * time.Millisecond),
		StaleIfError:      Duration(7 * 24 * time.Hour),
		StallTimeout:      Duration(15 * time.Second),
		FinishTimeout:     Duration(10 * time.Minute),
		BlobStreams:       8,
		Warm:              []string{},
		WarmEvery:         Duration(time.Hour),
		PrefetchWait:      Duration(5 * time.Second),

		PrivateImages:    imagesChallenge,
		ProofTTL:         Duration(10 * time.Minute),
		ProofGrace:       Duration(24 * time.Hour),
		Allow:            "any",
		CloudCredentials: true,
		DefaultRegistry:  "docker.io",
		Registries:       []Registry{},
	}, Webhook: defaultWebhook(), Central: defaultCentral(), Tracing: Tracing{Sample: 1}}
}
