package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// maxReferrersTag bounds the parts of a referrers tag (distribution spec,
// section "Referrers Tag Schema").
const maxReferrersTag = 64

// Referrers fetches the index of what refers to dgst (distribution spec,
// section "Listing Referrers"). Where an upstream has no such API, the index
// under the referrers tag is it. artifactType, when not empty, is passed on;
// the answer may hold other types too, since upstreams need not filter and
// tags cannot.
//
// It fails with oci.ErrManifestUnknown when there is neither, with
// oci.ErrUnsupported when the list comes in pages (a part of it would pass for
// the whole), and else as Manifest does.
func (c *Client) Referrers(ctx context.Context, name oci.Name, dgst digest.Digest, artifactType string) (oci.Manifest, error) {
	ctx, patience := c.patience(ctx)
	defer patience.done()
	var m oci.Manifest
	err := c.ask(ctx, name, kindManifest, func(ctx context.Context, a *attempt) (err error) {
		m, err = c.getReferrers(ctx, a, dgst, artifactType)
		if errors.Is(err, oci.ErrManifestUnknown) || hasStatus(err, http.StatusBadRequest, http.StatusMethodNotAllowed) {
			m, err = c.getManifest(ctx, a, oci.Reference{Name: name, Tag: referrersTag(dgst)})
		}
		if err == nil && !oci.IsIndexType(m.MediaType) {
			return &failure{err: oci.Errorf(oci.ErrManifestInvalid, "%s: the referrers are no index", a.endpoint.base.Host)}
		}
		return err
	})
	if err != nil {
		return oci.Manifest{}, err
	}
	return m, nil
}

// getReferrers asks one endpoint's referrers API.
func (c *Client) getReferrers(ctx context.Context, a *attempt, dgst digest.Digest, artifactType string) (oci.Manifest, error) {
	q := question{method: http.MethodGet, path: "referrers/" + dgst.String(), accept: oci.MediaTypeIndex}
	if artifactType != "" {
		q.query = url.Values{"artifactType": {artifactType}}
	}
	resp, err := c.send(ctx, a, q)
	if err != nil {
		return oci.Manifest{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	if link := resp.Header.Get("Link"); strings.Contains(link, `rel="next"`) || strings.Contains(link, "rel=next") {
		return oci.Manifest{}, invalid(oci.ErrUnsupported, resp, "the list of referrers comes in pages")
	}
	content, err := readManifest(resp)
	if err != nil {
		return oci.Manifest{}, err
	}
	mediaType, ok := manifestType(resp.Header.Get("Content-Type"), content)
	if !ok {
		return oci.Manifest{}, invalid(oci.ErrManifestInvalid, resp, "what it sent is no list of referrers")
	}
	return oci.Manifest{
		Descriptor: oci.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))},
		Bytes:      content,
	}, nil
}

// referrersTag is the tag the referrers of dgst are kept under where there is
// no API for them.
func referrersTag(dgst digest.Digest) string {
	algorithm, encoded := dgst.Algorithm().String(), dgst.Encoded()
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), maxReferrersTag)]
}
