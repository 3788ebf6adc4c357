package mirror

import (
	"context"
	"encoding/json"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/tracing"
)

const (
	// aheadWindow is how many blobs of one image are started before they are
	// asked for: as many as clients fetch at a time (containerd: 3), and the
	// config. aheadFills bounds them over all images.
	aheadWindow = 4
	aheadFills  = 32
	// aheadHold is how much of a blob is asked for while nobody has asked for
	// it, in bytes; a little more if that is all of it.
	aheadHold = 2 << 20
	// aheadAgain is how long an image that has been looked at is not looked at
	// again, so that serving its manifest over and over costs nothing.
	aheadAgain = 10 * time.Second
	// maxConsidered bounds the image manifests remembered for that.
	maxConsidered = 8192
)

// ahead starts what a client is about to ask for: after an index the image
// manifest for this node's platform, after an image manifest its blobs. Only
// clients that take the content (GET) count, not those that look (HEAD).
type ahead struct {
	mu sync.Mutex
	// considered holds until when content is not looked at again; that for
	// other platforms, named by an index, is not at all.
	considered looks
	waiting    int // fills nobody has asked for
}

// due reports whether manifest is to be looked at now, and notes that it was.
func (a *ahead) due(c content, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.considered.due(c, now)
}

// looks are the image manifests that were looked at lately, with until when they
// are not looked at again: reading the same one for each request would cost more
// than sending it.
type looks map[content]time.Time

// due reports whether c is to be looked at now, and notes that it was.
func (l *looks) due(c content, now time.Time) bool {
	if now.Before((*l)[c]) {
		return false
	}
	l.note(c, now.Add(aheadAgain))
	return true
}

// note has c left alone until then.
func (l *looks) note(c content, until time.Time) {
	if *l == nil || len(*l) >= maxConsidered {
		*l = make(looks)
	}
	(*l)[c] = until
}

// ignore leaves what is for other platforms alone.
func (a *ahead) ignore(c content, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.considered.note(c, now.Add(24*time.Hour))
}

// admit counts one more fill that nobody has asked for, if there may be one.
func (a *ahead) admit() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting >= aheadFills {
		return false
	}
	a.waiting++
	return true
}

// asked counts one less.
func (a *ahead) asked() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting--
}

// listed is what an index or image manifest lists, as far as it matters here.
type listed struct {
	Manifests []struct {
		Digest   digest.Digest `json:"digest"`
		Platform struct {
			OS           string `json:"os"`
			Architecture string `json:"architecture"`
		} `json:"platform"`
	} `json:"manifests"`
	Config struct {
		Digest digest.Digest `json:"digest"`
	} `json:"config"`
	Layers []struct {
		Digest digest.Digest `json:"digest"`
		URLs   []string      `json:"urls"` // kept elsewhere: not this registry's
	} `json:"layers"`
}

// blobs are the config and the layers an image manifest lists, in the order
// clients ask for them. They have not been validated.
func (l listed) blobs() []digest.Digest {
	blobs := []digest.Digest{l.Config.Digest}
	for _, layer := range l.Layers {
		if len(layer.URLs) == 0 {
			blobs = append(blobs, layer.Digest)
		}
	}
	return blobs
}

// lookAhead starts what the client that was given manifest will ask for next. Of
// ctx it takes no more than the span.
func (m *Mirror) lookAhead(ctx context.Context, g grant, manifest oci.Manifest) {
	g = g.renewed().lasting()
	name := g.name
	if g.refusal != nil || m.prefetchWait <= 0 || m.offline || !m.ahead.due(content{name, manifest.Digest}, g.now) {
		return
	}
	m.noteSizes(name, manifest)
	var l listed
	if m.store.Degraded() != nil || json.Unmarshal(manifest.Bytes, &l) != nil {
		return
	}
	if oci.IsIndexType(manifest.MediaType) {
		m.lookAtIndex(ctx, g, l)
		return
	}
	blobs := slices.DeleteFunc(l.blobs(), func(d digest.Digest) bool {
		if d.Validate() != nil {
			return true
		}
		_, err := m.store.Stat(d)
		return err == nil
	})
	if len(blobs) == 0 {
		return
	}
	image := &lead{m: m, grant: g, span: tracing.SpanOf(ctx), rest: blobs}
	image.asked()
	// Ends when the client has asked for all, or for none for a while.
	m.tasks.run(image.watch)
}

// lookAtIndex asks for the image manifest of this node's platform.
func (m *Mirror) lookAtIndex(ctx context.Context, g grant, l listed) {
	name := g.name
	found := false
	for _, child := range l.Manifests {
		switch {
		case child.Platform.OS != runtime.GOOS || child.Platform.Architecture != runtime.GOARCH:
			m.ahead.ignore(content{name, child.Digest}, m.now())
		case !found && child.Digest.Validate() == nil:
			found = true
			if _, err := m.store.Linked(name, child.Digest); err != nil {
				m.check(ctx, oci.Reference{Name: name, Digest: child.Digest}, g, nil)
			}
		}
	}
}

// lead is one image that a client has begun to pull. It keeps a few blobs
// started ahead of the client.
type lead struct {
	m     *Mirror
	grant grant
	span  tracing.Span // of the request whose answer listed the blobs

	mu      sync.Mutex
	rest    []digest.Digest // not started yet, in the order clients ask
	started []*fill
	unasked int // fills that have ended since the client last asked for one
	over    bool
}

// asked goes on when the client has asked for a blob.
func (l *lead) asked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unasked = 0
	l.advance()
}

// ended goes on when a small blob came whole before the client asked for it.
func (l *lead) ended() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unasked++
	l.advance()
}

// advance starts blobs until enough wait for the client. The caller holds mu.
func (l *lead) advance() {
	l.started = slices.DeleteFunc(l.started, (*fill).over)
	waiting := 0
	for _, f := range l.started {
		if f.unasked() {
			waiting++
		}
	}
	for !l.over && waiting < aheadWindow && l.unasked < aheadWindow && len(l.rest) > 0 && l.m.ahead.admit() {
		f := l.m.startAhead(l, l.rest[0])
		l.rest = l.rest[1:]
		if f == nil {
			l.m.ahead.asked()
			continue
		}
		l.started = append(l.started, f)
		waiting++
	}
}

// watch drops what was started in vain: what nobody has asked for while, for
// the prefetch wait, nobody read anything else of the image either.
func (l *lead) watch(ctx context.Context) {
	tick := time.NewTicker(l.m.prefetchWait)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if l.dropIfIdle() {
			return
		}
	}
}

// dropIfIdle reports whether the lead is over.
func (l *lead) dropIfIdle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(l.started, (*fill).isRead) {
		return false
	}
	for _, f := range l.started {
		f.drop()
	}
	l.over = true
	return true
}

// startAhead starts the fill of a blob nobody has asked for yet; nil when it is
// there, on its way, or known not to be had.
func (m *Mirror) startAhead(l *lead, dgst digest.Digest) *fill {
	m.fills.mu.Lock()
	defer m.fills.mu.Unlock()
	if m.fills.of[dgst] != nil || m.failures.recall(l.grant.name, dgst.String()+l.grant.key()) != nil {
		return nil
	}
	if _, err := m.store.Stat(dgst); err == nil {
		return nil
	}
	f := newFill(m, l.grant, dgst, l.span)
	f.lead, f.whole = l, true
	if !m.begin(f, oci.Span{End: -1}) {
		return nil
	}
	return f
}

// unasked reports whether the fill was started ahead and nobody came for it.
func (f *fill) unasked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lead != nil && !f.ended
}

// isRead reports whether somebody follows the fill.
func (f *fill) isRead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.followers > 0
}

// over reports whether the fill has ended.
func (f *fill) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended
}

// drop has a fill that nobody came for end once it has what it asked for.
func (f *fill) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lead != nil {
		f.whole = false
		f.changed.Broadcast()
	}
}
