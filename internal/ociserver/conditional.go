package ociserver

import (
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// etag is the entity tag of content: its digest, a strong one.
func etag(dgst digest.Digest) string { return `"` + dgst.String() + `"` }

// notModified reports whether the client already holds the content (RFC 9110
// section 13.1.2). Only a client that says so gets a 304: containerd, which
// never does, fails the whole pull on one.
func notModified(r *http.Request, dgst digest.Digest) bool {
	if dgst == "" {
		return false
	}
	for _, line := range r.Header.Values("If-None-Match") {
		for tag := range strings.SplitSeq(line, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == etag(dgst) {
				return true
			}
		}
	}
	return false
}

// askedRange gives the Range header to honour: none on anything but GET, and
// none when If-Range names other content (RFC 9110 sections 14.2 and 13.1.5).
// A date in If-Range is other content, since nothing here has one.
func askedRange(r *http.Request, dgst digest.Digest) string {
	if r.Method != http.MethodGet {
		return ""
	}
	if condition := r.Header.Get("If-Range"); condition != "" && condition != etag(dgst) {
		return ""
	}
	return r.Header.Get("Range")
}

// sendNotModified answers 304, which has no body and describes none.
func (x *exchange) sendNotModified() {
	header := x.w.Header()
	header.Del("Content-Length")
	header.Del("Content-Type")
	x.w.WriteHeader(http.StatusNotModified)
}
