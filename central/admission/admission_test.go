package admission_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/central/admission"
	"github.com/larder-registry/larder/internal/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rules allows ghcr.io/org and Docker's own images, and denies the rest; in
// namespace lab a denial is a warning, in namespace old it is only noted.
func rules(t testing.TB, workloads admission.Workloads) admission.Rules {
	t.Helper()
	p, err := policy.New(policy.Config{
		Default: policy.Deny,
		Allow:   []policy.Rule{{Image: "ghcr.io/org"}, {Image: "docker.io/library"}, {Image: "quay.io/half", Mode: policy.Warn, RequireDigest: new(true)}},
		Deny:    []policy.Rule{{Image: "ghcr.io/org/secret"}},
		Namespaces: map[string]policy.Namespace{
			"lab": {Mode: policy.Warn},
			"old": {Mode: policy.Audit},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return admission.Rules{Policy: p, Workloads: workloads}
}

// webhook is a handler, what it logs and what it counts.
type webhook struct {
	*admission.Handler
	logged  *test.Hook
	metrics *prometheus.Registry
}

func start(t testing.TB, r admission.Rules) webhook {
	t.Helper()
	logger, hook := test.NewNullLogger()
	reg := prometheus.NewRegistry()
	h, err := admission.New(admission.Config{Rules: r, Log: logrus.NewEntry(logger), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	return webhook{h, hook, reg}
}

// post sends body as an API server does.
func (w webhook) post(body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, admission.Path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, req)
	return rec
}

// answer is what an API server reads of an answer.
type answer struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Response   struct {
		UID     string `json:"uid"`
		Allowed bool   `json:"allowed"`
		Status  *struct {
			Code    int    `json:"code"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"status"`
		Warnings         []string          `json:"warnings"`
		AuditAnnotations map[string]string `json:"auditAnnotations"`
	} `json:"response"`
}

func (w webhook) review(t testing.TB, body string) answer {
	t.Helper()
	rec := w.post(body)
	if rec.Code != http.StatusOK {
		t.Fatalf("status %d: %s", rec.Code, rec.Body)
	}
	var a answer
	dec := json.NewDecoder(rec.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		t.Fatal(err)
	}
	if a.APIVersion != "admission.k8s.io/v1" || a.Kind != "AdmissionReview" || a.Response.UID != "u-1" {
		t.Fatalf("%+v is not an answer to u-1", a)
	}
	if a.Response.Allowed == (a.Response.Status != nil) {
		t.Fatalf("%+v: a denial has a status, nothing else has one", a)
	}
	return a
}

// asked is a review under construction.
type asked struct {
	group, resource, sub, kind, namespace, op, user string
	groups                                          []string
	object, old                                     any
}

// pod asks for a pod to be made in namespace team.
func pod(spec any) asked {
	return asked{resource: "pods", kind: "Pod", namespace: "team", op: "CREATE", object: map[string]any{
		"kind": "Pod", "metadata": map[string]any{"name": "p", "namespace": "team"}, "spec": spec,
	}}
}

func (a asked) String() string {
	body, err := json.Marshal(map[string]any{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"request": map[string]any{
			"uid":         "u-1",
			"kind":        map[string]string{"group": a.group, "version": "v1", "kind": a.kind},
			"resource":    map[string]string{"group": a.group, "version": "v1", "resource": a.resource},
			"subResource": a.sub, "namespace": a.namespace, "operation": a.op, "name": "p",
			"userInfo": map[string]any{"username": a.user, "groups": a.groups},
			"object":   a.object, "oldObject": a.old, "dryRun": false,
			"options": map[string]string{"kind": "CreateOptions"},
		},
	})
	if err != nil {
		panic(err)
	}
	return string(body)
}

type (
	m = map[string]any
	l = []any
)

func containers(images ...string) l {
	var list l
	for _, i := range images {
		list = append(list, m{"name": "c", "image": i})
	}
	return list
}

func TestNewNeedsItsParts(t *testing.T) {
	logger, _ := test.NewNullLogger()
	for name, cfg := range map[string]admission.Config{
		"policy": {Log: logrus.NewEntry(logger)},
		"log":    {Rules: rules(t, "")},
	} {
		if h, err := admission.New(cfg); err == nil || h != nil {
			t.Errorf("without %s: got %v, %v", name, h, err)
		}
	}
}

func TestHealth(t *testing.T) {
	logger, _ := test.NewNullLogger()
	var ready error
	h, err := admission.New(admission.Config{Rules: rules(t, ""), Log: logrus.NewEntry(logger), Ready: func() error { return ready }})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, string) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		return rec.Code, rec.Body.String()
	}
	if code, body := get("/readyz"); code != 200 || body != "ok\n" {
		t.Error(code, body)
	}
	ready = io.ErrNoProgress
	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, ready.Error()) {
		t.Error(code, body)
	}
	if code, body := get("/healthz"); code != 200 || body != "ok\n" {
		t.Error(code, body)
	}
}

// TestOtherRulesCountFromNowOn changes the rules of a running handler.
func TestOtherRulesCountFromNowOn(t *testing.T) {
	w := start(t, rules(t, ""))
	review := pod(m{"containers": containers("quay.io/x")}).String()
	if w.review(t, review).Response.Allowed {
		t.Error("allowed by the first policy")
	}
	p, err := policy.New(policy.Config{Default: policy.Allow})
	if err != nil {
		t.Fatal(err)
	}
	w.Use(admission.Rules{Policy: p})
	if a := w.review(t, review).Response; !a.Allowed || a.AuditAnnotations["policy"] != p.Revision() {
		t.Errorf("%+v by the second policy", a)
	}
	want := "# HELP larder_policy_revision_info 1 for the revision of the image policy in force.\n# TYPE larder_policy_revision_info gauge\nlarder_policy_revision_info{revision=\"" + p.Revision() + "\"} 1\n"
	if err := testutil.GatherAndCompare(w.metrics, strings.NewReader(want), "larder_policy_revision_info"); err != nil {
		t.Error(err)
	}
}

func TestReviewsAreCounted(t *testing.T) {
	w := start(t, rules(t, admission.WorkloadsWarn))
	deployment := pod(nil)
	deployment.group, deployment.resource, deployment.kind = "apps", "deployments", "Deployment"
	deployment.object = m{"kind": "Deployment", "spec": m{"template": m{"spec": m{"containers": containers("quay.io/x")}}}}
	invented := deployment
	invented.group, invented.resource, invented.kind = "example.com", "rollouts-of-"+strings.Repeat("x", 100), "Rollout"
	ephemeral := pod(m{"ephemeralContainers": containers("ghcr.io/org/a")})
	ephemeral.sub, ephemeral.op = "ephemeralcontainers", "UPDATE"
	for _, body := range []string{
		pod(m{"containers": containers("ghcr.io/org/a")}).String(),
		pod(m{"containers": containers("quay.io/x")}).String(),
		deployment.String(), invented.String(), ephemeral.String(), "{", "{",
	} {
		w.post(body)
	}
	want := `# HELP larder_admission_reviews_total Admission reviews answered, by what became of them. mode is that of the hardest rule an image broke.
# TYPE larder_admission_reviews_total counter
larder_admission_reviews_total{decision="allowed",mode="",operation="CREATE",resource="pods"} 1
larder_admission_reviews_total{decision="allowed",mode="",operation="UPDATE",resource="pods/ephemeralcontainers"} 1
larder_admission_reviews_total{decision="denied",mode="enforce",operation="CREATE",resource="pods"} 1
larder_admission_reviews_total{decision="error",mode="",operation="",resource=""} 2
larder_admission_reviews_total{decision="would_deny",mode="warn",operation="CREATE",resource="deployments"} 1
larder_admission_reviews_total{decision="would_deny",mode="warn",operation="CREATE",resource="other"} 1
`
	if err := testutil.GatherAndCompare(w.metrics, strings.NewReader(want), "larder_admission_reviews_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(w.metrics, "larder_admission_review_duration_seconds"); n != 1 || err != nil {
		t.Error(n, err)
	}
}

// TestADeniedImageIsALogLine looks at the line's fields, also for a name that
// would break a line.
func TestADeniedImageIsALogLine(t *testing.T) {
	w := start(t, rules(t, ""))
	a := pod(m{"containers": containers("ghcr.io/org/ok", "quay.io/x\nlevel=info", "quay.io/y", "quay.io/y")})
	a.user = "system:serviceaccount:kube-system:replicaset-controller"
	a.object.(m)["metadata"] = m{"generateName": "web-", "ownerReferences": l{m{"kind": "X", "name": "y"}, m{"kind": "ReplicaSet", "name": "web-6f", "controller": true}}}
	w.review(t, a.String())
	entries := w.logged.AllEntries()
	if len(entries) != 2 {
		t.Fatalf("%d lines, want one for each image", len(entries))
	}
	want := logrus.Fields{
		"namespace": "team", "resource": "pods", "operation": "CREATE", "owner": "ReplicaSet/web-6f",
		"user":  "system:serviceaccount:kube-system:replicaset-controller",
		"image": "quay.io/y", "field": "spec.containers[2].image", "rule": "default Deny", "mode": "enforce",
		"policy": rules(t, "").Policy.Revision(), "dry_run": false,
	}
	e := entries[1]
	if e.Message != "image denied" || e.Level != logrus.WarnLevel || len(e.Data) != len(want) {
		t.Errorf("%s %s %v", e.Level, e.Message, e.Data)
	}
	for k, v := range want {
		if e.Data[k] != v {
			t.Errorf("%s is %v, want %v", k, e.Data[k], v)
		}
	}
	w.logged.Reset()
	many := l{}
	for i := range 300 {
		many = append(many, m{"image": "quay.io/x/" + strings.Repeat("a", i+1)})
	}
	w.review(t, pod(m{"containers": many}).String())
	if n := len(w.logged.AllEntries()); n != 101 {
		t.Errorf("%d lines for 300 images", n)
	}
}

// chunked is a body whose length is not known.
type chunked struct{ io.Reader }

func TestWhatIsNoReviewIsNoVerdict(t *testing.T) {
	good := pod(m{"containers": containers("ghcr.io/org/a")}).String()
	with := func(from, to string) string {
		t.Helper()
		s := strings.Replace(good, from, to, 1)
		if s == good {
			t.Fatalf("%s is not in %s", from, good)
		}
		return s
	}
	for _, c := range []struct {
		name, method, path, mediaType string
		body                          io.Reader
		status                        int
		text                          string
	}{
		{name: "a review", body: strings.NewReader(good), status: 200},
		{name: "with a charset", mediaType: "application/json; charset=utf-8", body: strings.NewReader(good), status: 200},
		{name: "of unknown length", body: chunked{strings.NewReader(good)}, status: 200},
		{name: "no uid", body: strings.NewReader(with(`"uid":"u-1"`, `"uid":""`)), status: 400, text: "the request's uid has 0 bytes"},
		{name: "uid is a number", body: strings.NewReader(with(`"uid":"u-1"`, `"uid":1`)), status: 400, text: "read review: json"},
		{name: "an endless uid", body: strings.NewReader(with("u-1", strings.Repeat("u", 129))), status: 400, text: "the request's uid has 129 bytes"},
		{name: "v1beta1", body: strings.NewReader(with("admission.k8s.io/v1", "admission.k8s.io/v1beta1")), status: 400, text: `only admission.k8s.io/v1 AdmissionReview is understood`},
		{name: "another kind", body: strings.NewReader(with("AdmissionReview", "ConversionReview")), status: 400, text: "is understood"},
		{name: "no request", body: strings.NewReader(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`), status: 400, text: "it has no request"},
		{name: "request is null", body: strings.NewReader(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`), status: 400, text: "it has no request"},
		{name: "an answer", body: strings.NewReader(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"x"}}`), status: 400, text: "it has no request"},
		{name: "an unknown operation", body: strings.NewReader(with(`"CREATE"`, `"PATCH"`)), status: 400, text: `unknown operation "PATCH"`},
		{name: "no operation", body: strings.NewReader(with(`"CREATE"`, `""`)), status: 400, text: `unknown operation ""`},
		{name: "object is null", body: strings.NewReader(asked{resource: "pods", kind: "Pod", op: "CREATE"}.String()), status: 400, text: "the request has no object"},
		{name: "an update to null", body: strings.NewReader(asked{resource: "pods", kind: "Pod", op: "UPDATE", old: m{}}.String()), status: 400, text: "the request has no object"},
		{name: "object is a list", body: strings.NewReader(asked{resource: "pods", kind: "Pod", op: "CREATE", object: l{}}.String()), status: 400, text: "read object"},
		{name: "image is a number", body: strings.NewReader(pod(m{"containers": l{m{"image": 1}}}).String()), status: 400, text: "read object"},
		{name: "a bad old object", body: strings.NewReader(asked{resource: "pods", kind: "Pod", op: "UPDATE", object: m{}, old: "x"}.String()), status: 400, text: "read old object"},
		{name: "an object twice", body: strings.NewReader(with(`"object":{`, `"object":{"spec":{}},"object":{`)), status: 400, text: `"object" is there twice`},
		{name: "containers twice", body: strings.NewReader(with(`"containers":[`, `"containers":[],"containers":[`)), status: 400, text: `"containers" is there twice`},
		{name: "a request in other letters", body: strings.NewReader(with(`"request"`, `"Request"`)), status: 400, text: "it has no request"},
		{name: "empty", body: strings.NewReader(""), status: 400, text: "unexpected end of JSON input"},
		{name: "null", body: strings.NewReader("null"), status: 400, text: "is understood"},
		{name: "a list", body: strings.NewReader("[]"), status: 400, text: "read review"},
		{name: "truncated", body: strings.NewReader(good[:len(good)/2]), status: 400, text: "unexpected end of JSON input"},
		{name: "two reviews", body: strings.NewReader(good + good), status: 400, text: "after top-level value"},
		{name: "YAML", mediaType: "application/yaml", body: strings.NewReader(good), status: 415, text: "application/yaml"},
		{name: "protobuf", mediaType: "application/vnd.kubernetes.protobuf", body: strings.NewReader(good), status: 415},
		{name: "no media type", mediaType: "-", body: strings.NewReader(good), status: 415},
		{name: "10 MiB", body: strings.NewReader(good + strings.Repeat(" ", 10<<20)), status: 413, text: "longer than 8388608 bytes"},
		{name: "10 MiB of unknown length", body: chunked{strings.NewReader(good + strings.Repeat(" ", 10<<20))}, status: 413, text: "longer than 8388608 bytes"},
		{name: "deep", body: strings.NewReader(strings.Repeat("[", 1<<20)), status: 400, text: "exceeded max depth"},
		{name: "GET", method: http.MethodGet, body: http.NoBody, status: 405},
		{name: "another path", path: "/validate", body: strings.NewReader(good), status: 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, rules(t, ""))
			method, path := http.MethodPost, admission.Path
			if c.method != "" {
				method = c.method
			}
			if c.path != "" {
				path = c.path
			}
			req := httptest.NewRequest(method, path, c.body)
			switch c.mediaType {
			case "":
				req.Header.Set("Content-Type", "application/json")
			case "-":
			default:
				req.Header.Set("Content-Type", c.mediaType)
			}
			rec := httptest.NewRecorder()
			w.ServeHTTP(rec, req)
			if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.text) {
				t.Errorf("status %d, %s; want %d with %q", rec.Code, rec.Body, c.status, c.text)
			}
			if c.status != 200 && json.Valid(rec.Body.Bytes()) {
				t.Errorf("%s could be taken for a verdict", rec.Body)
			}
			if w.review(t, good); !bytes.Contains([]byte(good), []byte("u-1")) {
				t.Error("nothing is answered any more")
			}
		})
	}
}

// uidOf reads the uid of a review from plain maps, where the names of members count
// letter by letter.
func uidOf(t testing.TB, body string) string {
	t.Helper()
	var whole map[string]json.RawMessage
	if err := json.Unmarshal([]byte(body), &whole); err != nil {
		t.Errorf("%q is answered, and is no JSON: %v", body, err)
	}
	var request map[string]json.RawMessage // a number in it may be larger than any
	if err := json.Unmarshal(whole["request"], &request); err != nil {
		t.Errorf("%q is answered, and has no request: %v", body, err)
	}
	var uid string
	if err := json.Unmarshal(request["uid"], &uid); err != nil {
		t.Errorf("%q is answered, and has no uid: %v", body, err)
	}
	return uid
}

func parse(t testing.TB, body []byte) (a answer) {
	t.Helper()
	if err := json.Unmarshal(body, &a); err != nil {
		t.Error(err)
	}
	return a
}
