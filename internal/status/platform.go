package status

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// The bounds on platforms: whoever pushed an image wrote them.
const (
	maxPlatforms    = 64
	maxPlatformText = 64
)

// platform is that of the OCI image spec's indexes and configs.
type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

// String is linux/arm64/v8; empty for what has no platform, such as an
// attestation.
func (p platform) String() string {
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	if p.OS == "" || p.Architecture == "" || p.OS == "unknown" || len(text) > maxPlatformText {
		return ""
	}
	return text
}

// Platforms reads for which platforms an image is held, of how many it has. read
// gives the content of a digest, nil for what is not held or too long, and holds
// reports whether an image manifest is held.
func Platforms(root digest.Digest, index bool, read func(digest.Digest) []byte, holds func(digest.Digest) bool) (held []string, listed int) {
	var doc struct {
		Manifests []struct {
			Digest   digest.Digest `json:"digest"`
			Platform platform      `json:"platform"`
		} `json:"manifests"`
		Config struct {
			Digest digest.Digest `json:"digest"`
		} `json:"config"`
	}
	if json.Unmarshal(read(root), &doc) != nil {
		return nil, 0
	}
	if !index {
		var config platform
		if dgst, err := oci.ParseDigest(string(doc.Config.Digest)); err != nil || json.Unmarshal(read(dgst), &config) != nil || config.String() == "" {
			return nil, 0
		}
		return []string{config.String()}, 1
	}
	for _, child := range doc.Manifests {
		p := child.Platform.String()
		if p == "" {
			continue
		}
		listed++
		if dgst, err := oci.ParseDigest(string(child.Digest)); err == nil && len(held) < maxPlatforms && !slices.Contains(held, p) && holds(dgst) {
			held = append(held, p)
		}
	}
	slices.Sort(held)
	return held, listed
}
