// Package policy decides which images may run: a list of what is allowed, a
// list of what is denied, and one answer for every image reference.
//
// [New] parses a [Config] once; [Policy.Decide] and its relatives are then pure
// functions, with no clock and no network, for any number of goroutines. An
// image is brought into one spelling first (image.go), so that no two ways to
// write it get two answers; entries match by whole path segments (entry.go), so
// that an entry for ghcr.io/org says nothing of ghcr.io/organisation. The
// longest entry that matches decides, deny wins between equals, and then the
// default does.
//
// It refuses, whatever the entries say, what the kubelet could not pull and what
// could be taken for two images. It refuses, when it is made, entries that can
// never match or mean something other than they look like (check.go).
//
// Where the images of a Kubernetes object stand is found by internal/policy/
// workload. [Policy.AdmissionPolicies] writes the same policy as Kubernetes
// ValidatingAdmissionPolicies (vap.go); internal/policy/policytest holds the
// table that both have to agree on.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/larder-registry/larder/internal/oci"
)

// Policy is a policy in force. It never changes.
type Policy struct {
	aliases    map[string]string
	general    scope
	namespaces map[string]scope
	revision   string
}

// New makes a policy. The error is [Problems], every one of them; what is only
// worth a warning does not stop it (see [Check]).
func New(cfg Config) (*Policy, error) {
	p, problems := compile(cfg)
	if mistakes := problems.mistakes(); len(mistakes) > 0 {
		return nil, mistakes
	}
	written, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("encode policy: %w", err)
	}
	sum := sha256.Sum256(written)
	p.revision = hex.EncodeToString(sum[:6])
	return p, nil
}

// Verdict is what a policy says of one image.
type Verdict struct {
	// Allowed: the policy has nothing against the image. What becomes of one
	// that it has something against is up to Mode; see Refused.
	Allowed bool
	// Mode is what the denial comes to; for an allowed image, what it would
	// have come to.
	Mode Mode
	// Rule is what decided, short and one of few: "allow ghcr.io/org", "deny
	// docker.io/library/secret", "default Deny", "require_digest", "invalid",
	// or "empty"; with " in namespace team-a" behind it where that namespace's
	// part of the policy decided. Fit for a metric.
	Rule string
	// Normalized is the image in the one spelling that was decided on:
	// registry/repository:tag or registry/repository@digest. Empty for what
	// is not an image reference.
	Normalized string
	// Reason says in a sentence, without the image, why; for people who
	// never saw the policy.
	Reason string
	// Nearest is the allow entry that looks most like an image denied by
	// default, if there is one that looks like it at all. Reason names it.
	Nearest string
}

// Refused reports whether the image must not run.
func (v Verdict) Refused() bool { return !v.Allowed && v.Mode == Enforce }

// Word is the verdict in a word: allow, deny, warn or audit; the latter two are
// denials that come to nothing more.
func (v Verdict) Word() string {
	switch {
	case v.Allowed:
		return "allow"
	case v.Mode == Enforce:
		return "deny"
	}
	return string(v.Mode)
}

// DecideImage decides on what the image field of a container in namespace
// holds, a short name such as "nginx" included. No image at all is allowed: the
// API server has its own rules for where one may be missing.
func (p *Policy) DecideImage(namespace, raw string) Verdict {
	s := p.scope(namespace)
	if raw == "" {
		return Verdict{Allowed: true, Mode: s.mode, Rule: "empty", Reason: "no image is named"}
	}
	i, err := parseImage(raw, p.aliases)
	if err != nil {
		return s.invalid(err)
	}
	return s.decide(i)
}

// Decide decides on a reference in namespace. A reference with neither tag nor
// digest is decided by its repository alone.
func (p *Policy) Decide(namespace string, ref oci.Reference) Verdict {
	return p.decide(p.scope(namespace), ref)
}

// DecideAnywhere decides for one who does not know the namespace, such as a
// registry: the verdict of the namespace that is the most lenient, of the general
// part where none is more so.
func (p *Policy) DecideAnywhere(ref oci.Reference) Verdict {
	best := p.decide(p.general, ref)
	for _, name := range sortedKeys(p.namespaces) {
		if best.Allowed {
			break
		}
		if v := p.decide(p.namespaces[name], ref); v.Allowed || best.Refused() && !v.Refused() {
			best = v
		}
	}
	return best
}

func (p *Policy) decide(s scope, ref oci.Reference) Verdict {
	i, err := canonical(ref.Registry, ref.Repository, p.aliases)
	if err != nil {
		return s.invalid(err)
	}
	i.tag, i.dgst = ref.Tag, ref.Digest
	if i.dgst != "" {
		i.tag = ""
	}
	return s.decide(i)
}

// scope is the policy as it is in namespace.
func (p *Policy) scope(namespace string) scope {
	if s, ok := p.namespaces[namespace]; ok {
		return s
	}
	return p.general
}

// Revision names the policy's content: twelve hexadecimal digits, the same for
// the same Config on every replica.
func (p *Policy) Revision() string { return p.revision }

// Summary is a policy in short, for the log of who enforces it.
type Summary struct {
	Revision string
	Default  Action
	Mode     Mode
	// RequireDigest is the general part's.
	RequireDigest bool
	// Allow and Deny are the general entries in their one spelling, sorted.
	Allow, Deny []string
	// Namespaces names those with rules of their own, sorted.
	Namespaces []string
}

// Summary tells what is in force.
func (p *Policy) Summary() Summary {
	s := Summary{
		Revision: p.revision, Default: p.general.action, Mode: p.general.mode, RequireDigest: p.general.requireDigest,
		Namespaces: sortedKeys(p.namespaces),
	}
	s.Allow, s.Deny = p.general.texts(Allow), p.general.texts(Deny)
	return s
}
