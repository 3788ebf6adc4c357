package admission

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/policy"
)

// Path is where reviews are sent to.
const Path = "/validate-image"

// Bounds on reviews, in bytes.
const (
	// maxReview is what a review may have. An API server takes objects of 3
	// MiB, and an update has two of them.
	maxReview = 8 << 20
	// largeReview is what needs one of few places, so that strangers who send
	// much at once do not fill the memory.
	largeReview = 256 << 10
	// maxLarge is how many of those there are at a time.
	maxLarge = 2
)

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// routes are reviews, and the health checks for the kubelet.
func (h *Handler) routes() {
	h.mux.HandleFunc("POST "+Path, h.review)
	h.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	h.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := h.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
}

// refusal is an error with the status it is answered with.
type refusal struct {
	status int
	err    error
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Errorf(format, args...)}
}

// review answers one review. What cannot be understood is answered with a
// status, and the API server does as the failurePolicy says: "denied" would be
// a verdict on what nobody looked at.
func (h *Handler) review(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	req, out, err := h.judge(w, r)
	if err != nil {
		status := http.StatusBadRequest
		if e, ok := errors.AsType[*refusal](err); ok {
			status = e.status
		}
		h.metrics.failed(time.Since(began))
		h.log.WithError(err).WithField("status", status).Warn("a review cannot be answered")
		http.Error(w, "larder: "+err.Error(), status)
		return
	}
	body, err := answer(out.response(req))
	if err != nil { // of strings: it cannot be
		h.metrics.failed(time.Since(began))
		h.log.WithError(err).Error("an answer cannot be encoded")
		http.Error(w, "larder: encode answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) //nolint:gosec // JSON to an API server; it fails only if that is gone
	h.metrics.answered(req, out, time.Since(began))
	h.verdicts.note(began, req, out)
	h.tell(req, out)
}

// judge reads a review and decides on it.
func (h *Handler) judge(w http.ResponseWriter, r *http.Request) (*request, outcome, error) {
	buf, ok := h.buffers.Get().(*buffers)
	if !ok {
		buf = &buffers{}
	}
	// Nothing that is decoded points into them.
	defer h.recycle(buf)
	done, err := h.read(w, r, &buf.body)
	defer done()
	if err != nil {
		return nil, outcome{}, err
	}
	if buf.lean, err = h.lean.Cut(buf.lean[:0], buf.body.Bytes()); err != nil {
		return nil, outcome{}, fmt.Errorf("read review: %w", err)
	}
	req, err := decode(buf.lean)
	if err != nil {
		return nil, outcome{}, err
	}
	out, err := decide(h.rules.Load(), req)
	return req, out, err
}

// buffers are what a review is read into; reviews are many and alike.
type buffers struct {
	body bytes.Buffer
	lean []byte
}

// recycle keeps buffers for another review, unless they are large.
func (h *Handler) recycle(b *buffers) {
	if b.body.Cap()+cap(b.lean) > largeReview {
		return
	}
	b.body.Reset()
	h.buffers.Put(b)
}

// read takes a body of a bounded size. done is to be called when the body is no
// longer needed.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, buf *bytes.Buffer) (done func(), err error) {
	done = func() {}
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return done, refuse(http.StatusUnsupportedMediaType, "read review: it is %.64q, not application/json", r.Header.Get("Content-Type"))
	}
	if r.ContentLength > maxReview {
		return done, tooLarge()
	}
	if r.ContentLength < 0 || r.ContentLength > largeReview {
		select {
		case h.large <- struct{}{}:
			done = func() { <-h.large }
		case <-r.Context().Done():
			return done, fmt.Errorf("read review: %w", r.Context().Err())
		}
	}
	buf.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead)
	_, err = buf.ReadFrom(http.MaxBytesReader(w, r.Body, maxReview))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return done, tooLarge()
	}
	if err != nil {
		return done, fmt.Errorf("read review: %w", err)
	}
	return done, nil
}

func tooLarge() error {
	return refuse(http.StatusRequestEntityTooLarge, "read review: it is longer than %d bytes", maxReview)
}

// maxLines bounds the log lines of one review.
const maxLines = 100

// tell logs each image that is denied, or would be.
func (h *Handler) tell(r *request, out outcome) {
	if len(out.bad) == 0 {
		return
	}
	for n, b := range out.bad {
		if n == maxLines {
			h.log.WithFields(logrus.Fields{
				"namespace": r.Namespace, "owner": out.owner, "images": len(out.bad) - n,
			}).Warn("more images of the same object, not listed")
			return
		}
		message := "image denied"
		if b.mode != policy.Enforce {
			message = "image would be denied"
		}
		h.log.WithFields(logrus.Fields{
			"namespace": r.Namespace,
			"resource":  r.Resource.Resource,
			"operation": r.Operation,
			"owner":     out.owner,
			"user":      cut(r.UserInfo.Username, maxShown),
			"image":     cut(b.ref, 2*maxShown),
			"field":     b.places[0],
			"rule":      b.verdict.Rule,
			"mode":      string(b.mode),
			"policy":    out.revision,
			"dry_run":   r.DryRun != nil && *r.DryRun,
		}).Warn(message)
	}
}
