package upstream

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// State is how the endpoints asked lately are doing, by scheme://host.
func (c *Client) State() map[string]EndpointState {
	states := c.breakers.state()
	for origin, until := range c.limits.quiet() {
		if s, ok := states[origin]; ok && until.After(s.QuietUntil) {
			s.QuietUntil = until
			states[origin] = s
		}
	}
	return states
}

// mishap is what last went wrong with an endpoint. That it lacks what it was
// asked for is none.
type mishap struct {
	label  string // of the registry it was asked for
	text   string
	reason string
	at     time.Time
}

// note remembers what err says about an endpoint, nil being nothing, and for
// which registry it was asked.
func (bs *breakers) note(origin, label string, err error) {
	f, failed := errors.AsType[*failure](err)
	failed = failed && !f.ours && !errors.Is(err, oci.ErrBlobUnknown) && !errors.Is(err, oci.ErrManifestUnknown) && !errors.Is(err, oci.ErrNameUnknown)
	bs.mu.Lock()
	defer bs.mu.Unlock()
	last := &bs.get(origin).last
	last.label = label
	if failed {
		last.text, last.reason, last.at = f.Error(), f.reason(), bs.now()
	}
}

// quiet gives the origins that asked to be left alone, and until when.
func (l *limits) quiet() map[string]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, origins := l.now(), map[string]time.Time{}
	l.until.all(func(key limitKey, until time.Time) {
		base, err := url.Parse(key.endpoint[strings.LastIndexByte(key.endpoint, ' ')+1:])
		if err != nil || !until.After(now) {
			return
		}
		if origin := originOf(base); until.After(origins[origin]) {
			origins[origin] = until
		}
	})
	return origins
}
