package admission_test

import (
	"fmt"
	"testing"

	"github.com/larder-registry/larder/central/admission"
)

func TestVerdictsAreRemembered(t *testing.T) {
	w := start(t, rules(t, admission.WorkloadsWarn))
	bad := pod(m{"containers": containers("ghcr.io/org/app:1", "quay.io/x/app:1", "quay.io/y/app:1")})
	w.review(t, bad.String())
	w.review(t, pod(m{"containers": containers("ghcr.io/org/app:1")}).String())
	deleted := bad
	deleted.op = "DELETE"
	w.review(t, deleted.String())
	denied, allowed := w.Verdicts()
	if len(denied) != 1 || len(allowed) != 1 {
		t.Fatalf("%d and %d verdicts: %+v %+v", len(denied), len(allowed), denied, allowed)
	}
	v := denied[0]
	if v.At.IsZero() || v.Namespace != "team" || v.Object == "" || v.Operation != "CREATE" || v.Resource != "pods" || v.Decision != "denied" || v.Mode != "enforce" ||
		v.Image != "quay.io/x/app:1" || v.Images != 2 || v.Rule == "" || v.DryRun {
		t.Errorf("%+v", v)
	}
	if v := allowed[0]; v.Decision != "allowed" || v.Image != "" || v.Images != 0 || v.Mode != "" {
		t.Errorf("%+v", v)
	}
	for i := range 60 {
		w.review(t, pod(m{"containers": containers(fmt.Sprint("quay.io/x/app:", i))}).String())
		w.review(t, pod(m{"containers": containers("ghcr.io/org/app:1")}).String())
	}
	denied, allowed = w.Verdicts()
	if len(denied) != 50 || len(allowed) != 20 || denied[0].Image != "quay.io/x/app:59" || denied[49].Image != "quay.io/x/app:10" {
		t.Errorf("%d and %d verdicts, from %+v to %+v", len(denied), len(allowed), denied[0], denied[len(denied)-1])
	}
}
