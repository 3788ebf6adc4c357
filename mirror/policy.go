package mirror

import (
	"context"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/policy"
)

// Gate is a Mirror that serves what an image policy allows and nothing else. It
// implements oci.Reader and oci.Lister, for any number of goroutines.
//
// Clients do not say for which Kubernetes namespace they ask, so only what is
// denied in every namespace is refused. Content is judged by the repository it
// is asked for in: a blob has no other name, and a client that is refused the
// image manifest does not ask for its blobs.
type Gate struct {
	mirror *Mirror
	policy *policy.Policy
}

var (
	_ oci.Reader = (*Gate)(nil)
	_ oci.Lister = (*Gate)(nil)
)

// NewGate puts p before m, which the caller still closes.
func NewGate(m *Mirror, p *policy.Policy) *Gate { return &Gate{mirror: m, policy: p} }

// Blob is Mirror's, or fails with ErrDenied.
func (g *Gate) Blob(ctx context.Context, name oci.Name, dgst digest.Digest) (oci.Blob, error) {
	if err := g.admit(ctx, oci.Reference{Name: name, Digest: dgst}); err != nil {
		return nil, err
	}
	return g.mirror.Blob(ctx, name, dgst)
}

// StatBlob is Mirror's, or fails with ErrDenied.
func (g *Gate) StatBlob(ctx context.Context, name oci.Name, dgst digest.Digest) (oci.Descriptor, error) {
	if err := g.admit(ctx, oci.Reference{Name: name, Digest: dgst}); err != nil {
		return oci.Descriptor{}, err
	}
	return g.mirror.StatBlob(ctx, name, dgst)
}

// Manifest is Mirror's, or fails with ErrDenied.
func (g *Gate) Manifest(ctx context.Context, ref oci.Reference) (oci.Manifest, error) {
	if err := g.admit(ctx, ref); err != nil {
		return oci.Manifest{}, err
	}
	return g.mirror.Manifest(ctx, ref)
}

// Referrers is Mirror's, or fails with ErrDenied.
func (g *Gate) Referrers(ctx context.Context, name oci.Name, dgst digest.Digest, artifactType string) (oci.Manifest, error) {
	if err := g.admit(ctx, oci.Reference{Name: name, Digest: dgst}); err != nil {
		return oci.Manifest{}, err
	}
	return g.mirror.Referrers(ctx, name, dgst, artifactType)
}

// Tags is Mirror's, or fails with ErrDenied.
func (g *Gate) Tags(ctx context.Context, name oci.Name, n int, last string) ([]string, error) {
	if err := g.admit(ctx, oci.Reference{Name: name}); err != nil {
		return nil, err
	}
	return g.mirror.Tags(ctx, name, n, last)
}

// Repositories is Mirror's: it lists what is held, also what was fetched before
// the policy denied it.
func (g *Gate) Repositories(ctx context.Context, n int, last string) ([]string, error) {
	return g.mirror.Repositories(ctx, n, last)
}

// admit fails with ErrDenied if ref must not be served. A denial that comes to
// nothing more is counted, and logged once for each image manifest by tag.
func (g *Gate) admit(ctx context.Context, ref oci.Reference) error {
	v := g.policy.DecideAnywhere(ref)
	if v.Allowed {
		return nil
	}
	g.mirror.metrics.policyDenied(ref.Registry, string(v.Mode))
	if v.Refused() {
		access := oci.AccessOf(ctx)
		access.Outcome, access.Reason = oci.OutcomeMiss, "policy"
		return oci.Errorf(oci.ErrDenied, "the image policy does not allow %s: %s", v.Normalized, v.Reason)
	}
	if ref.Tag != "" {
		g.mirror.log.WithFields(logrus.Fields{
			"registry": ref.Registry, "repository": ref.Repository, "tag": ref.Tag, "rule": v.Rule, "mode": string(v.Mode),
		}).Warn("image policy would not allow this image")
	}
	return nil
}
