package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// answer is the ResponseWriter of one request; it keeps the record.
type answer struct {
	http.ResponseWriter
	record *record
	req    *Request
	healed <-chan struct{} // closed when the request's fault is over
}

func (a *answer) WriteHeader(status int) {
	a.record.change(func() { a.req.Status = status })
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.req.Status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	n, err := a.ResponseWriter.Write(p)
	a.record.change(func() { a.req.Sent += int64(n) })
	return n, err
}

// flush sends what was written so far. It fails only when the client is gone,
// which the next Write finds out.
func (a *answer) flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() }

// fail answers with an error in the spec's form.
func (a *answer) fail(status int) { a.failWith(status, "") }

// failWith is fail with a message of its own.
func (a *answer) failWith(status int, message string) {
	code := map[int]string{
		http.StatusUnauthorized: "UNAUTHORIZED", http.StatusForbidden: "DENIED",
		http.StatusNotFound: "MANIFEST_UNKNOWN", http.StatusTooManyRequests: "TOOMANYREQUESTS",
	}[status]
	if code == "" {
		code = "UNKNOWN"
	}
	if a.req.Kind == Blobs && status == http.StatusNotFound {
		code = "BLOB_UNKNOWN"
	}
	a.Header().Set("Content-Type", "application/json")
	a.WriteHeader(status)
	if a.req.Method != http.MethodHead {
		if message == "" {
			message = http.StatusText(status)
		}
		_, _ = fmt.Fprintf(a, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
	}
}

// serve records a request, lets its fault have the answer, and else calls next.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, req Request, next func(*answer, Fault)) {
	req.Method, req.Path, req.Query = r.Method, r.URL.EscapedPath(), r.URL.RawQuery
	req.Header, req.Remote, req.Time = r.Header.Clone(), r.RemoteAddr, time.Now()
	seen := req // the fault's Match looks at a copy that nobody changes
	a := &answer{ResponseWriter: w, record: &s.record, req: &req}
	s.record.begin(&req)
	defer s.record.end(&req)

	latency, _ := s.shape.get()
	if !pause(latency, r.Context().Done()) {
		panic(http.ErrAbortHandler)
	}
	f, healed := s.fault(seen)
	a.healed = healed
	if f.Hold != nil && !f.Hold.pass(r.Context().Done()) {
		panic(http.ErrAbortHandler)
	}
	if f.Hang {
		select {
		case <-r.Context().Done():
		case <-healed:
		}
		panic(http.ErrAbortHandler)
	}
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	if f.RetryAfter != "" {
		a.Header().Set("Retry-After", f.RetryAfter)
	}
	if f.Status != 0 {
		a.fail(f.Status)
		return
	}
	if f.Location != "" {
		a.Header().Set("Location", f.Location)
		a.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	next(a, f)
}

// serveRegistry answers the distribution API, as far as pulls need it.
func (s *Server) serveRegistry(w http.ResponseWriter, r *http.Request) {
	if s.opts.TokenOnHost && r.URL.Path == "/token" {
		s.serveToken(w, r)
		return
	}
	req := parse(r.URL.Path)
	s.serve(w, r, req, func(a *answer, f Fault) {
		if refused := s.refuse(r, req.Repo); refused != nil {
			if refused.challenge != "" {
				a.Header().Set("WWW-Authenticate", refused.challenge)
			}
			a.failWith(refused.status, refused.message)
			return
		}
		if s.opts.ECR && r.Method == http.MethodGet {
			f.NoDigest = true
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			a.fail(http.StatusMethodNotAllowed)
			return
		}
		a.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		switch req.Kind {
		case Ping:
			a.WriteHeader(http.StatusOK)
		case Manifests:
			b, ok := s.manifest(req.Repo, req.Target)
			if !ok {
				a.fail(http.StatusNotFound)
				return
			}
			a.deliver(r, f, b)
		case Blobs:
			s.serveBlob(a, r, f, req)
		case TagLists:
			tags, ok := s.tagList(req.Repo)
			if !ok {
				a.fail(http.StatusNotFound)
				return
			}
			a.json("application/json", map[string]any{"name": req.Repo, "tags": tags})
		case Referrers:
			list := s.referrerList(req.Repo, req.Target)
			if list == nil {
				list = []descriptor{}
			}
			a.json(MediaTypeIndex, index{SchemaVersion: 2, MediaType: MediaTypeIndex, Manifests: list})
		default:
			a.fail(http.StatusNotFound)
		}
	})
}

func (s *Server) serveBlob(a *answer, r *http.Request, f Fault, req Request) {
	b, ok := s.blob(req.Repo, req.Target)
	if !ok {
		a.fail(http.StatusNotFound)
		return
	}
	if !s.opts.Storage {
		b.MediaType = "application/octet-stream"
		a.deliver(r, f, b)
		return
	}
	query := url.Values{"X-Amz-Credential": {"tester"}, "X-Amz-Signature": {s.sign(req.Target)}}
	a.Header().Set("Location", s.scheme()+"://"+s.StorageHost()+"/data/"+req.Target+"?"+query.Encode())
	a.WriteHeader(http.StatusTemporaryRedirect)
}

// serveStorage is the object storage behind the registry. It knows signed URLs
// and no digest header.
func (s *Server) serveStorage(w http.ResponseWriter, r *http.Request) {
	target := strings.TrimPrefix(r.URL.Path, "/data/")
	s.serve(w, r, Request{Kind: Storage, Target: target}, func(a *answer, f Fault) {
		b, ok := s.anyBlob(target)
		switch {
		case r.Header.Get("Authorization") != "":
			a.fail(http.StatusBadRequest) // S3: only one auth mechanism allowed
		case !ok || r.URL.Query().Get("X-Amz-Signature") != s.sign(target):
			a.fail(http.StatusForbidden)
		default:
			f.NoDigest = true
			b.MediaType = "binary/octet-stream"
			a.deliver(r, f, b)
		}
	})
}

// json sends v. The client may have gone, so its errors do not matter.
func (a *answer) json(mediaType string, v any) {
	a.Header().Set("Content-Type", mediaType)
	_ = json.NewEncoder(a).Encode(v)
}

// parse finds out what a path asks for.
func parse(path string) Request {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return Request{Kind: Other}
	}
	if rest == "" {
		return Request{Kind: Ping}
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 3 {
		return Request{Kind: Other}
	}
	repo, last := strings.Join(parts[:len(parts)-2], "/"), parts[len(parts)-1]
	switch parts[len(parts)-2] {
	case "manifests":
		return Request{Kind: Manifests, Repo: repo, Target: last}
	case "blobs":
		return Request{Kind: Blobs, Repo: repo, Target: last}
	case "referrers":
		return Request{Kind: Referrers, Repo: repo, Target: last}
	case "tags":
		return Request{Kind: TagLists, Repo: repo}
	}
	return Request{Kind: Other}
}
