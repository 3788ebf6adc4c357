package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/cloud"
	"github.com/larder-registry/larder/test/registry"
)

// setenv sets the environment for one test.
func setenv(t *testing.T, env map[string]string) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
}

// ecrTest is a registry like ECR's and the API that gives out its tokens.
type ecrTest struct {
	api   *cloud.AWS
	reg   *registry.Server
	image registry.Image
	log   *bytes.Buffer
	clock *clock
	cfg   Config
}

// newECR starts both. Hosts are looked up as the registry's address; the port
// is the registry's, too.
func newECR(t *testing.T, opts registry.Options, hosts ...string) *ecrTest {
	t.Helper()
	e := &ecrTest{api: cloud.StartAWS(t), reg: registry.Start(t, opts), log: &bytes.Buffer{}, clock: newClock()}
	e.image = e.reg.AddImage("team/app", "v1", registry.NewLayer(1, 5000))
	setenv(t, e.api.Env())
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "MARKERawssecret")
	e.api.SetLife(12*time.Hour, e.clock.now)
	e.api.OnToken(func(password string) { e.reg.SetUser("AWS", password) })
	names := map[string]string{}
	logger := logrus.New()
	logger.SetOutput(e.log)
	logger.SetLevel(logrus.TraceLevel)
	e.cfg = Config{Log: logrus.NewEntry(logger), Now: e.clock.now, Env: os.Getenv}
	for _, host := range hosts {
		names[host+"."] = "127.0.0.1"
		e.cfg.Registries = append(e.cfg.Registries, Registry{Host: e.name(host).Registry, Insecure: true})
	}
	e.cfg.Resolver = resolver(t, names)
	return e
}

func (e *ecrTest) name(host string) oci.Name {
	_, port, _ := net.SplitHostPort(e.reg.Host())
	return oci.Name{Registry: host + ":" + port, Repository: "team/app"}
}

func (e *ecrTest) tag(host string) oci.Reference {
	return oci.Reference{Name: e.name(host), Tag: "v1"}
}

// secretsStay looks for what must not be told in the log and in errors.
func (e *ecrTest) secretsStay(t *testing.T, errs ...error) {
	t.Helper()
	text := e.log.String()
	for _, err := range errs {
		if err != nil {
			for _, link := range chain(err) {
				text += link.Error() + "\n"
			}
		}
	}
	if at := strings.Index(text, "MARKER"); at >= 0 {
		t.Errorf("a secret leaks: %s", text[at:min(len(text), at+60)])
	}
}

const (
	ecrHostA = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	ecrHostB = "210987654321.dkr.ecr.eu-west-1.amazonaws.com"
	ecrHostC = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
)

// TestECRNeedsNoConfiguration: image manifests and blobs of three registries,
// which are of two accounts and two regions.
func TestECRNeedsNoConfiguration(t *testing.T) {
	e := newECR(t, registry.Options{ECR: true, Storage: true}, ecrHostA, ecrHostB, ecrHostC)
	passwords := map[string]bool{}
	e.api.OnToken(func(password string) {
		passwords[password] = true
		e.reg.SetUser("AWS", password)
	})
	c := newClientOf(t, e.cfg)
	if calls := e.api.Calls(""); len(calls) != 0 {
		t.Fatalf("AWS was asked before an image was: %v", calls)
	}
	for _, host := range []string{ecrHostA, ecrHostB, ecrHostA} {
		m, err := c.Manifest(t.Context(), e.tag(host))
		if err != nil || m.Digest != e.image.Digest || !bytes.Equal(m.Bytes, e.image.Bytes()) {
			t.Fatalf("Manifest of %s: %v, %v", host, m.Descriptor, err)
		}
		desc, err := c.Resolve(t.Context(), e.tag(host))
		if err != nil || desc.Digest != e.image.Digest {
			t.Errorf("Resolve of %s: %v, %v", host, desc, err)
		}
		body, err := c.Blob(t.Context(), e.name(host), e.image.Layers[0].Digest, oci.Span{Start: 0, End: -1})
		if err != nil {
			t.Fatalf("Blob of %s: %v", host, err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if err != nil || !bytes.Equal(got, e.image.Layers[0].Bytes()) {
			t.Errorf("Blob of %s: %d bytes, %v", host, len(got), err)
		}
	}
	want := cloud.Call{Service: "ecr", Action: "GetAuthorizationToken", Region: "eu-west-1", AccessKey: "AKIDENV"}
	if calls := e.api.Calls(""); !slices.Equal(calls, []cloud.Call{want}) {
		t.Errorf("asked of AWS: %v, want one token", calls)
	}
	if _, err := c.Manifest(t.Context(), e.tag(ecrHostC)); err != nil {
		t.Errorf("Manifest of another region: %v", err)
	}
	want.Region = "us-east-1"
	if calls := e.api.Calls(""); len(calls) != 2 || calls[1] != want {
		t.Errorf("asked of AWS for another region: %v", calls)
	}
	for _, r := range e.reg.Requests() {
		if r.Kind == registry.Storage && (r.Status != http.StatusOK || r.Header.Get("Authorization") != "") {
			t.Errorf("the storage answered %d to Authorization %q", r.Status, r.Header.Get("Authorization"))
		}
	}
	e.secretsStay(t)
}

// TestECRTokensAreRenewedWhenRefused: many requests find the token expired at
// once, and one question is asked for all of them.
func TestECRTokensAreRenewedWhenRefused(t *testing.T) {
	e := newECR(t, registry.Options{ECR: true}, ecrHostA)
	c := newClientOf(t, e.cfg)
	if _, err := c.Manifest(t.Context(), e.tag(ecrHostA)); err != nil {
		t.Fatal(err)
	}
	e.clock.advance(2 * time.Minute)
	e.reg.SetUser("AWS", "something newer")
	e.reg.Forget()
	var all sync.WaitGroup
	errs := make(chan error, 20)
	for range 20 {
		all.Go(func() {
			_, err := c.Manifest(t.Context(), e.tag(ecrHostA))
			errs <- err
		})
	}
	all.Wait()
	for range 20 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if calls := e.api.Calls("ecr"); len(calls) != 2 {
		t.Errorf("%d tokens were asked for, want 2", len(calls))
	}
	// By HEAD first, as the mirror asks for tags.
	e.clock.advance(2 * time.Minute)
	e.reg.SetUser("AWS", "something newer still")
	if desc, err := c.Resolve(t.Context(), e.tag(ecrHostA)); err != nil || desc.Digest != e.image.Digest {
		t.Errorf("Resolve: %v, %v", desc, err)
	}
	if calls := e.api.Calls("ecr"); len(calls) != 3 {
		t.Errorf("%d tokens were asked for, want 3", len(calls))
	}
	// A right token that may not read is no reason for another.
	if _, err := c.Manifest(t.Context(), e.tag(ecrHostA)); err != nil {
		t.Error(err)
	}
	e.reg.Set(registry.Fault{On: registry.Manifests, Status: http.StatusForbidden})
	for range 3 {
		if _, err := c.Manifest(t.Context(), e.tag(ecrHostA)); !errors.Is(err, oci.ErrDenied) && !errors.Is(err, oci.ErrUnauthorized) {
			t.Errorf("denied: %v", err)
		}
	}
	if calls := e.api.Calls("ecr"); len(calls) != 3 {
		t.Errorf("%d tokens were asked for after a denial, want 3", len(calls))
	}
	e.secretsStay(t)
}

// TestECRTokensAreRenewedAhead of their end: by one question, which nobody waits
// for.
func TestECRTokensAreRenewedAhead(t *testing.T) {
	e := newECR(t, registry.Options{ECR: true}, ecrHostA)
	c := newClientOf(t, e.cfg)
	ask := func() {
		t.Helper()
		if _, err := c.Manifest(t.Context(), e.tag(ecrHostA)); err != nil {
			t.Error(err)
		}
	}
	ask()
	e.clock.advance(8 * time.Hour)
	ask()
	if calls := e.api.Calls("ecr"); len(calls) != 1 {
		t.Fatalf("%d tokens were asked for after 8 hours, want 1", len(calls))
	}
	e.clock.advance(2 * time.Hour)
	release := e.api.Hold()
	var all sync.WaitGroup
	for range 20 {
		all.Go(ask)
	}
	all.Wait() // although the API holds its answer back
	waitFor(t, func() bool { return len(e.api.Calls("ecr")) == 2 })
	release()
	waitFor(t, func() bool {
		ask()
		requests := e.reg.Requests()
		_, password, _ := basicOf(requests[len(requests)-1].Header)
		return strings.HasSuffix(password, "-2")
	})
	if calls := e.api.Calls("ecr"); len(calls) != 2 {
		t.Errorf("%d tokens were asked for, want 2", len(calls))
	}
}

func basicOf(h http.Header) (user, password string, ok bool) {
	return (&http.Request{Header: h}).BasicAuth()
}

// TestECRPublic: anonymous by the registry's own tokens, whose expiry is a 400.
func TestECRPublic(t *testing.T) {
	const host = "public.ecr.aws"
	e := newECR(t, registry.Options{ECRPublic: true, Anonymous: []string{"team/app"}, Storage: true}, host)
	c := newClientOf(t, e.cfg)
	for range 2 {
		if _, err := c.Manifest(t.Context(), e.tag(host)); err != nil {
			t.Fatal(err)
		}
	}
	want := cloud.Call{Service: "ecr-public", Action: "GetAuthorizationToken", Region: "us-east-1", AccessKey: "AKIDENV"}
	if calls := e.api.Calls(""); !slices.Equal(calls, []cloud.Call{want}) {
		t.Errorf("asked of AWS: %v", calls)
	}
	for _, by := range []string{"GET", "HEAD"} {
		e.reg.ExpireTokens()
		e.reg.Forget()
		var err error
		if by == "GET" {
			_, err = c.Manifest(t.Context(), e.tag(host))
		} else {
			_, err = c.Resolve(t.Context(), e.tag(host))
		}
		if err != nil {
			t.Errorf("%s with an expired token: %v", by, err)
		}
		var statuses []int
		for _, r := range e.reg.Requests() {
			statuses = append(statuses, r.Status)
		}
		if !slices.Equal(statuses, []int{400, 401, 200, 200}) {
			t.Errorf("%s: the registry answered %v", by, statuses)
		}
	}
	// The identity's own token has expired as well: the token server says so.
	e.clock.advance(2 * time.Minute)
	e.reg.SetUser("AWS", "something newer")
	e.reg.ExpireTokens()
	if _, err := c.Manifest(t.Context(), e.tag(host)); err != nil {
		t.Errorf("with both expired: %v", err)
	}
	if calls := e.api.Calls("ecr-public"); len(calls) != 2 {
		t.Errorf("%d tokens were asked for, want 2", len(calls))
	}
	// Without an identity it is public still.
	e.api.Fail(http.StatusBadRequest, "AccessDeniedException")
	fresh := newClientOf(t, e.cfg)
	if _, err := fresh.Manifest(t.Context(), e.tag(host)); err != nil {
		t.Errorf("without an identity: %v", err)
	}
	e.secretsStay(t)
}

// TestAWSCredentials: each link of the SDK's chain, and roles.
func TestAWSCredentials(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("web-identity-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	podToken := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(podToken, []byte("pod-identity-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	profile := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(profile, []byte("[nodes]\naws_access_key_id = AKIDENV\naws_secret_access_key = MARKERawssecret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		env  map[string]string
		aws  *AWS
		key  string // what ECR was asked with
		sts  []cloud.Call
	}{
		{"environment", nil, nil, "AKIDENV", nil},
		{"shared file", map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SHARED_CREDENTIALS_FILE": profile, "AWS_PROFILE": "nodes"}, nil, "AKIDENV", nil},
		{
			"web identity",
			map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/irsa", "AWS_WEB_IDENTITY_TOKEN_FILE": token},
			nil, "ASIAIRSA",
			[]cloud.Call{{Service: "sts", Action: "AssumeRoleWithWebIdentity", Role: "arn:aws:iam::123456789012:role/irsa"}},
		},
		{"pod identity", map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "stand-in", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": podToken}, nil, "ASIACONTAINER", nil},
		{"instance role", map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, nil, "ASIANODE", nil},
		{
			"role of another account", nil, &AWS{RoleARN: "arn:aws:iam::210987654321:role/pull"}, "ASIAPULL",
			[]cloud.Call{{Service: "sts", Action: "AssumeRole", Region: "eu-west-1", AccessKey: "AKIDENV", Role: "arn:aws:iam::210987654321:role/pull"}},
		},
		{
			"role from the instance's",
			map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
			&AWS{Region: "eu-west-1", RoleARN: "arn:aws:iam::210987654321:role/pull"}, "ASIAPULL",
			[]cloud.Call{{Service: "sts", Action: "AssumeRole", Region: "eu-west-1", AccessKey: "ASIANODE", Role: "arn:aws:iam::210987654321:role/pull"}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newECR(t, registry.Options{ECR: true}, ecrHostA)
			setenv(t, test.env)
			if test.env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] != "" {
				t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", e.api.ContainerURL())
			}
			e.cfg.Registries[0].AWS = test.aws
			c := newClientOf(t, e.cfg)
			if _, err := c.Manifest(t.Context(), e.tag(ecrHostA)); err != nil {
				t.Errorf("Manifest: %v\n%s", err, e.log)
			}
			want := []cloud.Call{{Service: "ecr", Action: "GetAuthorizationToken", Region: "eu-west-1", AccessKey: test.key}}
			if calls := e.api.Calls("ecr"); !slices.Equal(calls, want) {
				t.Errorf("asked of ECR: %v, want %v", calls, want)
			}
			if calls := e.api.Calls("sts"); !slices.Equal(calls, test.sts) {
				t.Errorf("asked of STS: %v, want %v", calls, test.sts)
			}
			e.secretsStay(t)
		})
	}
}

// TestARegistryOfAnotherName is ECR's because its entry says so.
func TestARegistryOfAnotherName(t *testing.T) {
	e := newECR(t, registry.Options{ECR: true}, "images.example.com")
	e.cfg.Registries[0].AWS = &AWS{Region: "ap-southeast-2"}
	c := newClientOf(t, e.cfg)
	if _, err := c.Manifest(t.Context(), e.tag("images.example.com")); err != nil {
		t.Fatal(err)
	}
	if calls := e.api.Calls("ecr"); len(calls) != 1 || calls[0].Region != "ap-southeast-2" {
		t.Errorf("asked of ECR: %v", calls)
	}
	e.cfg.Registries[0].AWS = &AWS{}
	if c, err := New(e.cfg); err == nil {
		c.Close()
		t.Error("an entry without a region is accepted")
	}
}

// TestPullThroughCache: an ECR registry that is an endpoint of another logs in
// as one that is asked by its own name.
func TestPullThroughCache(t *testing.T) {
	e := newECR(t, registry.Options{ECR: true}, ecrHostA)
	img := e.reg.AddImage("docker-hub/team/app", "v1", registry.NewLayer(2, 100))
	hub := newOrigin(t, answer(http.StatusNotFound, nil, ""))
	entry := hub.entry(t)
	entry.Endpoints = []string{"http://" + e.name(ecrHostA).Registry + "/v2/docker-hub"}
	e.cfg.Registries = []Registry{entry}
	c := newClientOf(t, e.cfg)
	m, err := c.Manifest(t.Context(), hub.tag("v1"))
	if err != nil || m.Digest != img.Digest {
		t.Errorf("Manifest: %v, %v", m.Descriptor, err)
	}
	if calls := e.api.Calls("ecr"); len(calls) != 1 {
		t.Errorf("asked of ECR: %v", calls)
	}
	if got := hub.requests(); len(got) != 0 {
		t.Errorf("the registry itself was sent %q", got)
	}
	if !strings.Contains(e.log.String(), "using the identity that this machine has in its cloud") {
		t.Error("the log does not say whose identity is used")
	}
	e.secretsStay(t)
}

// TestNoAWSCredentials: the machine is not in AWS, or its metadata service is a
// black hole. That is found out once, soon, and costs the next request nothing.
func TestNoAWSCredentials(t *testing.T) {
	hole, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	for _, test := range []struct{ name, endpoint string }{
		{"no such service", ""},
		{"black hole", "http://" + hole.Addr().String()},
		{"switched off", "off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newECR(t, registry.Options{ECR: true}, ecrHostA, ecrHostC)
			e.api.NoInstance()
			setenv(t, map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""})
			switch test.endpoint {
			case "":
			case "off":
				t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			default:
				t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", test.endpoint)
			}
			c := newClientOf(t, e.cfg)
			begin := time.Now()
			if _, err := c.Manifest(t.Context(), e.tag(ecrHostA)); !errors.Is(err, oci.ErrUnauthorized) {
				t.Errorf("Manifest: %v", err)
			}
			// Far from metadataPatience, for the sake of busy machines, and
			// far below what an unbounded question takes.
			if took := time.Since(begin); took > 8*time.Second {
				t.Errorf("finding out took %s", took)
			}
			asked := len(e.api.Calls("imds"))
			for _, host := range []string{ecrHostA, ecrHostC} {
				if _, err := c.Manifest(t.Context(), e.tag(host)); !errors.Is(err, oci.ErrUnauthorized) {
					t.Errorf("Manifest again: %v", err)
				}
			}
			if again := len(e.api.Calls("imds")); again != asked {
				t.Errorf("the metadata service was asked %d more times", again-asked)
			}
			if calls := e.api.Calls("ecr"); len(calls) != 0 {
				t.Errorf("ECR was asked: %v", calls)
			}
		})
	}
}

// TestECRFailures: what AWS may answer instead of a token.
func TestECRFailures(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		code   string
		body   string
		err    error
		reason string
		text   string
	}{
		{"may not", 400, "AccessDeniedException", "", oci.ErrUnauthorized, "error", "may not use ECR"},
		{"unknown key", 403, "UnrecognizedClientException", "", oci.ErrUnavailable, "credential", "AWS answered UnrecognizedClientException"},
		{"server's fault", 500, "ServerException", "", oci.ErrUnavailable, "credential", "AWS answered ServerException"},
		{"garbage", 0, "", "MARKERgarbage", oci.ErrUnavailable, "credential", "AWS did not answer as it should"},
		{"nothing in it", 0, "", "{}", oci.ErrUnavailable, "credential", "what came is not a token"},
		{"not base64", 0, "", `{"authorizationData":[{"authorizationToken":"%%%%"}]}`, oci.ErrUnavailable, "credential", "what came is not a token"},
		{"not a pair", 0, "", `{"authorizationData":[{"authorizationToken":"TUFSS0VS"}]}`, oci.ErrUnavailable, "credential", "what came is not a token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newECR(t, registry.Options{ECR: true}, ecrHostA)
			e.api.Fail(test.status, test.code)
			e.api.Answer(test.body)
			c := newClientOf(t, e.cfg)
			_, err := c.Manifest(t.Context(), e.tag(ecrHostA))
			if !errors.Is(err, test.err) || oci.Reason(err) != test.reason {
				t.Errorf("Manifest: %v (%s)", err, oci.Reason(err))
			}
			if !strings.Contains(e.log.String(), test.text) {
				t.Errorf("the log does not say %q:\n%s", test.text, e.log)
			}
			asked := len(e.api.Calls("ecr"))
			_, again := c.Manifest(t.Context(), e.tag(ecrHostA))
			if len(e.api.Calls("ecr")) != asked {
				t.Error("AWS was asked again at once")
			}
			e.secretsStay(t, err, again)
			// And once it works again, so do we.
			e.api.Fail(0, "")
			e.api.Answer("")
			e.clock.advance(2 * time.Minute)
			waitFor(t, func() bool {
				_, err := c.Manifest(t.Context(), e.tag(ecrHostA))
				return err == nil
			})
		})
	}
}

// TestECRClockSkew: the token's end is told by AWS's clock, which may not be
// this machine's.
func TestECRClockSkew(t *testing.T) {
	for _, skew := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			e := newECR(t, registry.Options{ECR: true}, ecrHostA)
			e.api.SetLife(12*time.Hour, func() time.Time { return e.clock.now().Add(skew) })
			c := newClientOf(t, e.cfg)
			for range 5 {
				if _, err := c.Manifest(t.Context(), e.tag(ecrHostA)); err != nil {
					t.Fatal(err)
				}
			}
			if calls := e.api.Calls("ecr"); len(calls) != 1 {
				t.Errorf("%d tokens were asked for, want 1", len(calls))
			}
			// The token ends by AWS's clock, unexpectedly.
			e.clock.advance(13 * time.Hour)
			e.reg.SetUser("AWS", "something newer")
			if _, err := c.Manifest(t.Context(), e.tag(ecrHostA)); err != nil {
				t.Errorf("after its end: %v", err)
			}
		})
	}
}

// TestECREndpoints: which of AWS's hosts is asked for the token of which
// registry, by the SDK's own rules.
func TestECREndpoints(t *testing.T) {
	for host, want := range map[string]string{
		ecrHostA: "api.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":               "api.ecr-fips.us-east-1.amazonaws.com",
		"123456789012.dkr-ecr.us-west-2.on.aws":                           "ecr.us-west-2.api.aws",
		"123456789012.dkr-ecr-fips.us-west-2.on.aws":                      "ecr-fips.us-west-2.api.aws",
		"123456789012.dkr.ecr.us-gov-west-1.amazonaws.com":                "api.ecr.us-gov-west-1.amazonaws.com",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":                "api.ecr.cn-north-1.amazonaws.com.cn",
		"123456789012.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn": "ecr.cn-northwest-1.api.amazonwebservices.com.cn",
		"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov":                   "api.ecr.us-iso-east-1.c2s.ic.gov",
		"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":               "api.ecr.us-isob-east-1.sc2s.sgov.gov",
		"123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk":              "api.ecr.eu-isoe-west-1.cloud.adc-e.uk",
		"123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov":             "api.ecr.us-isof-south-1.csp.hci.ic.gov",
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":                "api.ecr.eusc-de-east-1.amazonaws.eu",
		"public.ecr.aws":     "api.ecr-public.us-east-1.amazonaws.com",
		"ecr-public.aws.com": "ecr-public.us-east-1.api.aws",
	} {
		t.Run(host, func(t *testing.T) {
			h, ok := parseECRHost(host)
			if !ok {
				t.Fatal("not recognised")
			}
			var asked string
			src := &ecrSource{host: h, chain: &awsChain{now: time.Now, base: &aws.Config{
				Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", ""),
				Retryer:     func() aws.Retryer { return aws.NopRetryer{} },
				HTTPClient: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
					asked = req.URL.Host
					return nil, io.ErrUnexpectedEOF
				})},
			}}}
			if _, err := src.login(t.Context(), ""); err == nil {
				t.Error("a login out of nowhere")
			}
			if asked != want {
				t.Errorf("asked %q, want %q", asked, want)
			}
		})
	}
}

// TestECRCallerLeaves: the call is cancelled while AWS is asked.
func TestECRCallerLeaves(t *testing.T) {
	e := newECR(t, registry.Options{ECR: true}, ecrHostA)
	release := e.api.Hold()
	c := newClientOf(t, e.cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { // ends with the call, which cancel ends
		_, err := c.Manifest(ctx, e.tag(ecrHostA))
		done <- err
	}()
	waitFor(t, func() bool { return len(e.api.Calls("ecr")) == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that left: %v", err)
	}
	release()
	if _, err := c.Manifest(t.Context(), e.tag(ecrHostA)); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if calls := e.api.Calls("ecr"); len(calls) != 1 {
		t.Errorf("%d tokens were asked for, want the one under way", len(calls))
	}
}
