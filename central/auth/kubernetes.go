package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// APIGroup is the group of the resource "repositories" that roles give rights
// to, with the verbs pull, push and delete. No such resource exists in the
// cluster: rights on it are all there is.
const APIGroup = "registry.larder.dev"

// ClusterConfig is what a Cluster is made of. Name, URL and Client are required.
type ClusterConfig struct {
	// Name stands before its subjects: "kubernetes".
	Name string
	// URL is the API server's.
	URL string
	// Audiences are what tokens must be made out for, one of them; needed for
	// TokenReview.
	Audiences []string
	// Issuer limits it to tokens with this issuer claim; empty takes any that
	// no other provider takes.
	Issuer string
	// Client carries the registry's own token; see [NewClient].
	Client *http.Client
	// Now is the clock; nil means the system's.
	Now func() time.Time
}

// Cluster asks a Kubernetes API server who a token belongs to (TokenReview),
// and what somebody may do (SubjectAccessReview). The registry's own account
// needs the cluster role system:auth-delegator.
type Cluster struct {
	cfg     ClusterConfig
	secret  []byte
	answers *cache[bool]
}

const (
	// allowedKept and deniedKept are for how long a review counts.
	allowedKept = time.Minute
	deniedKept  = 10 * time.Second
	maxReviews  = 10_000
)

// NewCluster makes a Cluster. It contacts nobody until somebody asks.
func NewCluster(cfg ClusterConfig) (*Cluster, error) {
	if cfg.Client == nil {
		return nil, errors.New("make cluster: client is required")
	}
	if err := CheckProviderName(cfg.Name); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	c := &Cluster{cfg: cfg, secret: make([]byte, 32), answers: newCache[bool](maxReviews, cfg.Now)}
	if _, err := rand.Read(c.secret); err != nil {
		return nil, fmt.Errorf("make secret: %w", err)
	}
	return c, nil
}

// Takes reports whether the cluster is asked about a token of this issuer.
func (c *Cluster) Takes(issuer string) bool { return c.cfg.Issuer == "" || c.cfg.Issuer == issuer }

// object is the part of a review that all kinds have.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

type tokenReview struct {
	object
	Spec struct {
		Token     string   `json:"token"`
		Audiences []string `json:"audiences"`
	} `json:"spec"`
	Status struct {
		Authenticated bool     `json:"authenticated"`
		Audiences     []string `json:"audiences"`
		User          struct {
			Username string   `json:"username"`
			Groups   []string `json:"groups"`
		} `json:"user"`
	} `json:"status"`
}

// Verify has the token reviewed. The cluster's word counts for a minute, since
// it may take a token back when its pod or account goes.
func (c *Cluster) Verify(ctx context.Context, token string) (Subject, time.Time, error) {
	review := tokenReview{object: object{"authentication.k8s.io/v1", "TokenReview"}}
	review.Spec.Token, review.Spec.Audiences = token, c.cfg.Audiences
	var answer tokenReview
	if err := c.post(ctx, "/apis/authentication.k8s.io/v1/tokenreviews", review, &answer); err != nil {
		return Subject{}, time.Time{}, fmt.Errorf("review token: %w", err)
	}
	// A cluster that knows nothing of audiences names none, and then the
	// token may be meant for the API server itself.
	ours := slices.ContainsFunc(answer.Status.Audiences, func(a string) bool { return slices.Contains(c.cfg.Audiences, a) })
	if !answer.Status.Authenticated || !ours {
		return Subject{}, time.Time{}, oci.Errorf(oci.ErrUnauthorized, "the cluster does not know the token, or it is not for audience %s", strings.Join(c.cfg.Audiences, ", "))
	}
	s, err := subjectOf(c.cfg.Name, answer.Status.User.Username, answer.Status.User.Groups)
	return s, c.cfg.Now().Add(foreignKept), err
}

type accessReview struct {
	object
	Spec struct {
		User               string             `json:"user"`
		Groups             []string           `json:"groups,omitempty"`
		ResourceAttributes resourceAttributes `json:"resourceAttributes"`
	} `json:"spec"`
	Status struct {
		Allowed bool `json:"allowed"`
		Denied  bool `json:"denied"`
	} `json:"status"`
}

type resourceAttributes struct {
	Group     string `json:"group"`
	Resource  string `json:"resource"`
	Verb      string `json:"verb"`
	Namespace string `json:"namespace"`
	Name      string `json:"name,omitempty"`
}

// Allowed asks whether the cluster's roles give one of its own subjects a right
// to a repository: of the resource named by the repository's path in the
// namespace named by its first component. Without a path it asks about all of
// the namespace. Others' subjects, and what is pulled through, have no rights
// by roles.
func (c *Cluster) Allowed(ctx context.Context, s Subject, action oci.Action, repository string) (bool, error) {
	user, ours := strings.CutPrefix(s.Name, c.cfg.Name+":")
	namespace, name, _ := strings.Cut(repository, "/")
	if !ours || !isNamespace(namespace) {
		return false, nil
	}
	review := accessReview{object: object{"authorization.k8s.io/v1", "SubjectAccessReview"}}
	review.Spec.User = user
	for _, group := range s.Groups {
		if group, ours := strings.CutPrefix(group, "group:"+c.cfg.Name+":"); ours {
			review.Spec.Groups = append(review.Spec.Groups, group)
		}
	}
	review.Spec.ResourceAttributes = resourceAttributes{APIGroup, "repositories", string(action), namespace, name}
	key := keyOf(c.secret, append([]string{user, string(action), repository}, review.Spec.Groups...)...)
	if allowed, ok := c.answers.get(key); ok {
		return allowed, nil
	}
	var answer accessReview
	if err := c.post(ctx, "/apis/authorization.k8s.io/v1/subjectaccessreviews", review, &answer); err != nil {
		return false, err
	}
	allowed, keep := answer.Status.Allowed && !answer.Status.Denied, deniedKept
	if allowed {
		keep = allowedKept
	}
	c.answers.put(key, allowed, keep)
	return allowed, nil
}

func (c *Cluster) post(ctx context.Context, path string, review, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	err := postJSON(ctx, c.cfg.Client, c.cfg.URL+path, review, answer)
	if status, ok := errors.AsType[*statusError](err); ok && (status.status == http.StatusForbidden || status.status == http.StatusUnauthorized) {
		return fmt.Errorf("%w; give the registry's own account the cluster role system:auth-delegator", err)
	}
	return err
}

// isNamespace holds a repository's first component to what a namespace's name
// can be (RFC 1123 label).
func isNamespace(s string) bool {
	return s != "" && s != "f" && len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[0] != '-' && s[len(s)-1] != '-'
}
