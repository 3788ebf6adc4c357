package conformance

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

const octets = "application/octet-stream"

// chunks are the offsets at which the content of the tests below is cut.
const third = 1024

// ways are all there are to push a blob. Each returns the last answer.
var ways = []struct {
	name string
	push func(r *registry, path string, content []byte, dgst string) answer
}{
	{"end-4b: POST with the content", func(r *registry, path string, content []byte, dgst string) answer {
		return r.do("POST", path+"?digest="+dgst, content, "Content-Type", octets)
	}},
	{"end-4a, end-6: POST, then PUT with the content", func(r *registry, path string, content []byte, dgst string) answer {
		a := r.do("POST", path, nil).want(202)
		return r.do("PUT", a.location("digest", dgst), content, "Content-Type", octets)
	}},
	{"end-5: one streamed PATCH, without length and range", func(r *registry, path string, content []byte, dgst string) answer {
		a := r.do("POST", path, nil).want(202)
		a = r.stream("PATCH", a.location(), content, "Content-Type", octets).want(202, "Range", rangeOf(len(content)))
		return r.do("PUT", a.location("digest", dgst), nil)
	}},
	{"end-5: chunks, the PUT empty", func(r *registry, path string, content []byte, dgst string) answer {
		a := r.do("POST", path, nil).want(202)
		for start := 0; start < len(content); start += third {
			a = r.chunk("PATCH", a.location(), content, start, min(start+third, len(content)))
			a.want(202, "Range", rangeOf(min(start+third, len(content))), "Location", "*")
		}
		return r.do("PUT", a.location("digest", dgst), nil)
	}},
	{"end-5, end-6: chunks, the last in the PUT", func(r *registry, path string, content []byte, dgst string) answer {
		a := r.do("POST", path, nil).want(202)
		start := 0
		for ; start+third < len(content); start += third {
			a = r.chunk("PATCH", a.location(), content, start, start+third).want(202)
		}
		if start == len(content) {
			return r.do("PUT", a.location("digest", dgst), nil)
		}
		return r.chunk("PUT", a.location("digest", dgst), content, start, len(content))
	}},
}

// chunk sends content[start:end] as a chunk.
func (r *registry) chunk(method, target string, content []byte, start, end int) answer {
	r.t.Helper()
	return r.do(method, target, content[start:end], "Content-Type", octets, "Content-Range", fmt.Sprintf("%d-%d", start, end-1))
}

// rangeOf is the Range header of an upload of n bytes.
func rangeOf(n int) string { return fmt.Sprintf("0-%d", max(n-1, 0)) }

func TestPushBlob(t *testing.T) {
	contents := map[string][]byte{
		"empty": {}, "empty JSON": []byte("{}"), "half a chunk": random("small", 512), "three chunks": random("chunks", 3*third-5), "exact chunks": random("exact", 2*third),
	}
	registry := startCentral(t)
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		for i, way := range ways {
			for name, content := range contents {
				t.Run(fmt.Sprintf("%s/%s/%s", algorithm, way.name, name), func(t *testing.T) {
					r := registry.in(t)
					dgst := algorithm.FromBytes(content)
					repository := fmt.Sprintf("/v2/way%d/%s", i, strings.ReplaceAll(strings.ToLower(name), " ", "-"))
					path := repository + "/blobs/" + string(dgst)
					r.do("GET", path, nil).refused(404, "BLOB_UNKNOWN")
					r.do("HEAD", path, nil).want(404)
					a := way.push(r, repository+"/blobs/uploads/", content, string(dgst)).
						want(201, "Docker-Content-Digest", string(dgst))
					// The Location is where the blob can be had.
					r.do("GET", a.location(), nil).want(200).is(content)
					length := strconv.Itoa(len(content))
					r.do("GET", path, nil).want(200, "Docker-Content-Digest", string(dgst), "Content-Length", length, "Content-Type", octets).is(content)
					r.do("HEAD", path, nil).want(200, "Docker-Content-Digest", string(dgst), "Content-Length", length).is(nil)
					// Not in another repository.
					r.do("HEAD", "/v2/team/other/blobs/"+string(dgst), nil).want(404)
					// It can be pushed again.
					way.push(r, repository+"/blobs/uploads/", content, string(dgst)).want(201)
					r.do("DELETE", path, nil).want(202)
					r.do("HEAD", path, nil).want(404)
					r.do("GET", path, nil).refused(404, "BLOB_UNKNOWN")
					r.do("DELETE", path, nil).refused(404, "BLOB_UNKNOWN")
				})
			}
		}
	}
}

func TestPushBlobOfAnotherDigest(t *testing.T) {
	r := startCentral(t)
	content := random("wrong", 3*third-5)
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		dgst := algorithm.FromString("something else")
		for _, way := range ways {
			t.Run(fmt.Sprintf("%s/%s", algorithm, way.name), func(t *testing.T) {
				r := r.in(t)
				way.push(r, "/v2/team/app/blobs/uploads/", content, string(dgst)).refused(400, "DIGEST_INVALID")
				r.do("HEAD", "/v2/team/app/blobs/"+string(dgst), nil).want(404)
				r.do("HEAD", "/v2/team/app/blobs/"+string(algorithm.FromBytes(content)), nil).want(404)
			})
		}
	}
}

func TestDigestParameter(t *testing.T) {
	r := startCentral(t)
	for _, bad := range []string{"", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:" + string(bytes.Repeat([]byte("A"), 64)), "x"} {
		a := r.do("POST", "/v2/team/app/blobs/uploads/", nil).want(202)
		r.do("PUT", a.location("digest", bad), []byte("x")).refused(400, "DIGEST_INVALID")
		if bad != "" {
			r.do("POST", "/v2/team/app/blobs/uploads/?digest="+bad, []byte("x")).refused(400, "DIGEST_INVALID")
		}
	}
	r.do("POST", "/v2/team/app/blobs/uploads/?digest-algorithm=md5", nil).refused(400, "DIGEST_INVALID")
	// An algorithm that is announced, and one that turns out to be another.
	content := random("announced", 2*third)
	for _, dgst := range []digest.Digest{digest.SHA256.FromBytes(content), digest.SHA512.FromBytes(content)} {
		a := r.do("POST", "/v2/team/app/blobs/uploads/?digest-algorithm=sha512", nil).want(202)
		a = r.stream("PATCH", a.location(), content).want(202)
		r.do("PUT", a.location("digest", string(dgst)), nil).want(201)
		r.do("GET", "/v2/team/app/blobs/"+string(dgst), nil).want(200).is(content)
	}
}

// TestChunksInOrder is end-5's 416, and how a client goes on after it (end-13).
func TestChunksInOrder(t *testing.T) {
	content := random("order", 3*third-5)
	dgst := string(digest.FromBytes(content))
	for _, last := range []string{"PATCH", "PUT"} {
		t.Run("the last chunk by "+last, func(t *testing.T) {
			r := startCentral(t)
			a := r.do("POST", "/v2/team/app/blobs/uploads/", nil).want(202, "Range", "0-0")
			first := a.location()
			for start := 0; start < len(content); start += third {
				end := min(start+third, len(content))
				bad := start + third
				if bad >= len(content) {
					bad = 0
				}
				method, target := "PATCH", a.location()
				if last == "PUT" && end == len(content) {
					method, target = "PUT", a.location("digest", dgst)
				}
				r.chunk(method, target, content, bad, min(bad+third, len(content))).
					refused(416, "RANGE_INVALID").want(416, "Range", rangeOf(start), "Location", "*")
				// Both the latest and the first Location tell where it stands.
				for _, at := range []string{target, first} {
					r.do("GET", at, nil).want(204, "Range", rangeOf(start), "Location", "*")
				}
				a = r.chunk(method, target, content, start, end)
			}
			if last == "PATCH" {
				a = r.do("PUT", a.want(202).location("digest", dgst), nil)
			}
			r.do("GET", a.want(201).location(), nil).want(200).is(content)
		})
	}
}

func TestContentRange(t *testing.T) {
	r := startCentral(t)
	content := random("range", 100)
	a := r.do("POST", "/v2/team/app/blobs/uploads/", nil).want(202)
	for _, bad := range []string{"x", "0", "-", "0-", "-99", "99-0", "+0-99", "0-99-", "0 - 99", "99999999999999999999-99999999999999999999", "0-9223372036854775807"} {
		r.do("PATCH", a.location(), content, "Content-Range", bad).want(416)
	}
	r.do("PATCH", a.location(), content, "Content-Range", "0-98").refused(400, "SIZE_INVALID")
	r.stream("PATCH", a.location(), content, "Content-Range", "0-98").refused(400, "SIZE_INVALID")
	r.stream("PATCH", a.location(), content, "Content-Range", "0-100").refused(400, "SIZE_INVALID")
	r.do("GET", a.location(), nil).want(204, "Range", "0-0")
	r.stream("PATCH", a.location(), content, "Content-Range", "0-99").want(202, "Range", "0-99")
	r.do("PATCH", a.location(), content, "Content-Range", "bytes 100-199/*").want(202, "Range", "0-199")
	both := append(bytes.Clone(content), content...)
	r.do("PUT", a.location("digest", string(digest.FromBytes(both))), nil).want(201)
}

// TestUploadsEnd is that an upload is one of its repository, and is not any more
// once it is cancelled or a blob.
func TestUploadsEnd(t *testing.T) {
	r := startCentral(t)
	content := random("end", 100)
	dgst := string(digest.FromBytes(content))
	gone := func(location string) {
		t.Helper()
		r.do("GET", location, nil).refused(404, "BLOB_UPLOAD_UNKNOWN")
		r.do("PATCH", location, content).refused(404, "BLOB_UPLOAD_UNKNOWN")
		r.do("PUT", location+"?digest="+dgst, content).refused(404, "BLOB_UPLOAD_UNKNOWN")
		r.do("DELETE", location, nil).refused(404, "BLOB_UPLOAD_UNKNOWN")
	}
	a := r.do("POST", "/v2/team/app/blobs/uploads/", nil).want(202, "Content-Length", "0")
	r.do("PATCH", a.location(), content).want(202)
	r.do("DELETE", a.location(), nil).want(204)
	gone(a.location())

	a = r.do("POST", "/v2/team/app/blobs/uploads/", nil).want(202)
	r.do("PUT", a.location("digest", dgst), content).want(201)
	gone(a.location())

	a = r.do("POST", "/v2/team/app/blobs/uploads/", nil).want(202)
	gone("/v2/team/other/blobs/uploads/" + a.header.Get("Docker-Upload-UUID"))
	gone("/v2/team/app/blobs/uploads/NEVERSTARTED")
	gone("/v2/team/app/blobs/uploads/not-an-id")
	r.do("GET", "/v2/team/app/blobs/uploads/..%2F..%2Findex", nil).refused(400, "NAME_INVALID")
	r.do("GET", a.location(), nil).want(204)
}

// TestMount is end-11.
func TestMount(t *testing.T) {
	r := startCentral(t)
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		content := random("mount"+string(algorithm), 1000)
		dgst := string(algorithm.FromBytes(content))
		target := "/v2/team/app/blobs/uploads/?mount=" + dgst
		// Nobody has it: an upload, which goes on as any.
		for _, from := range []string{"", "&from=team/source", "&from=NO!", "&from=never/seen"} {
			a := r.do("POST", target+from, nil).want(202, "Range", "0-0")
			if from == "" {
				r.do("PUT", a.location("digest", dgst), content).want(201)
				r.do("DELETE", "/v2/team/app/blobs/"+dgst, nil).want(202)
			}
		}
		r.do("POST", "/v2/team/source/blobs/uploads/?digest="+dgst, content).want(201)
		for _, from := range []string{"&from=team/source", ""} {
			a := r.do("POST", target+from, nil).want(201, "Docker-Content-Digest", dgst)
			r.do("GET", a.location(), nil).want(200).is(content)
			r.do("DELETE", "/v2/team/app/blobs/"+dgst, nil).want(202)
		}
		r.do("POST", target+"&from=team/other", nil).want(202)
		r.do("POST", "/v2/team/app/blobs/uploads/?mount=nonsense&from=team/source", nil).want(202)
		// What is gone at the source stays where it was mounted.
		r.do("POST", target, nil).want(201)
		r.do("DELETE", "/v2/team/source/blobs/"+dgst, nil).want(202)
		r.do("GET", "/v2/team/app/blobs/"+dgst, nil).want(200).is(content)
	}
}

func TestNames(t *testing.T) {
	r := startCentral(t)
	for _, bad := range []string{"UPPER", "a//b", "a/", "-a", "a-", "a..b", "a/%2E%2E/b", "ünï", "a%2Fb", "%00", "_a", string(bytes.Repeat([]byte("a"), 256))} {
		r.do("POST", "/v2/"+bad+"/blobs/uploads/", nil).refused(400, "NAME_INVALID")
		r.do("GET", "/v2/"+bad+"/tags/list", nil).refused(400, "NAME_INVALID")
	}
	for _, good := range []string{"a", "a/b/c/d/e/f/g/h/i/j", "a.b_c__d-e---f/0", "blobs/uploads", "manifests", "f/x", string(bytes.Repeat([]byte("a"), 255))} {
		r.put(good, "v1", r.image(good, good)).want(201)
		r.do("GET", "/v2/"+good+"/tags/list", nil).want(200)
	}
	// Under the names of other registries nothing can be planted.
	for _, foreign := range []string{"f/docker.io/library/nginx", "f/localhost/x", "f/10.0.0.1:5000/x"} {
		a := r.do("POST", "/v2/"+foreign+"/blobs/uploads/", nil)
		if a.status < 400 || a.status > 499 {
			t.Errorf("an upload to %s is answered with %d", foreign, a.status)
		}
		r.do("PUT", "/v2/"+foreign+"/manifests/v1", []byte("{}"), "Content-Type", oci.MediaTypeManifest).refused(405, "UNSUPPORTED")
		r.do("GET", "/v2/"+foreign+"/manifests/v1", nil).refused(404, "NAME_UNKNOWN")
	}
	r.do("GET", "/v2/a/manifests/v1?ns=docker.io", nil).refused(404, "NAME_UNKNOWN")
	r.do("PUT", "/v2/a/manifests/v1?ns=docker.io", []byte("{}")).refused(405, "UNSUPPORTED")
}

func TestMethods(t *testing.T) {
	r := startCentral(t)
	dgst := string(digest.FromString("x"))
	for path, allow := range map[string]string{
		"/v2/": "GET, HEAD", "/v2/a/tags/list": "GET, HEAD", "/v2/_catalog": "GET, HEAD", "/v2/a/referrers/" + dgst: "GET, HEAD",
		"/v2/a/blobs/" + dgst: "GET, HEAD, DELETE", "/v2/a/manifests/x": "GET, HEAD, PUT, DELETE",
		"/v2/a/blobs/uploads/": "POST", "/v2/a/blobs/uploads/ABC": "GET, HEAD, PATCH, PUT, DELETE",
	} {
		r.do("REPORT", path, nil).refused(405, "UNSUPPORTED").want(405, "Allow", allow)
	}
	r.do("GET", "/v2/a/nothing/x", nil).refused(404, "NAME_UNKNOWN")
	r.do("GET", "/v1/", nil).refused(404, "NAME_UNKNOWN")
}
