package admission_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/larder-registry/larder/central/admission"
	"github.com/larder-registry/larder/internal/policy"
)

// long is as much as an image can have, and as many as an object can.
func long(n int) l {
	list := l{}
	for i := range n {
		list = append(list, m{"name": strings.Repeat("n", 63), "image": "quay.io/x/" + strings.Repeat("a", 200) + "/" + strings.Repeat("b", i/26+1) + string(rune('a'+i%26)) + ":1"})
	}
	return list
}

// TestWarningsKeepTheAPIServersLimits holds warnings to what an API server
// passes on: 256 characters of each, 4096 of all, printable.
func TestWarningsKeepTheAPIServersLimits(t *testing.T) {
	w := start(t, rules(t, ""))
	for name, list := range map[string]l{
		"one": long(1), "thirty": long(30), "five hundred": long(500),
		"not ASCII": containers("quay.io/ü\n\x00/" + strings.Repeat("é", 300)),
	} {
		t.Run(name, func(t *testing.T) {
			a := pod(m{"containers": list})
			a.namespace = "lab"
			got := w.review(t, a.String()).Response
			total := 0
			for _, warning := range got.Warnings {
				total += len(warning)
				if utf8.RuneCountInString(warning) > 256 || strings.Trim(warning, " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~") != "" || !strings.HasPrefix(warning, "image ") && !strings.HasPrefix(warning, "and ") {
					t.Errorf("%q", warning)
				}
			}
			if total > 4096 || total == 0 || !got.Allowed {
				t.Errorf("%d characters, allowed %v", total, got.Allowed)
			}
			if last := got.Warnings[len(got.Warnings)-1]; len(list) > 30 && !strings.HasSuffix(last, " more images") {
				t.Errorf("the last one is %q", last)
			}
		})
	}
}

// TestADenialIsBounded: a pod of 500 bad images is denied in a page, with the
// number of those that are not on it.
func TestADenialIsBounded(t *testing.T) {
	w := start(t, rules(t, ""))
	r := w.review(t, pod(m{"containers": long(500)}).String()).Response
	message := r.Status.Message
	if len(message) > 40<<10 || !strings.Contains(message, "(500 images):") || !strings.Contains(message, " more images") {
		t.Errorf("%d bytes: %.300s … %s", len(message), message, message[len(message)-100:])
	}
	if shown := strings.Count(message, "\n- image "); shown < 50 {
		t.Errorf("%d images are shown", shown)
	}
	for k, v := range r.AuditAnnotations {
		if len(v) > 1024 {
			t.Errorf("annotation %s has %d bytes", k, len(v))
		}
	}
	if a := r.AuditAnnotations["images"]; !strings.Contains(a, "(default Deny), ") || !strings.Contains(a, " more") {
		t.Errorf("annotation %q", a)
	}
	same := l{}
	for range 500 {
		same = append(same, m{"image": "quay.io/x"})
	}
	message = w.review(t, pod(m{"containers": same}).String()).Response.Status.Message
	if !strings.Contains(message, "spec.containers[9].image and 490 more places: denied") || strings.Contains(message, "[10]") {
		t.Error(message)
	}
	message = w.review(t, pod(m{"containers": containers("quay.io/x\n- image \"ghcr.io/org\": allowed " + strings.Repeat("ü", 500))}).String()).Response.Status.Message
	if strings.Contains(message, "\n") || len(message) > 1500 {
		t.Errorf("%q", message)
	}
}

func TestAuditAnnotations(t *testing.T) {
	r := rules(t, admission.WorkloadsOff)
	w := start(t, r)
	deployment := pod(m{})
	deployment.group, deployment.resource = "apps", "deployments"
	old := pod(m{"containers": containers("quay.io/x")})
	old.namespace = "old"
	for name, c := range map[string]struct {
		asked
		want map[string]string
	}{
		"allowed":     {pod(m{"containers": containers("nginx")}), map[string]string{"decision": "allowed"}},
		"skipped":     {deployment, map[string]string{"decision": "skipped", "reason": "workloads are off"}},
		"only noted":  {old, map[string]string{"decision": "would_deny", "mode": "audit", "images": `"quay.io/x" (default Deny)`}},
		"both denied": {pod(m{"containers": containers("quay.io/x", "ghcr.io/org/secret")}), map[string]string{"decision": "denied", "mode": "enforce", "images": `"quay.io/x" (default Deny), "ghcr.io/org/secret" (deny ghcr.io/org/secret)`}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want["policy"] = r.Policy.Revision()
			got := w.review(t, c.asked.String()).Response.AuditAnnotations
			if len(got) != len(c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			for k, v := range c.want {
				if got[k] != v {
					t.Errorf("%s is %q, want %q", k, got[k], v)
				}
			}
		})
	}
}

// FuzzReview sends anything: the answer is a verdict on the uid that was asked
// about, or a status that is none.
func FuzzReview(f *testing.F) {
	for _, a := range []asked{
		pod(m{"containers": containers("nginx", "quay.io/x")}),
		pod(m{"volumes": l{m{"image": m{"reference": "a"}}, m{"image": nil}}, "initContainers": nil}),
		{resource: "pods", kind: "Pod", op: "UPDATE", object: m{"spec": nil}, old: m{"spec": m{"containers": containers("a")}}},
		{resource: "pods", op: "DELETE"},
		{group: "batch", resource: "cronjobs", kind: "CronJob", op: "CREATE", object: m{"spec": m{"jobTemplate": m{"spec": m{"template": m{"spec": m{"containers": containers("a b")}}}}}}},
	} {
		f.Add(a.String())
	}
	f.Add(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","object":{}}}`)
	f.Add(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","UID":"v","x":1e999,"operation":"DELETE"},"Request":{"uid":"w"}}`)
	p, err := policy.New(policy.Config{Default: policy.Deny, Allow: []policy.Rule{{Image: "docker.io/library"}}})
	if err != nil {
		f.Fatal(err)
	}
	w := start(f, admission.Rules{Policy: p, Workloads: admission.WorkloadsDeny})
	f.Fuzz(func(t *testing.T, body string) {
		w.logged.Reset()
		rec := w.post(body)
		if rec.Code != 200 {
			if rec.Code != 400 {
				t.Errorf("status %d for %q", rec.Code, body)
			}
			return
		}
		uid := uidOf(t, body)
		a := parse(t, rec.Body.Bytes())
		if uid == "" || a.Response.UID != uid {
			t.Errorf("%q is answered for %q", body, a.Response.UID)
		}
	})
}

// TestTheDocumentationQuotesWhatIsSaid: who looks for a message in
// docs/admission.md has to find it.
func TestTheDocumentationQuotesWhatIsSaid(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "docs", "admission.md"))
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.Join(strings.Fields(string(content)), " ")
	w := start(t, rules(t, ""))
	said := func(a asked) string {
		r := w.review(t, a.String()).Response
		if r.Status != nil {
			return r.Status.Message
		}
		return strings.Join(r.Warnings, "\n")
	}
	lab := pod(m{"containers": containers("quay.io/x")})
	lab.namespace = "lab"
	deployment := asked{group: "apps", resource: "deployments", kind: "Deployment", namespace: "team", op: "CREATE"}
	deployment.object = m{"spec": m{"template": m{"spec": m{"containers": containers("quay.io/x")}}}}
	for name, c := range map[string]struct{ said, quoted string }{
		"a denial":          {said(pod(m{"containers": containers("quay.io/x")})), "the image policy of this cluster does not let this run in namespace team"},
		"where":             {said(pod(m{"containers": containers("quay.io/x")})), "at spec.containers[0].image: denied by default: no entry allows it"},
		"a workload":        {said(deployment), `image "quay.io/x" at spec.template.spec.containers[0].image will not run, its pods will be denied`},
		"a warning":         {said(lab), "is against the image policy of this cluster, which will deny it once it is enforced"},
		"an image ID":       {said(pod(m{"containers": containers("sha256:" + strings.Repeat("a", 64))})), "not a valid image reference: an image ID"},
		"what is no review": {w.post("{}").Body.String(), "larder: read review: "},
	} {
		if !strings.Contains(c.said, c.quoted) || !strings.Contains(doc, c.quoted) {
			t.Errorf("%s: %q is said %v and documented %v", name, c.quoted, strings.Contains(c.said, c.quoted), strings.Contains(doc, c.quoted))
		}
	}
}
