package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// errUnproven: what is wanted is there, or could be, and nothing shows that the
// caller may have it.
var errUnproven = &oci.Error{Code: oci.CodeUnauthorized, Message: "nothing shows that you may have this", Reason: "private"}

// errRefusedCaller answers a caller whose credentials the upstream has just
// refused. Asking for them again would bring the same.
var errRefusedCaller = &oci.Error{Code: oci.CodeUnauthorized, Message: "the upstream has refused these credentials", Reason: "private"}

// grant is how one request goes about a repository: what it may have, and on
// whose behalf the upstream is asked.
type grant struct {
	gate *gate
	name oci.Name
	now  time.Time // when the request was made
	// standing is what is known of the repository, and learnt what the gate's
	// count was before that was looked at.
	standing
	learnt uint64
	// refusal is why the request gets nothing, without a question to anybody.
	refusal error
	// must: the upstream has to be asked before the caller gets anything.
	must bool
	// grace: there is an older proof, which is good enough while the upstream
	// cannot be asked.
	grace bool
	// shared: everybody may have what is held, although the upstream would not
	// say so; mute: it would refuse, so it is not asked.
	shared, mute bool

	brought bool           // the caller has credentials,
	caller  oci.Credential // and these are for the upstream
	who     string         // what it knows them by; empty without
	alone   bool           // nothing else is tried
}

// grant decides how a request of a caller goes about name.
func (g *gate) grant(name oci.Name, caller oci.Credential) grant {
	r := grant{gate: g, name: name, now: g.now(), learnt: g.learnt.Load()}
	r.standing = g.standing(name)
	s, now := r.standing, r.now
	if s.open() {
		return r
	}
	if g.mode == PrivateBypass {
		caller = oci.Credential{}
	}
	r.brought = !caller.IsZero()
	r.shared = g.mode == PrivateShared && s.closed()
	who := ""
	if r.brought {
		who = g.proofs.key(caller)
		if g.proofs.refused(who, name, now) {
			r.refusal = errRefusedCaller
		}
	}
	if !r.brought || r.refusal != nil && r.shared {
		r.refusal = nil
		switch r.mute = r.shared; {
		case s.closed() && !r.shared:
			r.refusal = errUnproven
		case !s.closed():
			r.must = true
		}
		return r
	}
	r.caller, r.who, r.must = caller, who, true
	if !s.closed() {
		return r
	}
	r.alone = true
	age, proved := g.proofs.age(who, name, now)
	r.must = !r.shared && (!proved || age >= g.proofTTL)
	r.grace = proved && age < g.proofGrace
	if !r.must && s.exposure == proof {
		// The configured credentials fetch it, now that the caller has shown
		// that they may have it.
		r.caller, r.who, r.alone = oci.Credential{}, "", false
	}
	return r
}

// key tells apart the questions that are not asked on behalf of the same.
func (r grant) key() string {
	switch {
	case r.who == "":
		return ""
	case r.must:
		return " must " + r.who
	}
	return " " + r.who
}

// with returns a context for questions to the upstream on this request's
// behalf. What they say about access is heard.
func (r grant) with(ctx context.Context) context.Context {
	return oci.WithApproach(ctx, oci.Approach{
		Credential: r.caller, Key: r.who, Alone: r.alone, Fresh: r.must && r.who != "", Heard: r.hear,
	})
}

// lasting is the grant of what outlives its request: a fill. It proves nothing,
// since its tokens may be old.
func (r grant) lasting() grant {
	r.must = false
	return r
}

// current reports whether nothing has been learnt of any repository since the
// grant was made.
func (r grant) current() bool { return r.gate.learnt.Load() == r.learnt }

// renewed is the grant by what is known of the repository by now.
func (r grant) renewed() grant {
	if r.current() || r.gate.standing(r.name).exposure == r.exposure {
		return r
	}
	return r.gate.grant(r.name, r.caller)
}

// hear takes in what an upstream's answer to a question of this request says.
func (r grant) hear(way oci.Way) {
	g, now := r.gate, r.gate.now()
	switch {
	case r.who != "" && way == oci.WayRefused:
		g.proofs.drop(r.who, r.name, now)
	case r.who != "" && way == oci.WayCaller && r.must:
		g.proofs.add(r.who, r.name, now)
	}
	switch {
	case way == oci.WayAnonymous: // also where credentials were there to be sent
	case r.alone:
		return // it is about the caller only
	case way == oci.WayRefused && g.standing(r.name).open():
		return // see Mirror.confirm
	}
	g.learn(r.name, way)
}

// admits reports whether the caller may have what the repository holds, by what
// is known by now.
func (r grant) admits() bool {
	if r.open() && r.current() {
		return true
	}
	s := r.gate.standing(r.name)
	switch {
	case s.open(), s.closed() && r.gate.mode == PrivateShared:
		return true
	case s.exposure == proof && r.exposure == proof && !r.must:
		return true // it was proved before
	case !s.closed() || r.who == "":
		return false
	}
	age, ok := r.gate.proofs.age(r.who, r.name, r.gate.now())
	return ok && (age < r.gate.proofTTL || r.grace && age < r.gate.proofGrace)
}

// answered reports whether what the grant had to ask has been answered since.
func (r grant) answered() bool {
	age, ok := r.gate.proofs.age(r.who, r.name, r.gate.now())
	return ok && age < r.gate.proofTTL || r.gate.standing(r.name).exposure != r.exposure
}

// unproven reports whether err is errUnproven, and not any refusal.
func unproven(err error) bool {
	e, ok := errors.AsType[*oci.Error](err)
	return ok && e == errUnproven
}

// unlet reports whether err is an upstream's refusal to let somebody in.
func unlet(err error) bool {
	return errors.Is(err, oci.ErrUnauthorized) || errors.Is(err, oci.ErrDenied)
}

// deny turns why a request gets nothing into what its client is told. A client
// that brought no credentials is asked for some where the repository needs them,
// whatever went wrong: they may have been proved before its upstream went down.
func (r grant) deny(err error) error {
	g := r.gate
	s := g.standing(r.name)
	// The configured credentials could not be had; the caller's may do.
	broken := s.exposure == unknown && oci.Reason(err) == "credential"
	if !s.closed() && !broken || errors.Is(err, context.Canceled) {
		return err
	}
	count := func(reason string) {
		g.metrics.privateDenied.WithLabelValues(g.metrics.label(r.name.Registry), reason).Inc()
	}
	switch {
	case g.mode == PrivateBypass:
		count("bypass")
		e := oci.Errorf(oci.ErrNameUnknown, "%s is private, and private images are not served here", r.name)
		e.Reason = "private"
		return e
	case !r.brought:
		count("challenge")
		e := oci.Errorf(oci.ErrUnauthorized, "%s wants credentials", r.name)
		e.Reason = "private"
		return &oci.Refusal{Cause: e, Challenges: []string{fmt.Sprintf("Basic realm=%q", r.name.Registry)}}
	case unlet(err):
		count("refused")
	case r.must:
		count("unproven")
	}
	return err
}
