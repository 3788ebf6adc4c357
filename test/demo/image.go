package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// layers are the layers' sizes in MiB; the first is shared by both platforms,
// the others each platform has of its own.
var layers = map[string][]int64{
	"amd64": {8, 96, 64, 36, 4},
	"arm64": {8, 12, 4},
}

// image is one that was pushed.
type image struct {
	ref oci.Reference
	// size is what a client of one platform has to fetch: index, image
	// manifest, config, layers. In bytes, by architecture.
	size map[string]int64
}

// descriptor is the wire form of an oci.Descriptor.
type descriptor struct {
	MediaType string            `json:"mediaType"`
	Digest    digest.Digest     `json:"digest"`
	Size      int64             `json:"size"`
	Platform  map[string]string `json:"platform,omitempty"`
}

// pusher puts images into a registry over the distribution API.
type pusher struct {
	url  string // scheme and authority
	name oci.Name
}

// push makes an image of both platforms and pushes it under tag. Content is
// random to whoever does not know seed, so it does not compress, and the same
// on every run.
func (p *pusher) push(ctx context.Context, tag string, seed uint64) (image, error) {
	img := image{
		ref:  oci.Reference{Name: p.name, Tag: tag},
		size: map[string]int64{},
	}
	var index struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
	index.SchemaVersion, index.MediaType = 2, typeIndex
	for i, arch := range []string{"amd64", "arm64"} {
		manifest, size, err := p.platform(ctx, arch, seed, uint64(i))
		if err != nil {
			return image{}, fmt.Errorf("push %s for %s: %w", img.ref, arch, err)
		}
		img.size[arch] = size
		index.Manifests = append(index.Manifests, manifest)
	}
	d, err := p.manifest(ctx, tag, typeIndex, index)
	if err != nil {
		return image{}, fmt.Errorf("push %s: %w", img.ref, err)
	}
	for arch := range img.size {
		img.size[arch] += d.Size
	}
	return img, nil
}

// platform pushes one platform's layers, config and image manifest, and returns
// what the index says of it and how many bytes it all is.
func (p *pusher) platform(ctx context.Context, arch string, seed, nth uint64) (descriptor, int64, error) {
	var manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
	manifest.SchemaVersion, manifest.MediaType = 2, typeManifest
	var diffs []string
	var size int64
	for i, mib := range layers[arch] {
		s := seed<<16 | nth<<8 | uint64(i)
		if i == 0 {
			s = seed << 16 // the shared one
		}
		tarSum := sha256.New()
		d, err := p.blob(ctx, typeLayer, func(w io.Writer) error {
			return writeLayer(w, tarSum, fmt.Sprintf("layer-%d", i), s, mib<<20)
		})
		if err != nil {
			return descriptor{}, 0, err
		}
		manifest.Layers = append(manifest.Layers, d)
		diffs = append(diffs, "sha256:"+hex.EncodeToString(tarSum.Sum(nil)))
		size += d.Size
	}
	config, err := json.Marshal(map[string]any{
		"architecture": arch,
		"os":           "linux",
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		return descriptor{}, 0, fmt.Errorf("encode config: %w", err)
	}
	manifest.Config, err = p.blob(ctx, typeConfig, func(w io.Writer) error {
		_, err := w.Write(config)
		return err
	})
	if err != nil {
		return descriptor{}, 0, err
	}
	d, err := p.manifest(ctx, "", typeManifest, manifest)
	if err != nil {
		return descriptor{}, 0, err
	}
	d.Platform = map[string]string{"os": "linux", "architecture": arch}
	return d, size + manifest.Config.Size + d.Size, nil
}

// writeLayer writes a gzipped tar of one file of random bytes, stored rather
// than compressed, and adds the tar's bytes to tarSum.
func writeLayer(w io.Writer, tarSum hash.Hash, name string, seed uint64, size int64) error {
	zw, err := gzip.NewWriterLevel(w, gzip.NoCompression)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(io.MultiWriter(zw, tarSum))
	if err := tw.WriteHeader(&tar.Header{
		Name: name, Mode: 0o644, Size: size, Format: tar.FormatUSTAR,
		ModTime: time.Unix(0, 0),
	}); err != nil {
		return err
	}
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{tw}, io.LimitReader(rand.NewChaCha8(key), size), make([]byte, 256<<10)); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return zw.Close()
}

// blob pushes what write writes: a streamed chunk, then the digest. The
// goroutine that writes ends when the request has read all or given up.
func (p *pusher) blob(ctx context.Context, mediaType string, write func(io.Writer) error) (descriptor, error) {
	resp, err := p.do(ctx, http.MethodPost, p.url+"/v2/"+p.name.Repository+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return descriptor{}, err
	}
	pr, pw := io.Pipe()
	defer pr.Close()
	sum, size := digest.SHA256.Digester(), int64(0)
	go func() { pw.CloseWithError(write(pw)) }()
	resp, err = p.do(ctx, http.MethodPatch, resp.Header.Get("Location"), "application/octet-stream",
		io.TeeReader(pr, io.MultiWriter(sum.Hash(), (*counter)(&size))), http.StatusAccepted)
	if err != nil {
		return descriptor{}, err
	}
	d := descriptor{MediaType: mediaType, Digest: sum.Digest(), Size: size}
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		return descriptor{}, fmt.Errorf("parse location: %w", err)
	}
	q := u.Query()
	q.Set("digest", d.Digest.String())
	u.RawQuery = q.Encode()
	_, err = p.do(ctx, http.MethodPut, u.String(), "", nil, http.StatusCreated)
	return d, err
}

// manifest pushes v as JSON under tag, or under its digest when tag is empty.
func (p *pusher) manifest(ctx context.Context, tag, mediaType string, v any) (descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, fmt.Errorf("encode manifest: %w", err)
	}
	d := descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if tag == "" {
		tag = d.Digest.String()
	}
	_, err = p.do(ctx, http.MethodPut, p.url+"/v2/"+p.name.Repository+"/manifests/"+tag, mediaType, bytes.NewReader(b), http.StatusCreated)
	return d, err
}

// do makes a request and demands want of the answer, whose body is drained.
func (p *pusher) do(ctx context.Context, method, to, contentType string, body io.Reader, want int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %s", method, req.URL.Path, resp.Status, text)
	}
	return resp, nil
}

// counter counts the bytes written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
