package admission

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/larder-registry/larder/internal/policy/workload"
)

// The only kind of review that is understood (admission.k8s.io/v1). v1beta1 is
// gone since Kubernetes 1.22.
const (
	reviewVersion = "admission.k8s.io/v1"
	reviewKind    = "AdmissionReview"
)

// The operations of a review.
const (
	opCreate  = "CREATE"
	opUpdate  = "UPDATE"
	opDelete  = "DELETE"
	opConnect = "CONNECT"
)

// review is an AdmissionReview, as it comes and as it goes.
type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

// request is what matters here of an AdmissionRequest.
type request struct {
	UID         string   `json:"uid"`
	Kind        typeName `json:"kind"`
	Resource    typeName `json:"resource"`
	SubResource string   `json:"subResource"`
	Name        string   `json:"name"`
	Namespace   string   `json:"namespace"`
	Operation   string   `json:"operation"`
	UserInfo    struct {
		Username string   `json:"username"`
		Groups   []string `json:"groups"`
	} `json:"userInfo"`
	Object    workload.Raw `json:"object"`
	OldObject workload.Raw `json:"oldObject"`
	DryRun    *bool        `json:"dryRun"`
}

// typeName names a kind or a resource; only one of the last two is there.
type typeName struct {
	Group    string `json:"group"`
	Version  string `json:"version"`
	Kind     string `json:"kind"`
	Resource string `json:"resource"`
}

// response is an AdmissionResponse.
type response struct {
	UID              string            `json:"uid"`
	Allowed          bool              `json:"allowed"`
	Status           *status           `json:"status,omitempty"`
	AuditAnnotations map[string]string `json:"auditAnnotations,omitempty"`
	Warnings         []string          `json:"warnings,omitempty"`
}

// status is what of a meta/v1 Status reaches whoever made the request.
type status struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// maxUID bounds what is repeated. API servers send 36 bytes.
const maxUID = 128

// errNoObject is a review that says an object is made or changed, and has none.
var errNoObject = errors.New("the request has no object")

// decode reads a review that was cut. What it returns has a uid to answer to, an operation
// that is known, and an object where the operation needs one.
func decode(body []byte) (*request, error) {
	var r review
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("read review: %w", err)
	}
	if r.APIVersion != reviewVersion || r.Kind != reviewKind {
		return nil, fmt.Errorf("read review: it is %.64q %.64q; only %s %s is understood", r.APIVersion, r.Kind, reviewVersion, reviewKind)
	}
	req := r.Request
	switch {
	case req == nil:
		return nil, errors.New("read review: it has no request")
	case req.UID == "" || len(req.UID) > maxUID:
		return nil, fmt.Errorf("read review: the request's uid has %d bytes; 1 to %d can be answered", len(req.UID), maxUID)
	}
	switch req.Operation {
	case opDelete, opConnect:
		return req, nil
	case opCreate, opUpdate:
	default:
		return nil, fmt.Errorf("read review: unknown operation %.64q", req.Operation)
	}
	if empty(req.Object) {
		return nil, fmt.Errorf("read review: %w", errNoObject)
	}
	return req, nil
}

func empty(raw workload.Raw) bool { return len(raw) == 0 || string(raw) == "null" }

// answer encodes what becomes of req.
func answer(resp response) ([]byte, error) {
	return json.Marshal(review{APIVersion: reviewVersion, Kind: reviewKind, Response: &resp})
}
