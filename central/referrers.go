package central

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// referrer is a descriptor in the list of referrers.
type referrer struct {
	MediaType    string          `json:"mediaType"`
	Digest       digest.Digest   `json:"digest"`
	Size         int64           `json:"size"`
	ArtifactType string          `json:"artifactType,omitempty"`
	Annotations  json.RawMessage `json:"annotations,omitempty"`
}

// maxReferrers bounds one page of the list, in bytes: clients take it for an
// index and bound it like one.
const maxReferrers = oci.MaxManifestSize - 64<<10

// Referrers returns the first page of the index of what refers to dgst.
func (c *Central) Referrers(ctx context.Context, name oci.Name, dgst digest.Digest, artifactType string) (oci.Manifest, error) {
	m, _, err := c.ReferrersPage(ctx, name, dgst, artifactType, "")
	return m, err
}

// ReferrersPage returns a page of the index of what refers to dgst: what comes
// after last, and what to ask for as last next; empty when that is all. A
// subject that is not known has no referrers.
func (c *Central) ReferrersPage(ctx context.Context, name oci.Name, dgst digest.Digest, artifactType string, last digest.Digest) (oci.Manifest, digest.Digest, error) {
	prefix := referrersPrefix(name.Repository, dgst)
	after := ""
	if last != "" {
		after = prefix + string(last)
	}
	list, err := c.ledger.List(ctx, prefix, after, -1)
	if err != nil {
		return oci.Manifest{}, "", fmt.Errorf("list referrers: %w", err)
	}
	page, size := []json.RawMessage{}, 0
	var end, next digest.Digest
	for _, r := range list {
		from := digest.Digest(strings.TrimPrefix(r.Key, prefix))
		entry, err := c.referrer(ctx, name, from, dgst, artifactType)
		if err != nil {
			return oci.Manifest{}, "", err
		}
		if entry == nil {
			continue
		}
		if size += len(entry) + 1; size > maxReferrers && len(page) > 0 {
			next = end
			break
		}
		page, end = append(page, entry), from
	}
	body, err := json.Marshal(struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}{2, oci.MediaTypeIndex, page})
	if err != nil {
		return oci.Manifest{}, "", fmt.Errorf("encode referrers: %w", err)
	}
	oci.AccessOf(ctx).Outcome = oci.OutcomeHit
	return oci.Manifest{
		Descriptor: oci.Descriptor{MediaType: oci.MediaTypeIndex, Digest: digest.FromBytes(body), Size: int64(len(body))},
		Bytes:      body,
	}, next, nil
}

// referrer gives the entry of one that may refer to subject; nil when it does
// not, or is not of the type that was asked for.
func (c *Central) referrer(ctx context.Context, name oci.Name, dgst, subject digest.Digest, artifactType string) (json.RawMessage, error) {
	rec, _, found, err := read[manifestRecord](ctx, c.ledger, manifestKey(name.Repository, dgst))
	if err != nil {
		return nil, fmt.Errorf("read referrer: %w", err)
	}
	if !found || rec.Subject != subject || artifactType != "" && rec.ArtifactType != artifactType {
		return nil, nil
	}
	content, err := c.readContent(dgst, rec.Size)
	if errors.Is(err, oci.ErrBlobUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	doc, err := oci.ParseDocument(content, rec.MediaType)
	if err != nil {
		return nil, fmt.Errorf("read referrer: %w", err)
	}
	if string(doc.Annotations) == "null" {
		doc.Annotations = nil
	}
	return json.Marshal(referrer{rec.MediaType, dgst, rec.Size, rec.ArtifactType, doc.Annotations})
}
