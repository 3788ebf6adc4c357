package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// Resolve asks what ref names, by HEAD. A HEAD that is not allowed, or that
// lacks the digest, the length or the type, is followed by one GET on the same
// endpoint; the manifest is then at hand for a Manifest call that follows at
// once.
//
// It fails as Manifest does.
func (c *Client) Resolve(ctx context.Context, ref oci.Reference) (oci.Descriptor, error) {
	ctx, patience := c.patience(ctx)
	defer patience.done()
	var desc oci.Descriptor
	err := c.ask(ctx, ref.Name, kindManifest, func(ctx context.Context, a *attempt) error {
		resp, err := c.send(ctx, a, question{method: http.MethodHead, path: manifestPath(ref), accept: acceptManifests})
		if err != nil && !headRefused(err) {
			return err
		}
		if err == nil {
			var complete bool
			if desc, complete = headDescriptor(ref, resp); complete {
				a.ticket.success()
				return nil
			}
		}
		m, err := c.getManifest(ctx, a, ref)
		if err != nil {
			return err
		}
		c.fetched.put(oci.ApproachOf(ctx), ref, m, a.way)
		desc = m.Descriptor
		return nil
	})
	if err != nil {
		return oci.Descriptor{}, err
	}
	return desc, nil
}

// Manifest fetches the image manifest or index ref names: its exact bytes, with
// the media type the upstream gave, checked against ref's digest and the one
// the upstream announced.
//
// It fails with oci.ErrManifestUnknown, oci.ErrManifestInvalid (larger than
// oci.MaxManifestSize, or no manifest), oci.ErrDigestInvalid, oci.ErrUnauthorized
// and oci.ErrDenied, oci.ErrTooManyRequests with a RetryAfter, or
// oci.ErrUnavailable with a Reason; when ctx ended, with its error.
func (c *Client) Manifest(ctx context.Context, ref oci.Reference) (oci.Manifest, error) {
	if m, ok := c.fetched.take(oci.ApproachOf(ctx), ref); ok {
		return m, nil
	}
	ctx, patience := c.patience(ctx)
	defer patience.done()
	var m oci.Manifest
	err := c.ask(ctx, ref.Name, kindManifest, func(ctx context.Context, a *attempt) (err error) {
		m, err = c.getManifest(ctx, a, ref)
		return err
	})
	if err != nil {
		return oci.Manifest{}, err
	}
	return m, nil
}

// getManifest asks one endpoint.
func (c *Client) getManifest(ctx context.Context, a *attempt, ref oci.Reference) (oci.Manifest, error) {
	resp, err := c.send(ctx, a, question{method: http.MethodGet, path: manifestPath(ref), accept: acceptManifests})
	if err != nil {
		return oci.Manifest{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	content, err := readManifest(resp)
	if err != nil {
		return oci.Manifest{}, err
	}
	mediaType, ok := manifestType(resp.Header.Get("Content-Type"), content)
	if !ok {
		return oci.Manifest{}, invalid(oci.ErrManifestInvalid, resp, "what it sent is no image manifest")
	}
	dgst := digest.FromBytes(content)
	if announced, err := oci.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
		if dgst = announced.Algorithm().FromBytes(content); dgst != announced {
			return oci.Manifest{}, invalid(oci.ErrDigestInvalid, resp, "the image manifest does not match the digest announced with it")
		}
	}
	if ref.Digest != "" {
		if dgst = ref.Digest.Algorithm().FromBytes(content); dgst != ref.Digest {
			return oci.Manifest{}, invalid(oci.ErrDigestInvalid, resp, "the image manifest does not match the digest asked for")
		}
	}
	return oci.Manifest{
		Descriptor: oci.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(content))},
		Bytes:      content,
	}, nil
}

// readManifest reads a bounded body whole.
func readManifest(resp *http.Response) ([]byte, error) {
	tooLarge := invalid(oci.ErrManifestInvalid, resp, "the image manifest is larger than 4 MiB")
	if resp.ContentLength > oci.MaxManifestSize {
		return nil, tooLarge
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, oci.MaxManifestSize+1))
	if err != nil {
		return nil, err
	}
	if len(content) > oci.MaxManifestSize {
		return nil, tooLarge
	}
	return content, nil
}

// invalid is a failure of content: the endpoint works, but not for this.
func invalid(kind *oci.Error, resp *http.Response, text string) *failure {
	return &failure{err: oci.Errorf(kind, "%s: %s", resp.Request.URL.Host, text), status: resp.StatusCode}
}

// headDescriptor reads a descriptor from a HEAD answer; complete is false when
// it takes a GET to tell, or to find out which of two digests is right.
func headDescriptor(ref oci.Reference, resp *http.Response) (desc oci.Descriptor, complete bool) {
	desc = oci.Descriptor{MediaType: bareType(resp.Header.Get("Content-Type")), Digest: ref.Digest, Size: resp.ContentLength}
	if header := resp.Header.Get("Docker-Content-Digest"); header != "" {
		announced, err := oci.ParseDigest(header)
		if err != nil || ref.Digest != "" && announced != ref.Digest {
			return oci.Descriptor{}, false
		}
		desc.Digest = announced
	}
	complete = desc.Digest != "" && desc.Size > 0 && desc.Size <= oci.MaxManifestSize && oci.IsManifestType(desc.MediaType)
	return desc, complete
}

// manifestType gives the media type of a manifest: what the upstream said,
// letter for letter up to a parameter, if that is a manifest's type; else what
// the manifest says of itself, or what its fields make it. ok is false for what
// is no manifest.
func manifestType(contentType string, content []byte) (mediaType string, ok bool) {
	var fields struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(content, &fields); err != nil {
		// A field of another type than expected is still JSON.
		if _, isType := errors.AsType[*json.UnmarshalTypeError](err); !isType {
			return "", false
		}
	}
	said := bareType(contentType)
	switch {
	case oci.IsManifestType(said):
		return said, true
	case oci.IsManifestType(fields.MediaType), fields.MediaType != "" && fields.MediaType == said:
		return fields.MediaType, true
	case fields.MediaType != "":
		return "", false
	case isArray(fields.Manifests):
		return oci.MediaTypeIndex, true
	case isArray(fields.Layers) && fields.Config != nil:
		return oci.MediaTypeManifest, true
	}
	return "", false
}

func isArray(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '[' }

// bareType is a Content-Type without its parameters.
func bareType(contentType string) string {
	mediaType, _, _ := strings.Cut(contentType, ";")
	return strings.TrimSpace(mediaType)
}

func manifestPath(ref oci.Reference) string { return "manifests/" + ref.Target() }
