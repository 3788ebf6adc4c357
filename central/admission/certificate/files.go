package certificate

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// FilesConfig is what a [Files] is made of. All but Registerer is required.
type FilesConfig struct {
	// CertFile holds PEM certificates, the leaf first; KeyFile its key.
	CertFile, KeyFile string
	Log               *logrus.Entry
	// Registerer gets the metrics; nil keeps them unseen.
	Registerer prometheus.Registerer
}

// Files serves a pair of PEM files. GetCertificate and Ready are safe for
// concurrent use.
type Files struct {
	cfg     FilesConfig
	metrics *metrics
	served  atomic.Pointer[tls.Certificate]
	// cert and private are what was last read, good or not.
	cert, private []byte
}

// NewFiles reads the pair; it fails when the pair cannot be served.
func NewFiles(cfg FilesConfig) (*Files, error) {
	if cfg.CertFile == "" || cfg.KeyFile == "" || cfg.Log == nil {
		return nil, errors.New("read certificate: both files and a log are required")
	}
	f := &Files{cfg: cfg, metrics: newMetrics(cfg.Registerer)}
	return f, f.load()
}

// GetCertificate implements the function of that name in [tls.Config].
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.served.Load(), nil
}

// Ready says why what is served is of no use, or nil.
func (f *Files) Ready() error { return inDate(f.served.Load(), time.Now()) }

// Reload reads the files again and serves them from now on if they have changed
// and fit; else what is served stays, and the failure is logged once. Call it
// every few seconds, from one goroutine: a directory that is swapped through a
// link, as the kubelet does it, is read as whole as this.
func (f *Files) Reload() {
	if err := f.load(); err != nil {
		f.metrics.failures.Inc()
		f.cfg.Log.WithError(err).Error("the webhook's certificate cannot be read; what is served stays")
	}
}

// load reads the files and serves them if they are new. What it has read once
// it does not complain about again.
func (f *Files) load() error {
	cert, err := os.ReadFile(f.cfg.CertFile)
	if err != nil {
		cert = []byte(err.Error()) // told once, like any other content
	}
	private, keyErr := os.ReadFile(f.cfg.KeyFile)
	if keyErr != nil {
		private = []byte(keyErr.Error())
	}
	if bytes.Equal(cert, f.cert) && bytes.Equal(private, f.private) {
		return nil
	}
	f.cert, f.private = cert, private
	if err := errors.Join(err, keyErr); err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, private)
	if err != nil {
		return fmt.Errorf("read certificate %s and key %s: %w", f.cfg.CertFile, f.cfg.KeyFile, err)
	}
	f.served.Store(&pair)
	f.metrics.notAfter.Set(float64(pair.Leaf.NotAfter.Unix()))
	f.cfg.Log.WithField("not_after", pair.Leaf.NotAfter.UTC()).Info("serving a new certificate")
	return nil
}
