package ociserver

import (
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// Who is asked to log in, and why others are not:
//
//	containerd        sends ?ns=. Challenged, it repeats the request with the
//	                  pull secret that came with the pull; without one it goes
//	                  to the next host. So it is challenged.
//	podman, CRI-O     put the registry into the path. They look for challenges
//	                  at /v2/ only, and give no pull secret to a mirror.
//	dockerd           names no registry. It looks at /v2/ only, too, and has no
//	                  login for a mirror.
//	curl, oras        log in to whom they are told to; what they send unasked
//	                  is taken, whatever the form of the path.
//
// To those that send no ns a challenge says nothing, and some would show a
// password prompt; they get 401 without one and go to the upstream. /v2/ never
// answers 401: whoever meets that there would log in everywhere, or give up.
//
// Plain HTTP carries credentials for everybody on the way to read. So only a
// peer on this host is challenged, or one that the operator admits by name.

// credentialOf reads what a client logs in with: Basic, with a password (RFC
// 7617). Any other Authorization is of no use to an upstream.
func credentialOf(r *http.Request) oci.Credential {
	username, secret, ok := r.BasicAuth()
	if !ok || secret == "" {
		return oci.Credential{}
	}
	return oci.NewCredential(username, secret)
}

// challenge sets the WWW-Authenticate headers of a 401, if err has some and the
// client is one that is asked to log in.
func (h *handler) challenge(x *exchange, err error) {
	refusal, ok := errors.AsType[*oci.Refusal](err)
	if !ok || h.callers && !(x.req.Namespaced && h.peers.trusted(x.r.RemoteAddr)) {
		return
	}
	for _, challenge := range refusal.Challenges {
		x.w.Header().Add("WWW-Authenticate", challenge)
	}
}

// trusted reports whether credentials may come from a connection's remote
// address over plain HTTP.
func (p *peers) trusted(remoteAddr string) bool {
	if p.local || len(p.allow) > 0 {
		return true // the operator said who may connect
	}
	peer, err := netip.ParseAddrPort(remoteAddr)
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	return addr.IsLoopback() || p.own.has(addr, time.Now())
}
