package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What private_images and access may say; docs/private-images.md says what they
// mean.
const (
	imagesChallenge = "challenge"
	imagesBypass    = "bypass"
	imagesShared    = "shared"

	accessNode   = "node"
	accessCaller = "caller"
)

// The bounds of proof_ttl: shorter asks the upstream with every request, longer
// makes taking a secret back pointless. proof_grace is bounded as a day's work
// that nobody notices is.
const (
	minProofTTL   = time.Second
	maxProofTTL   = 24 * time.Hour
	maxProofGrace = 30 * 24 * time.Hour
)

// private checks what decides who may read private images.
func (c *checker) private(section string, p *RegistryProxies) {
	c.oneOf(section+".private_images", p.PrivateImages, imagesChallenge, imagesBypass, imagesShared)
	if ttl := time.Duration(p.ProofTTL); ttl < minProofTTL || ttl > maxProofTTL {
		c.problemAt(section+".proof_ttl", "the time must be from 1s to 24h", "")
	}
	if time.Duration(p.ProofGrace) > maxProofGrace {
		c.problemAt(section+".proof_grace", "the time must be at most 720h", `write "0s" to let nobody in while the upstream cannot be asked`)
	}
}

// access checks who may have what an entry's credentials fetch.
func (c *checker) access(key string, r *Registry) {
	if c.at[key+".access"] == nil {
		return
	}
	c.oneOf(key+".access", r.Access, accessNode, accessCaller)
	if r.NeedsProof() && r.ClientCertFile != "" {
		c.problemAt(key+".access", "callers can prove nothing where client_cert_file lets everybody in", "remove one of them")
	}
}

// NeedsProof reports whether what the entry's credentials fetch is for callers
// only who prove that they may have it.
func (r *Registry) NeedsProof() bool { return r.Access == accessCaller }

// oneOf accepts one of the values.
func (c *checker) oneOf(key, got string, values ...string) {
	if !slices.Contains(values, got) {
		c.problemAt(key, fmt.Sprintf("unknown value %q", got), "write one of "+strings.Join(values, ", "))
	}
}
