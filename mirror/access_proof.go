package mirror

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// maxProofs bounds the proofs remembered, about 200 bytes each, and
	// maxRefusals the refusals, which are remembered for rememberFor only.
	maxProofs   = 16384
	maxRefusals = 4096
)

// proofs remembers which callers' credentials an upstream let in, and when. The
// credentials themselves are not kept: a caller is known by the HMAC of theirs
// under a key that this process made for itself and keeps in memory only (the
// kubelet hashes pull credentials for the same end).
type proofs struct {
	macs sync.Pool // of hash.Hash, under that key

	mu      sync.Mutex
	at      map[proofKey]time.Time
	refusal map[proofKey]time.Time
}

type proofKey struct {
	who string
	oci.Name
}

func newProofs(secret []byte) *proofs {
	p := &proofs{at: make(map[proofKey]time.Time), refusal: make(map[proofKey]time.Time)}
	p.macs.New = func() any { return hmac.New(sha256.New, secret) }
	return p
}

// key is what a caller is known by.
func (p *proofs) key(caller oci.Credential) string {
	username, secret := caller.Login()
	mac, _ := p.macs.Get().(hash.Hash) // of nothing else
	defer p.macs.Put(mac)
	mac.Reset()
	// The length keeps "a"+"bc" and "ab"+"c" apart.
	text := binary.AppendUvarint(make([]byte, 0, 128), uint64(len(username)))
	mac.Write(append(append(text, username...), secret...))
	return string(mac.Sum(make([]byte, 0, sha256.Size)))
}

// age is how old the proof is that who may have what name holds.
func (p *proofs) age(who string, name oci.Name, now time.Time) (age time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.at[proofKey{who, name}]
	return now.Sub(at), ok
}

// add notes that who was let in. When there are too many proofs the older half
// goes: losing one costs a question.
func (p *proofs) add(who string, name oci.Name, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.refusal, proofKey{who, name})
	p.at[proofKey{who, name}] = now
	if len(p.at) <= maxProofs {
		return
	}
	var oldest, newest time.Time
	for _, at := range p.at {
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
		if at.After(newest) {
			newest = at
		}
	}
	middle := oldest.Add(newest.Sub(oldest) / 2)
	for key, at := range p.at {
		if !at.After(middle) && at != now {
			delete(p.at, key)
		}
	}
	if len(p.at) > maxProofs { // all of the same moment
		clear(p.at)
		p.at[proofKey{who, name}] = now
	}
}

// drop notes that who was refused: what was proved before is void.
func (p *proofs) drop(who string, name oci.Name, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.at, proofKey{who, name})
	if len(p.refusal) >= maxRefusals {
		clear(p.refusal)
	}
	p.refusal[proofKey{who, name}] = now
}

// refused reports whether who was refused a moment ago.
func (p *proofs) refused(who string, name oci.Name, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.refusal[proofKey{who, name}]
	return ok && now.Sub(at) < rememberFor
}

// prove has the upstream say, by one question, whether the caller may have what
// the repository holds. Requests that come together share the question, whatever
// of the repository they are for; ask asks for something of it. Where an older
// proof is good enough while the upstream cannot be asked, prove waits no longer
// than the revalidate timeout. It fails with what the upstream said, or why it
// could not be asked.
func (m *Mirror) prove(ctx context.Context, g grant, ask func(context.Context) error) error {
	if m.offline {
		if g.grace {
			return nil
		}
		return errOffline
	}
	key := g.name.String() + " proof" + g.key()
	for {
		c, started := m.checks.join(key, func(c *check) bool {
			// Ends with the question, which the upstream client's timeouts bound.
			return m.tasks.run(func(ctx context.Context) {
				defer m.checks.finish(key, c)
				if !g.answered() { // by a question that has just ended
					c.err = ask(g.with(ctx))
				}
			})
		})
		err := m.await(ctx, g, c)
		switch {
		case err == nil, g.grace && excusesStale(err):
			return nil
		case started || unlet(err) || excusesStale(err):
			return err
		}
		// What another request asked for is not there. That says nothing about
		// the caller, so this one asks for its own.
	}
}

// await waits for c, no longer than the revalidate timeout if what is held may
// go out without it, and not at all while its registry is known to be silent.
func (m *Mirror) await(ctx context.Context, g grant, c *check) error {
	var timeout <-chan time.Time
	if g.grace {
		if m.checks.isSilent(g.name.Registry) {
			return nil
		}
		patience := time.NewTimer(m.revalidateTimeout)
		defer patience.Stop()
		timeout = patience.C
	}
	select {
	case <-c.done:
		return c.err
	case <-timeout:
		m.noteSilent(g.name.Registry, c)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
