package ociserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// start begins an upload (end-4a), takes a whole blob (end-4b), or mounts one
// (end-11). A mount that is not possible begins an upload, as the spec has it.
func (o *own) start(ctx context.Context, x *ownExchange) error {
	name := x.req.Name
	if x.req.Mount != "" {
		may := func(from oci.Name) bool { return x.subject.May(ctx, from.Repository, oci.ActionMount) }
		_, err := o.cfg.Writer.Mount(ctx, name, x.req.Mount, x.req.From, may)
		if err == nil {
			return x.created("blobs", x.req.Mount)
		}
		if !errors.Is(err, oci.ErrBlobUnknown) {
			return err
		}
	}
	algorithm := x.req.Algorithm
	if x.req.Content != "" {
		// A client that sends nothing along wants to know where to send it,
		// unless nothing is what it sends.
		if x.r.ContentLength != 0 || x.req.Content.Algorithm().FromBytes(nil) == x.req.Content {
			if _, err := o.cfg.Uploader.Push(ctx, name, x.body, x.req.Content); err != nil {
				return err
			}
			return x.created("blobs", x.req.Content)
		}
		algorithm = x.req.Content.Algorithm()
	}
	id, err := o.cfg.Uploader.Start(ctx, name, algorithm)
	if err != nil {
		return err
	}
	x.req.Upload = id
	return x.progress(http.StatusAccepted, 0)
}

// upload answers for an upload that was begun: its status (end-13), a chunk of
// it (end-5), the last chunk (end-6), or that it is not wanted any more.
func (o *own) upload(ctx context.Context, x *ownExchange) error {
	name, id := x.req.Name, x.req.Upload
	switch x.r.Method {
	case http.MethodDelete:
		if err := o.cfg.Uploader.Cancel(ctx, name, id); err != nil {
			return err
		}
		x.w.status = http.StatusNoContent
		return nil
	case http.MethodGet, http.MethodHead:
		size, err := o.cfg.Uploader.Size(ctx, name, id)
		if err != nil {
			return err
		}
		return x.progress(http.StatusNoContent, size)
	}
	chunk, err := x.chunk()
	if err != nil {
		return err
	}
	if x.r.Method == http.MethodPut {
		if _, err = o.cfg.Uploader.Finish(ctx, name, id, chunk, x.req.Content); err == nil {
			return x.created("blobs", x.req.Content)
		}
	} else {
		var size int64
		if size, err = o.cfg.Uploader.Append(ctx, name, id, chunk); err == nil {
			return x.progress(http.StatusAccepted, size)
		}
	}
	if errors.Is(err, oci.ErrRangeInvalid) {
		// Where to go on is part of the refusal.
		if size, sizeErr := o.cfg.Uploader.Size(ctx, name, id); sizeErr == nil {
			x.where(size)
		}
	}
	return err
}

// chunk describes the body of a request for an upload.
func (x *ownExchange) chunk() (oci.Chunk, error) {
	chunk := oci.Chunk{Body: x.body, At: -1, Length: x.r.ContentLength}
	header := x.r.Header.Get("Content-Range")
	if header == "" {
		return chunk, nil
	}
	start, end, err := parseContentRange(header)
	if err != nil {
		return chunk, err
	}
	if chunk.Length >= 0 && chunk.Length != end-start+1 {
		return chunk, oci.Errorf(oci.ErrSizeInvalid, "Content-Range speaks of %d bytes, Content-Length of %d", end-start+1, chunk.Length)
	}
	chunk.At, chunk.Length = start, end-start+1
	return chunk, nil
}

// parseContentRange reads where a chunk belongs. The spec has it as <start>-<end>
// (end-5); the form of RFC 9110, "bytes <start>-<end>/<size>", is taken too. It
// fails with ErrRangeInvalid.
func parseContentRange(header string) (start, end int64, err error) {
	rest := strings.TrimSpace(header)
	if len(rest) > 5 && strings.EqualFold(rest[:5], "bytes") {
		rest = strings.TrimLeft(rest[5:], " =")
	}
	rest, _, _ = strings.Cut(rest, "/")
	first, last, ok := strings.Cut(rest, "-")
	if !ok || !digits(first) || !digits(last) {
		return 0, 0, oci.Errorf(oci.ErrRangeInvalid, "Content-Range %.80q is not <start>-<end>", header)
	}
	start, startErr := strconv.ParseInt(first, 10, 64)
	end, endErr := strconv.ParseInt(last, 10, 64)
	if startErr != nil || endErr != nil || end < start || end == 1<<63-1 {
		return 0, 0, oci.Errorf(oci.ErrRangeInvalid, "Content-Range %.80q is not possible", header)
	}
	return start, end, nil
}

// digits reports whether s is a number without a sign.
func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// progress answers how far an upload has come.
func (x *ownExchange) progress(status int, size int64) error {
	x.where(size)
	if status != http.StatusNoContent { // which has no length (RFC 9110 section 8.6)
		x.w.Header().Set("Content-Length", "0")
	}
	x.w.status = status
	return nil
}

// where sets the headers that say where an upload goes on. An upload of nothing
// has the range 0-0, as Docker's registry has it: there is no other way to write
// it.
func (x *ownExchange) where(size int64) {
	header := x.w.Header()
	header.Set("Location", "/v2/"+x.req.Name.Repository+"/blobs/uploads/"+x.req.Upload)
	header.Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
	header.Set("Docker-Upload-UUID", x.req.Upload)
}

// created answers that something is there now, and where. The location has no
// host: behind a proxy only the client knows that.
func (x *ownExchange) created(kind string, dgst digest.Digest) error {
	header := x.w.Header()
	header.Set("Location", "/v2/"+x.req.Name.Repository+"/"+kind+"/"+string(dgst))
	header.Set("Docker-Content-Digest", string(dgst))
	header.Set("Content-Length", "0")
	x.w.status = http.StatusCreated
	return nil
}

// putManifest takes an image manifest (end-7).
func (o *own) putManifest(ctx context.Context, x *ownExchange) error {
	if x.r.ContentLength > oci.MaxManifestSize {
		return x.tooLarge()
	}
	content, err := io.ReadAll(io.LimitReader(x.body, oci.MaxManifestSize+1))
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	if len(content) > oci.MaxManifestSize {
		return x.tooLarge()
	}
	put := oci.ManifestPut{
		Name: x.req.Name, Digest: x.req.Reference.Digest, Tags: x.req.Tags,
		MediaType: x.r.Header.Get("Content-Type"), Bytes: content, By: x.subject.Name(),
	}
	if x.req.Reference.Tag != "" {
		put.Tags = []string{x.req.Reference.Tag}
	}
	stored, err := o.cfg.Writer.PutManifest(ctx, put)
	if err != nil {
		return err
	}
	if stored.Subject != "" {
		x.w.Header().Set("OCI-Subject", string(stored.Subject))
	}
	for _, tag := range x.req.Tags {
		x.w.Header().Add("OCI-Tag", tag)
	}
	return x.created("manifests", stored.Digest)
}

// tooLarge refuses a manifest by its size (spec, "Pushing Manifests": 413).
func (x *ownExchange) tooLarge() error {
	x.w.Header().Set("Connection", "close") // what else is coming is not read
	x.body.drain(x.r.ContentLength)
	err := oci.Errorf(oci.ErrSizeInvalid, "the manifest is larger than %d bytes", oci.MaxManifestSize)
	x.sendError(err, http.StatusRequestEntityTooLarge, err)
	return nil
}

// remove deletes an image manifest or a tag (end-9), or a blob (end-10).
func (o *own) remove(ctx context.Context, x *ownExchange) (err error) {
	switch {
	case x.req.Kind == oci.KindBlob:
		err = o.cfg.Writer.DeleteBlob(ctx, x.req.Name, x.req.Digest)
	case x.req.Reference.Digest != "":
		err = o.cfg.Writer.DeleteManifest(ctx, x.req.Name, x.req.Reference.Digest)
	default:
		err = o.cfg.Writer.DeleteTag(ctx, x.req.Name, x.req.Reference.Tag)
	}
	if err != nil {
		return err
	}
	x.w.Header().Set("Content-Length", "0")
	x.w.status = http.StatusAccepted
	return nil
}
