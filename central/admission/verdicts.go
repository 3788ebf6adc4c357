package admission

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/larder-registry/larder/internal/policy"
)

// The bounds on the verdicts remembered: those that let an object through are
// many, and must not push out the others.
const (
	maxDenied  = 50
	maxAllowed = 20
)

// Verdict is what became of one review, for people who look at what the webhook
// does.
type Verdict struct {
	At        time.Time
	Namespace string
	// Object is kind/name: of what owns the object when it was denied, or would
	// be, or else of the object itself, if it has a name by then.
	Object string
	// Operation and Resource are the API server's words.
	Operation, Resource string
	// Decision is "allowed", "denied" or "would_deny", Mode the policy's mode
	// it came by.
	Decision, Mode string
	// Image is the first the policy has something against, of Images; Rule
	// says what.
	Image  string
	Images int
	Rule   string
	DryRun bool
}

// verdicts are the last ones.
type verdicts struct {
	mu              sync.Mutex
	denied, allowed []Verdict // the oldest first
}

// Verdicts gives the last 50 reviews that were denied or would be, and the last
// 20 that were allowed, the latest first. Reviews that nothing was looked at for
// are not among them.
func (h *Handler) Verdicts() (denied, allowed []Verdict) {
	h.verdicts.mu.Lock()
	defer h.verdicts.mu.Unlock()
	denied, allowed = slices.Clone(h.verdicts.denied), slices.Clone(h.verdicts.allowed)
	slices.Reverse(denied)
	slices.Reverse(allowed)
	return denied, allowed
}

// note remembers what became of a review.
func (vs *verdicts) note(at time.Time, r *request, out outcome) {
	if out.decision == skipped {
		return
	}
	v := Verdict{
		At: at, Namespace: cut(r.Namespace, maxShown), Object: cut(cmp.Or(out.owner, named(r)), maxShown), Operation: r.Operation,
		Resource: cut(r.Resource.Resource, maxShown), Decision: out.decision, Mode: string(out.mode), DryRun: r.DryRun != nil && *r.DryRun,
	}
	// The one that decided comes first.
	worst := slices.IndexFunc(out.bad, func(b badImage) bool { return b.mode == policy.Enforce })
	if len(out.bad) > 0 {
		b := out.bad[max(worst, 0)]
		v.Image, v.Images, v.Rule = cut(b.ref, 2*maxShown), len(out.bad), cut(b.verdict.Rule, 2*maxShown)
	}
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if v.Decision == allowed {
		vs.allowed = push(vs.allowed, v, maxAllowed)
	} else {
		vs.denied = push(vs.denied, v, maxDenied)
	}
}

// named is kind/name of an object that has a name.
func named(r *request) string {
	if r.Name == "" {
		return cmp.Or(r.Kind.Kind, r.Resource.Resource)
	}
	return r.Kind.Kind + "/" + r.Name
}

// push appends v to the last ones and lets the oldest go.
func push(list []Verdict, v Verdict, most int) []Verdict {
	if len(list) == most {
		copy(list, list[1:])
		list[most-1] = v
		return list
	}
	return append(list, v)
}
