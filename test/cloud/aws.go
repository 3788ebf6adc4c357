// Package cloud has stand-ins for the services that clouds give credentials by:
// ECR's two APIs, STS, instance and container credentials of AWS; the metadata
// servers of Google and Azure. They listen on loopback, where the environment
// variables of the clouds' own SDKs point clients to them.
//
// They know as much of the real APIs as getting a registry's credential takes,
// and refuse what the real ones refuse of that: unsigned requests, credentials
// nobody gave out, a metadata request without its header. For registries see
// test/registry.
package cloud

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Call is one question to AWS as the stand-in saw it.
type Call struct {
	// Service is ecr, ecr-public, sts or imds; Action is the API's name of
	// what was asked, or a path.
	Service, Action string
	// Region and AccessKey are what the request was signed for and with.
	Region, AccessKey string
	// Role is the role to assume, if the action assumes one.
	Role string
}

// AWS stands in for Amazon's APIs: all of them at one address. Its methods may
// be called at any time from any goroutine.
type AWS struct {
	server *httptest.Server

	mu     sync.Mutex
	calls  []Call
	issued []string // ECR passwords
	life   time.Duration
	now    func() time.Time
	fail   int
	code   string
	raw    string
	hold   chan struct{}
	onNew  func(password string)
	gone   bool // the instance has no metadata service
	keys   map[string]bool
}

// StartAWS starts the stand-in; it is closed when the test ends. It accepts the
// access key AKIDENV, and those that it gives out itself.
func StartAWS(tb testing.TB) *AWS {
	tb.Helper()
	a := &AWS{life: 12 * time.Hour, now: time.Now, keys: map[string]bool{"AKIDENV": true}}
	a.server = httptest.NewServer(a)
	tb.Cleanup(a.server.Close)
	return a
}

// Env is the environment by which the SDK finds the stand-in, without any
// credentials in it. Files of the machine's own are out of reach.
func (a *AWS) Env() map[string]string {
	return map[string]string{
		"AWS_ENDPOINT_URL":                       a.server.URL,
		"AWS_ENDPOINT_URL_STS":                   a.server.URL,
		"AWS_EC2_METADATA_SERVICE_ENDPOINT":      a.server.URL,
		"AWS_CONFIG_FILE":                        "/nonexistent",
		"AWS_SHARED_CREDENTIALS_FILE":            "/nonexistent",
		"AWS_ACCESS_KEY_ID":                      "",
		"AWS_SECRET_ACCESS_KEY":                  "",
		"AWS_SESSION_TOKEN":                      "",
		"AWS_PROFILE":                            "",
		"AWS_REGION":                             "",
		"AWS_DEFAULT_REGION":                     "",
		"AWS_ROLE_ARN":                           "",
		"AWS_WEB_IDENTITY_TOKEN_FILE":            "",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI":     "",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "",
		"AWS_EC2_METADATA_DISABLED":              "",
	}
}

// URL is the stand-in's address.
func (a *AWS) URL() string { return a.server.URL }

// ContainerURL is where container credentials are had, for
// AWS_CONTAINER_CREDENTIALS_FULL_URI.
func (a *AWS) ContainerURL() string { return a.server.URL + "/v1/credentials" }

// OnToken sets what is told every ECR password before it is given out.
func (a *AWS) OnToken(f func(password string)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.onNew = f
}

// SetLife sets how long tokens last from now on, and by whose clock.
func (a *AWS) SetLife(life time.Duration, now func() time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.life, a.now = life, now
}

// Fail makes ECR's APIs answer with an error of that status and code; status 0
// ends it.
func (a *AWS) Fail(status int, code string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail, a.code = status, code
}

// Answer makes ECR's APIs answer 200 with that body; empty ends it.
func (a *AWS) Answer(body string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.raw = body
}

// Hold keeps questions to ECR's APIs waiting until the returned function is
// called.
func (a *AWS) Hold() (release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	hold := make(chan struct{})
	a.hold = hold
	return sync.OnceFunc(func() { close(hold) })
}

// NoInstance takes the instance's metadata service away.
func (a *AWS) NoInstance() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
}

// Calls are the questions so far, of one service if it is named.
func (a *AWS) Calls(service string) []Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	var calls []Call
	for _, c := range a.calls {
		if service == "" || c.Service == service {
			calls = append(calls, c)
		}
	}
	return calls
}

// signed reads the scope of a request's signature, version 4.
var signed = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request, `)

// ServeHTTP implements http.Handler.
func (a *AWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.URL.Path == "/" {
		a.api(w, r)
		return
	}
	a.mu.Lock()
	gone := a.gone
	a.calls = append(a.calls, Call{Service: "imds", Action: r.Method + " " + r.URL.Path})
	a.mu.Unlock()
	const roles = "/latest/meta-data/iam/security-credentials/"
	switch {
	case r.URL.Path == "/v1/credentials":
		if r.Header.Get("Authorization") != "pod-identity-token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		a.credentials(w, "ASIACONTAINER")
	case gone:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		_, _ = io.WriteString(w, "imds-token")
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "imds-token":
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == roles:
		_, _ = io.WriteString(w, "node-role")
	case r.URL.Path == roles+"node-role":
		a.credentials(w, "ASIANODE")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// credentials gives out a key of an instance or a container.
func (a *AWS) credentials(w http.ResponseWriter, key string) {
	a.accept(key)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"Code": "Success", "AccessKeyId": key, "SecretAccessKey": "MARKERawssecret", "Token": "MARKERawssession",
		"Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	})
}

func (a *AWS) accept(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[key] = true
}

// api answers ECR, ECR Public and STS, which are told apart by their signature
// and their target.
func (a *AWS) api(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	form := string(body)
	if strings.Contains(form, "Action=AssumeRoleWithWebIdentity") {
		a.assume(w, r, Call{Service: "sts", Action: "AssumeRoleWithWebIdentity"}, body)
		return
	}
	scope := signed.FindStringSubmatch(r.Header.Get("Authorization"))
	if scope == nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	call := Call{AccessKey: scope[1], Region: scope[2], Service: scope[3]}
	a.mu.Lock()
	known := a.keys[call.AccessKey]
	a.mu.Unlock()
	switch {
	case !known:
		a.note(call)
		apiError(w, http.StatusBadRequest, "UnrecognizedClientException")
	case call.Service == "sts":
		call.Action = "AssumeRole"
		a.assume(w, r, call, body)
	default:
		_, call.Action, _ = strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		a.token(w, r, call)
	}
}

func (a *AWS) note(c Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, c)
}

// token gives out an ECR password, each another one.
func (a *AWS) token(w http.ResponseWriter, r *http.Request, call Call) {
	a.note(call)
	a.mu.Lock()
	hold := a.hold
	a.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
			return
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.fail != 0:
		apiError(w, a.fail, a.code)
		return
	case a.raw != "":
		_, _ = io.WriteString(w, a.raw)
		return
	case call.Action != "GetAuthorizationToken":
		apiError(w, http.StatusBadRequest, "UnknownOperationException")
		return
	}
	password := fmt.Sprintf("MARKERecr-%s-%s-%d", call.Service, call.Region, len(a.issued)+1)
	a.issued = append(a.issued, password)
	if a.onNew != nil {
		a.onNew(password)
	}
	data := map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + password)),
		"expiresAt":          float64(a.now().Add(a.life).Unix()),
		"proxyEndpoint":      "https://registry.example",
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if call.Service == "ecr-public" {
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": data})
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{data}})
}

func apiError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Errortype", code)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": "arn:aws:iam::1:user/MARKERprincipal is not MARKERauthorized"})
}

// assume gives out the keys of a role: ASIA and the role's name.
func (a *AWS) assume(w http.ResponseWriter, r *http.Request, call Call, body []byte) {
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	call.Role = r.FormValue("RoleArn")
	a.note(call)
	if call.Action == "AssumeRoleWithWebIdentity" && r.FormValue("WebIdentityToken") != "web-identity-token" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	_, name, _ := strings.Cut(call.Role, "role/")
	key := "ASIA" + strings.ToUpper(name)
	a.accept(key)
	w.Header().Set("Content-Type", "text/xml")
	_, _ = fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><Credentials>
<AccessKeyId>%[2]s</AccessKeyId><SecretAccessKey>MARKERawssecret</SecretAccessKey><SessionToken>MARKERawssession</SessionToken>
<Expiration>%[3]s</Expiration></Credentials><AssumedRoleUser><Arn>%[4]s</Arn><AssumedRoleId>x</AssumedRoleId></AssumedRoleUser></%[1]sResult></%[1]sResponse>`,
		call.Action, key, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), call.Role)
}
