// Package certificate gives the admission webhook the certificate it serves,
// and keeps it in date without a restart.
//
// [Self] needs nobody: it makes a certificate authority, keeps it in a Secret
// that all replicas share, signs its own serving certificate with it in memory,
// and puts the authority into the caBundle of the webhook's registration.
// [Files] serves a pair of files that somebody else renews, such as
// cert-manager. Both log the day on which what they serve ends.
//
// What an authority is and what the Secret holds is in authority.go; when it is
// replaced, and how the old and the new one overlap, in self.go; the four calls
// that are made to the cluster in cluster.go.
//
// It refuses to make objects: the Secret and the registration are made by
// whoever installs Larder, so that rights to those two by name are enough. It
// never serves a certificate before the cluster has been told to trust it, and
// never writes what is already there.
package certificate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// errNone is why a handshake fails before there is a certificate.
var errNone = errors.New("there is no certificate yet")

// inDate says why cert cannot be served at that time, or nil.
func inDate(cert *tls.Certificate, now time.Time) error {
	switch {
	case cert == nil:
		return errNone
	case now.After(cert.Leaf.NotAfter):
		return fmt.Errorf("the certificate ended on %s", cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(cert.Leaf.NotBefore):
		return fmt.Errorf("the certificate begins on %s; is the clock right?", cert.Leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}
