package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Cluster is the API server as a pod reaches it. It is not safe for concurrent
// use.
type Cluster struct {
	server    string
	tokenFile string
	caFile    string
	ca        []byte
	client    *http.Client
}

// ClusterConfig says where the API server is and who asks. All are required.
type ClusterConfig struct {
	// Server is host:port.
	Server string
	// TokenFile and CAFile are those of the service account. Both are read
	// again for each round of calls, since the kubelet renews them.
	TokenFile, CAFile string
}

// NewCluster makes the client. It reads no file and asks nobody yet.
func NewCluster(cfg ClusterConfig) (*Cluster, error) {
	if _, _, err := net.SplitHostPort(cfg.Server); err != nil {
		return nil, fmt.Errorf("name API server: %w", err)
	}
	if cfg.TokenFile == "" || cfg.CAFile == "" {
		return nil, errors.New("name API server: the files of the service account are required")
	}
	return &Cluster{server: cfg.Server, tokenFile: cfg.TokenFile, caFile: cfg.CAFile}, nil
}

// The bounds of one call to the API server.
const (
	callTimeout = 10 * time.Second
	// maxObject bounds an answer, in bytes. etcd keeps objects of 1.5 MiB at
	// most, and in JSON they get longer.
	maxObject = 8 << 20
)

// apiError is a status that is not a success, with the API server's words.
type apiError struct {
	method, path string
	status       int
	message      string
}

func (e *apiError) Error() string {
	text := fmt.Sprintf("%s %s: status %d: %s", e.method, e.path, e.status, e.message)
	switch e.status {
	case http.StatusForbidden:
		text += "; the service account needs the rights in docs/admission.md"
	case http.StatusNotFound:
		text += "; make it as in docs/admission.md"
	}
	return text
}

// isConflict reports whether somebody else was faster, so that the object has
// to be read again.
func isConflict(err error) bool {
	e, ok := errors.AsType[*apiError](err)
	return ok && e.status == http.StatusConflict
}

// secret is a Secret as it was read: what is not ours is written back as it was.
type secret struct {
	fields map[string]json.RawMessage
	data   map[string][]byte
}

func (c *Cluster) getSecret(ctx context.Context, namespace, name string) (*secret, error) {
	s := &secret{}
	if err := c.call(ctx, http.MethodGet, secretPath(namespace, name), "", nil, &s.fields); err != nil {
		return nil, err
	}
	if raw := s.fields["data"]; raw != nil {
		if err := json.Unmarshal(raw, &s.data); err != nil {
			return nil, fmt.Errorf("read secret %s/%s: %w", namespace, name, err)
		}
	}
	if s.data == nil {
		s.data = map[string][]byte{}
	}
	return s, nil
}

// putSecret writes s back, if nobody has written it since it was read: it
// carries its resourceVersion (Kubernetes API conventions, "Concurrency
// Control and Consistency").
func (c *Cluster) putSecret(ctx context.Context, namespace, name string, s *secret) error {
	data, err := json.Marshal(s.data)
	if err != nil {
		return fmt.Errorf("write secret: %w", err)
	}
	s.fields["data"] = data
	body, err := json.Marshal(s.fields)
	if err != nil {
		return fmt.Errorf("write secret: %w", err)
	}
	return c.call(ctx, http.MethodPut, secretPath(namespace, name), "application/json", body, nil)
}

func secretPath(namespace, name string) string {
	return "/api/v1/namespaces/" + url.PathEscape(namespace) + "/secrets/" + url.PathEscape(name)
}

// registration is a ValidatingWebhookConfiguration, the part that matters here.
type registration struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Webhooks []registered `json:"webhooks"`
}

// registered is one webhook of a registration.
type registered struct {
	Name         string `json:"name"`
	ClientConfig struct {
		CABundle []byte `json:"caBundle"`
		URL      string `json:"url"`
		Service  *struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"service"`
	} `json:"clientConfig"`
}

// host is what the API server takes the webhook's certificate to be for.
func (r registered) host() string {
	if s := r.ClientConfig.Service; s != nil {
		return s.Name + "." + s.Namespace + ".svc"
	}
	if u, err := url.Parse(r.ClientConfig.URL); err == nil {
		return u.Hostname()
	}
	return ""
}

func registrationPath(name string) string {
	return "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/" + url.PathEscape(name)
}

func (c *Cluster) getRegistration(ctx context.Context, name string) (*registration, error) {
	r := &registration{}
	return r, c.call(ctx, http.MethodGet, registrationPath(name), "", nil, r)
}

// patchBundle puts bundle into every webhook of r, if nobody has changed r
// since it was read.
func (c *Cluster) patchBundle(ctx context.Context, name string, r *registration, bundle []byte) error {
	type clientConfig struct {
		CABundle []byte `json:"caBundle"`
	}
	type webhook struct {
		Name         string       `json:"name"`
		ClientConfig clientConfig `json:"clientConfig"`
	}
	var patch struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Webhooks []webhook `json:"webhooks"`
	}
	patch.Metadata.ResourceVersion = r.Metadata.ResourceVersion
	for _, w := range r.Webhooks {
		patch.Webhooks = append(patch.Webhooks, webhook{w.Name, clientConfig{bundle}})
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("write patch: %w", err)
	}
	return c.call(ctx, http.MethodPatch, registrationPath(name)+"?fieldManager=larder", "application/strategic-merge-patch+json", body, nil)
}

// call makes one request and decodes the answer into out, if there is one. No
// error of it holds the token.
func (c *Cluster) call(ctx context.Context, method, path, contentType string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := c.refresh(); err != nil {
		return err
	}
	token, err := os.ReadFile(c.tokenFile)
	if err != nil {
		return fmt.Errorf("read service account's token: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+c.server+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask API server: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "larder-webhook")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask API server: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxObject))
	if err != nil {
		return fmt.Errorf("ask API server: %s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return &apiError{method, path, resp.StatusCode, reason(answer)}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("ask API server: %s %s: %w", method, path, err)
	}
	return nil
}

// reason is the message of a Status object, or the start of what came instead.
func reason(answer []byte) string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &status) == nil && status.Message != "" {
		return status.Message
	}
	return fmt.Sprintf("%.200q", answer)
}

// refresh makes a new client when the file of the cluster's authority changed.
func (c *Cluster) refresh() error {
	ca, err := os.ReadFile(c.caFile)
	if err != nil {
		return fmt.Errorf("read cluster's authority: %w", err)
	}
	if c.client != nil && bytes.Equal(ca, c.ca) {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return fmt.Errorf("read cluster's authority: %s holds no PEM certificate", c.caFile)
	}
	c.close()
	c.ca = ca
	c.client = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			IdleConnTimeout:   time.Minute,
			ForceAttemptHTTP2: true,
		},
		// The API server redirects nobody, and the token is for it alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// close lets go of idle connections.
func (c *Cluster) close() {
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
}
