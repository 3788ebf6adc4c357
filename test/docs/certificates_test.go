package docs

import (
	"crypto/tls"
	"time"

	"github.com/larder-registry/larder/test/authority"
)

// certificates makes the authority that the sandbox's machine trusts and one that it
// does not know, and gives what each kind of site shows, see site.certificate.
func (w *world) certificates() (map[string]tls.Certificate, error) {
	trusted, err := authority.New("the sandbox's authority")
	if err != nil {
		return nil, err
	}
	stranger, err := authority.New("a stranger")
	if err != nil {
		return nil, err
	}
	w.ca = trusted.PEM()
	names := []string{"registry.example", "localhost", "127.0.0.1", "::1"}
	for _, s := range sites() {
		names = append(names, s.dns...)
	}
	now := time.Now()
	pairs := map[string]tls.Certificate{}
	for kind, made := range map[string]struct {
		by    *authority.Authority
		until time.Time
	}{
		"":         {trusted, now.Add(24 * time.Hour)},
		"stranger": {stranger, now.Add(24 * time.Hour)},
		"expired":  {trusted, now.Add(-24 * time.Hour)},
	} {
		cert, key, err := made.by.Issue(made.until, names...)
		if err != nil {
			return nil, err
		}
		if pairs[kind], err = tls.X509KeyPair(cert, key); err != nil {
			return nil, err
		}
		if kind == "" {
			w.cert, w.key = cert, key
		}
	}
	return pairs, nil
}
