package admin

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/larder-registry/larder/internal/status"
)

// The status page's own style and script. They are part of the page, and the
// only ones its policy lets a browser use.
var (
	//go:embed status.css
	statusStyle markup
	//go:embed status.js
	statusScript markup
)

// Status gives what the process says of itself, its lists as view has them. It
// is asked by every request and, while somebody watches, every two seconds: it
// must be cheap. The document is the caller's to change, but not what its lists
// hold.
type Status func(view status.View) *status.Document

// statusPages serve the status page, in three forms:
//
//	/status         for people; / leads there
//	/status.json    for programs; docs/status.md describes it
//	/status/events  what of the page has changed, for its script
type statusPages struct {
	ask      Status
	policy   string
	watchers chan struct{} // one for each that there may be
}

// maxWatchers bounds who is told of changes at a time.
const maxWatchers = 16

func (p *statusPages) register(mux *http.ServeMux) {
	p.policy = "default-src 'none'; style-src " + hashOf(statusStyle) + "; script-src " + hashOf(statusScript) +
		"; img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	p.watchers = make(chan struct{}, maxWatchers)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "status", http.StatusFound)
	})
	mux.HandleFunc("GET /status", p.page)
	mux.HandleFunc("GET /status.json", p.json)
	mux.HandleFunc("GET /status/events", p.events)
}

// hashOf names a script or style in a Content-Security-Policy (CSP level 3,
// section 2.3.1).
func hashOf(text markup) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// begin sets what all answers have in common and reads what is wanted.
func (p *statusPages) begin(w http.ResponseWriter, r *http.Request) (view status.View, ok bool) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", p.policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	view, err := status.ParseView(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return view, false
	}
	view.Public = !fromHere(r)
	return view, true
}

// document is what view shows. Whoever is not on this host is told no names that
// not everybody may know.
func (p *statusPages) document(view status.View) *status.Document {
	doc := p.ask(view)
	doc.Names = true
	if view.Public {
		doc.Redact()
	}
	return doc
}

// fromHere reports whether a request comes from this host, or through a tunnel
// that ends on it, as kubectl port-forward's does. It does not when it was
// handed on by a proxy, and when it names the host as only a page of somebody
// else's would that had its name point here (DNS rebinding).
func fromHere(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	for _, proxied := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(proxied) != "" {
			return false
		}
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

func (p *statusPages) page(w http.ResponseWriter, r *http.Request) {
	view, ok := p.begin(w, r)
	if !ok {
		return
	}
	var d page
	d.whole(p.document(view), view)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(d.Bytes()) // fails only if the client is gone
}

func (p *statusPages) json(w http.ResponseWriter, r *http.Request) {
	view, ok := p.begin(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(p.document(view)) // as above
}
