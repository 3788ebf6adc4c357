package registry

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// deliver answers with a blob or manifest, bent as f says.
func (a *answer) deliver(r *http.Request, f Fault, b Blob) {
	start, end, status := int64(0), b.Size(), http.StatusOK
	ranged := r.Header.Get("Range")
	if ranged != "" && !f.IgnoreRange && a.req.Kind != Manifests {
		var ok bool
		if start, end, ok = parseRange(ranged, b.Size()); !ok {
			a.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", b.Size()))
			a.fail(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		status = http.StatusPartialContent
	}
	length := max(end-start-f.Short, 0) + f.Long
	head(a.Header(), f, b)
	if a.req.Kind != Manifests {
		a.Header().Set("Accept-Ranges", "bytes")
	}
	if status == http.StatusPartialContent {
		setOrNone(a.Header(), "Content-Range", f.ContentRange, fmt.Sprintf("bytes %d-%d/%d", start, end-1, b.Size()))
		start += f.Shift
	}
	if !f.NoLength && !f.Gzip {
		a.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	}
	a.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if f.NoLength {
		a.flush() // before the body, so that net/http cannot count a small one
	}
	body := &body{answer: a, fault: f, gone: r.Context().Done(), at: f.At, blob: b, start: start, length: length}
	if body.at < 0 {
		body.at = max(length+f.At, 0)
	}
	if !body.send() {
		// What is on the way shall arrive before the connection breaks.
		a.flush()
		panic(http.ErrAbortHandler)
	}
}

// head sets the headers that say what the content is.
func head(h http.Header, f Fault, b Blob) {
	if !f.NoDigest {
		setOrNone(h, "Docker-Content-Digest", f.Digest, b.Digest.String())
	}
	setOrNone(h, "Content-Type", f.ContentType, b.MediaType)
	switch {
	case f.Gzip:
		h.Set("Content-Encoding", "gzip")
	case f.Encoding != "":
		h.Set("Content-Encoding", f.Encoding)
	}
}

// setOrNone sets a header to the fault's value if it has one, and leaves it
// out, even where net/http would guess it, if that is "none".
func setOrNone(h http.Header, key, fault, value string) {
	switch fault {
	case "":
		h.Set(key, value)
	case "none":
		h[key] = nil
	default:
		h.Set(key, fault)
	}
}

// body sends length bytes of blob from start on, with its fault.
type body struct {
	answer        *answer
	fault         Fault
	gone          <-chan struct{}
	blob          Blob
	start, length int64
	at            int64 // where the fault strikes
}

// send reports false when the connection is to be broken.
func (b *body) send() bool {
	var out io.Writer = b.answer
	if b.fault.Gzip {
		z := gzip.NewWriter(b.answer)
		defer z.Close()
		out = z
	}
	buf := make([]byte, 64<<10)
	for pos := int64(0); ; {
		if pos == b.at && !b.strike() {
			return false
		}
		if pos == b.length {
			return true
		}
		n := min(int64(len(buf)), b.length-pos)
		if pos < b.at {
			n = min(n, b.at-pos)
		}
		if b.fault.Rate > 0 {
			n = min(n, max(b.fault.Rate/20, 1))
			if !pause(time.Duration(float64(n)/float64(b.fault.Rate)*float64(time.Second)), b.gone) {
				return false
			}
		}
		b.read(buf[:n], pos)
		if _, err := out.Write(buf[:n]); err != nil {
			return false
		}
		if b.fault.Rate > 0 {
			b.answer.flush()
		}
		pos += n
	}
}

// read fills p with the body from pos on. Past the blob's end it is zeros.
func (b *body) read(p []byte, pos int64) {
	n, _ := b.blob.ReadAt(p, b.start+pos) // only the end of the content stops it
	clear(p[n:])
	if i := b.at - pos; b.fault.Flip && i >= 0 && i < int64(len(p)) {
		p[i] ^= 0xff
	}
}

// strike is called when the body has come to At. It reports false when the
// connection is to be broken.
func (b *body) strike() bool {
	f := b.fault
	if f.Gate != nil {
		b.answer.flush()
		if !f.Gate.pass(b.gone) {
			return false
		}
	}
	if f.Stall {
		b.answer.flush()
		select {
		case <-b.gone:
		case <-b.answer.healed:
		}
		return false
	}
	return !f.Cut
}

// parseRange reads a Range of one span (RFC 9110 section 14.1.2). end is
// exclusive. ok is false when it cannot be satisfied or read.
func parseRange(header string, size int64) (start, end int64, ok bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	if !ok {
		return 0, 0, false
	}
	if first == "" {
		n, err := strconv.ParseInt(last, 10, 64)
		return max(size-n, 0), size, err == nil && n > 0
	}
	start, err := strconv.ParseInt(first, 10, 64)
	if err != nil || start >= size {
		return 0, 0, false
	}
	if last == "" {
		return start, size, true
	}
	end, err = strconv.ParseInt(last, 10, 64)
	if err != nil || end < start {
		return 0, 0, false
	}
	return start, min(end+1, size), true
}
