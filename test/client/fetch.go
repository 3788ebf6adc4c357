package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// manifestTypes is what containerd accepts for a tag.
const manifestTypes = "application/vnd.docker.distribution.manifest.v2+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.oci.image.index.v1+json, */*"

// maxStuck is how many attempts in a row may bring no byte before a blob is
// given up.
const maxStuck = 3

// resolve asks what the reference is. An answer without digest or length is
// completed by fetching and hashing the manifest, as containerd does.
func (p *pull) resolve(ctx context.Context) (desc oci.Descriptor, err error) {
	o := Object{Kind: "resolve"}
	start := time.Now()
	r := request{method: http.MethodHead, endpoint: "manifests", target: p.ref.Target(), accept: manifestTypes}
	defer func() {
		o.Descriptor, o.Total = desc, time.Since(start)
		p.note(o)
	}()
	resp, host, err := p.do(ctx, r, &o.Requests)
	if err != nil {
		return oci.Descriptor{}, fmt.Errorf("resolve: %w", err)
	}
	o.First, o.Host = time.Since(start), host.URL
	resp.Body.Close()
	desc = descriptorOf(resp)
	if desc.Digest == "" || desc.Size < 0 {
		r.method = http.MethodGet
		if resp, err = p.ask(ctx, host, r, true, &o.Requests); err != nil {
			return oci.Descriptor{}, fmt.Errorf("resolve: %w", err)
		}
		body, err := readManifest(resp)
		o.Bytes = int64(len(body))
		if err != nil {
			return oci.Descriptor{}, fmt.Errorf("resolve: %w", err)
		}
		desc = descriptorOf(resp)
		desc.Digest, desc.Size = digest.FromBytes(body), int64(len(body))
	}
	if p.ref.Digest != "" && desc.Digest != p.ref.Digest {
		return oci.Descriptor{}, fmt.Errorf("resolve: %s says it is %s", host.URL, desc.Digest)
	}
	if err := desc.Digest.Validate(); err != nil {
		return oci.Descriptor{}, fmt.Errorf("resolve: %s: %w", host.URL, err)
	}
	if desc.Size == 0 {
		return oci.Descriptor{}, fmt.Errorf("resolve: %s says it is empty", host.URL)
	}
	return desc, nil
}

// descriptorOf reads the descriptor an answer's header states; Size is -1 and
// Digest empty where it does not.
func descriptorOf(resp *http.Response) oci.Descriptor {
	mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return oci.Descriptor{
		MediaType: strings.TrimSpace(mediaType),
		Digest:    digest.Digest(resp.Header.Get("Docker-Content-Digest")),
		Size:      resp.ContentLength,
	}
}

// manifest fetches desc's bytes, checks them, and parses them into m.
func (p *pull) manifest(ctx context.Context, kind string, desc oci.Descriptor, m *index) (err error) {
	o := Object{Kind: kind, Descriptor: desc}
	start := time.Now()
	defer func() {
		o.Total = time.Since(start)
		p.note(o)
	}()
	resp, host, err := p.do(ctx, request{
		method:   http.MethodGet,
		endpoint: "manifests",
		target:   desc.Digest.String(),
		accept:   desc.MediaType + ", */*",
	}, &o.Requests)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", kind, err)
	}
	o.First, o.Host = time.Since(start), host.URL
	body, err := readManifest(resp)
	o.Bytes = int64(len(body))
	if err != nil {
		return fmt.Errorf("fetch %s: %w", kind, err)
	}
	if got := descriptorOf(resp); got.MediaType != desc.MediaType {
		return fmt.Errorf("fetch %s: %s says it is %q, not %q", kind, host.URL, got.MediaType, desc.MediaType)
	}
	if int64(len(body)) != desc.Size {
		return fmt.Errorf("fetch %s: %s sent %d bytes of %d", kind, host.URL, len(body), desc.Size)
	}
	if got := desc.Digest.Algorithm().FromBytes(body); got != desc.Digest {
		return fmt.Errorf("fetch %s: %s sent %s for %s", kind, host.URL, got, desc.Digest)
	}
	if err := json.Unmarshal(body, m); err != nil {
		return fmt.Errorf("parse %s: %w", kind, err)
	}
	return nil
}

// readManifest reads and closes an answer's body, which must be bounded and not
// encoded.
func readManifest(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	if enc := resp.Header.Get("Content-Encoding"); enc != "" {
		return nil, fmt.Errorf("body is encoded: %s", enc)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, oci.MaxManifestSize+1))
	if err != nil {
		return body, fmt.Errorf("read body: %w", err)
	}
	if len(body) > oci.MaxManifestSize {
		return body, errors.New("body is larger than a manifest may be")
	}
	return body, nil
}

// blob fetches desc and checks every byte, resuming after a cut connection from
// the start of the host list. Like containerd it takes only an unexpected end
// for a cut; a body that ends early but cleanly, or is wrong, fails the pull.
func (p *pull) blob(ctx context.Context, kind string, desc oci.Descriptor) (err error) {
	o := Object{Kind: kind, Descriptor: desc}
	start := time.Now()
	defer func() {
		o.Total = time.Since(start)
		p.note(o)
		if err != nil {
			err = fmt.Errorf("fetch %s %s: %w", kind, desc.Digest, err)
		}
	}()
	if err := desc.Digest.Validate(); err != nil {
		return err
	}
	sum := desc.Digest.Algorithm().Hash()
	stuck := 0
	for offset := int64(0); ; {
		resp, host, err := p.do(ctx, request{
			method:   http.MethodGet,
			endpoint: "blobs",
			target:   desc.Digest.String(),
			accept:   desc.MediaType + ", */*",
			offset:   offset,
		}, &o.Requests)
		if err != nil {
			return err
		}
		o.Host = host.URL
		n, err := p.body(resp, offset, desc.Size, sum, &o, start)
		offset += n
		if n > 0 {
			stuck = 0
		} else if stuck++; stuck > maxStuck {
			return fmt.Errorf("no progress at byte %d: %w", offset, err)
		}
		if err == nil && offset < desc.Size {
			return fmt.Errorf("%s ended the body cleanly at byte %d of %d", host.URL, offset, desc.Size)
		}
		if offset == desc.Size {
			break
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
	}
	if p.unchecked {
		return nil
	}
	if got := digest.NewDigest(desc.Digest.Algorithm(), sum); got != desc.Digest {
		return fmt.Errorf("%s sent %s", o.Host, got)
	}
	return nil
}

// body hashes one answer's body from offset on, closes it, and returns how many
// new bytes it held. It fails when the body runs past size.
func (p *pull) body(resp *http.Response, offset, size int64, sum hash.Hash, o *Object, start time.Time) (int64, error) {
	defer resp.Body.Close()
	if enc := resp.Header.Get("Content-Encoding"); enc != "" {
		return 0, fmt.Errorf("%s encoded the body: %s", o.Host, enc)
	}
	var skip int64
	switch resp.StatusCode {
	case http.StatusPartialContent:
		want := fmt.Sprintf("bytes %d-%d/%d", offset, size-1, size)
		if got := resp.Header.Get("Content-Range"); got != want {
			return 0, fmt.Errorf("%s sent %q for %q", o.Host, got, want)
		}
	default:
		skip = offset // Range ignored: the beginning comes again
	}
	buf := make([]byte, 128<<10)
	var fresh int64
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 && o.Bytes == 0 {
			o.First = time.Since(start)
		}
		o.Bytes += int64(n)
		drop := min(skip, int64(n))
		skip -= drop
		if !p.unchecked {
			sum.Write(buf[drop:n])
		}
		fresh += int64(n) - drop
		if offset+fresh > size {
			return fresh, fmt.Errorf("%s sent more than %d bytes", o.Host, size)
		}
		switch {
		case err == io.EOF:
			return fresh, nil
		case err != nil:
			return fresh, err
		}
	}
}
