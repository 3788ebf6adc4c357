package admission

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/larder-registry/larder/internal/policy"
	"github.com/larder-registry/larder/internal/policy/workload"
)

// The outcomes of a review, also the metric's label.
const (
	allowed   = "allowed"
	denied    = "denied"
	wouldDeny = "would_deny" // denied by a policy, or for a workload, that only warns
	skipped   = "skipped"    // not looked at
)

// outcome is what becomes of a review.
type outcome struct {
	decision string
	// mode is the hardest of the modes that bad images fell under; empty when
	// there are none.
	mode policy.Mode
	// why is said when nothing was looked at.
	why string
	bad []badImage
	// owner is what people know the object by.
	owner string
	// revision is the policy's.
	revision string
}

// badImage is an image the policy has something against, and all the places
// where the object names it.
type badImage struct {
	ref     string
	verdict policy.Verdict
	// mode is the verdict's, softened for a workload.
	mode   policy.Mode
	places []string
}

// decide holds a request to the rules.
func decide(rules *Rules, r *request) (outcome, error) {
	out := outcome{decision: skipped, revision: rules.Policy.Revision()}
	switch {
	case r.Operation != opCreate && r.Operation != opUpdate:
		out.why = "nothing is made"
		return out, nil
	case !r.isPod() && rules.Workloads == WorkloadsOff:
		out.why = "workloads are off"
		return out, nil
	}
	object, old, err := parse(r)
	switch {
	case err != nil && !r.isKnown():
		out.why = "its form is not known"
		return out, nil
	case err != nil:
		return out, err
	case r.Operation == opUpdate && object.Deleting:
		// Its finalizers have to come off. The API server keeps this field
		// to itself, and nothing new starts in a pod that has it.
		out.why = "it is being deleted"
		return out, nil
	case !r.isPod() && object.Owner != "":
		// For pods this would be a hole: anybody can write an owner into one.
		out.why = "its owner was looked at"
		return out, nil
	case r.isPod() && object.Mirror && r.fromKubelet():
		// Refusing the picture would stop nothing.
		out.why = "a static pod runs whatever is said"
		return out, nil
	}
	images := object.Images
	if r.Operation == opUpdate {
		images = changed(rules.Policy, r.Namespace, images, old.Images)
	}
	out.judge(rules, r, images)
	if len(out.bad) > 0 {
		out.owner = r.owner(object)
	}
	return out, nil
}

// isPod reports whether the object is a pod, which is what the policy is for.
// The object of pods/ephemeralcontainers is a whole pod, too.
func (r *request) isPod() bool { return r.Resource.Group == "" && r.Resource.Resource == "pods" }

// isKnown reports whether the object has to be of the form that is expected.
func (r *request) isKnown() bool {
	return slices.Contains([]string{"", "apps", "batch"}, r.Resource.Group)
}

// parse reads the object, and the one it replaces.
func parse(r *request) (object, old workload.Object, err error) {
	if object, err = workload.Parse(r.Object); err != nil {
		return object, old, err
	}
	if r.Operation == opUpdate && !empty(r.OldObject) {
		if old, err = workload.Parse(r.OldObject); err != nil {
			return object, old, fmt.Errorf("read old object: %w", err)
		}
	}
	return object, old, nil
}

// fromKubelet reports whether a kubelet asks. Only one of these may make the
// picture of a static pod, which it runs from a file on its node (NodeRestriction);
// the names are reserved for it.
func (r *request) fromKubelet() bool {
	return strings.HasPrefix(r.UserInfo.Username, "system:node:") && slices.Contains(r.UserInfo.Groups, "system:nodes")
}

// owner is what people know the object by, kind/name: what controls it, or else
// itself.
func (r *request) owner(o workload.Object) string {
	return cmp.Or(o.Owner, r.Kind.Kind+"/"+cmp.Or(r.Name, o.Name, o.GenerateName))
}

// changed leaves out images that were in the old object, in whatever place and
// spelling.
func changed(p *policy.Policy, namespace string, now, before []workload.Image) (fresh []workload.Image) {
	known := map[string]bool{}
	for _, i := range before {
		known[i.Ref] = true
	}
	normalized := false
	for _, i := range now {
		if known[i.Ref] {
			continue
		}
		// An image in another spelling is rare, so that the old ones are
		// only taken apart when there is a new one.
		if !normalized {
			normalized = true
			for _, b := range before {
				known[p.DecideImage(namespace, b.Ref).Normalized] = true
			}
		}
		if v := p.DecideImage(namespace, i.Ref); v.Normalized == "" || !known[v.Normalized] {
			fresh = append(fresh, i)
		}
	}
	return fresh
}

// judge decides on each image once.
func (out *outcome) judge(rules *Rules, r *request, images []workload.Image) {
	out.decision = allowed
	seen := map[string]int{} // the image's place in out.bad, or -1
	for _, i := range images {
		n, ok := seen[i.Ref]
		if !ok {
			n = -1
			if v := rules.Policy.DecideImage(r.Namespace, i.Ref); !v.Allowed {
				n = len(out.bad)
				mode := v.Mode
				if !r.isPod() {
					mode = soften(mode, rules.Workloads)
				}
				out.bad = append(out.bad, badImage{ref: i.Ref, verdict: v, mode: mode})
			}
			seen[i.Ref] = n
		}
		if n >= 0 {
			out.bad[n].places = append(out.bad[n].places, i.Path)
		}
	}
	for _, b := range out.bad {
		if b.mode == policy.Enforce {
			out.decision = denied
		} else if out.decision == allowed {
			out.decision = wouldDeny
		}
		out.mode = harder(out.mode, b.mode)
	}
}

// soften is what a mode comes to for a workload.
func soften(m policy.Mode, w Workloads) policy.Mode {
	if w == WorkloadsWarn && m == policy.Enforce {
		return policy.Warn
	}
	return m
}

// harder is the mode of the two that does more.
func harder(a, b policy.Mode) policy.Mode {
	for _, m := range []policy.Mode{policy.Enforce, policy.Warn, policy.Audit} {
		if a == m || b == m {
			return m
		}
	}
	return ""
}
