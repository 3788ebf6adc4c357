package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
)

// TLSConfig is what a listener's TLS is made of. CertFile, KeyFile and Log are
// required.
type TLSConfig struct {
	// CertFile and KeyFile hold the certificate with those it needs, leaf
	// first, and its key, in PEM.
	CertFile, KeyFile string
	// ClientCAFile holds the authorities whose client certificates are
	// accepted; empty asks for none. A client with a certificate is the
	// subject cert:<common name>.
	ClientCAFile string
	// RequireClient refuses connections without a client certificate.
	RequireClient bool
	// Protocols are ALPN's, best first: "h2", "http/1.1".
	Protocols []string
	Log       *logrus.Entry
	// Now is the clock; nil means the system's.
	Now func() time.Time
}

// ServerTLS makes the TLS configuration of a listener. The files are read now,
// which may fail, and again when they change: the next connection sees the new
// ones, or the old ones while the new make no sense.
func ServerTLS(cfg TLSConfig) (*tls.Config, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.RequireClient && cfg.ClientCAFile == "" {
		return nil, errors.New("client certificates are required, and there is no authority to check them by")
	}
	files := []string{cfg.CertFile, cfg.KeyFile}
	if cfg.ClientCAFile != "" {
		files = append(files, cfg.ClientCAFile)
	}
	current, err := watch(cfg.Log, cfg.Now, func(contents [][]byte) (*tls.Config, error) { return parseTLS(cfg, contents) }, files...)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: cfg.Protocols,
		// Both are there: the server looks for a certificate before it
		// serves, and each connection asks anew.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &current.get().Certificates[0], nil
		},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.get(), nil },
	}, nil
}

func parseTLS(cfg TLSConfig, contents [][]byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, err
	}
	parsed := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: cfg.Protocols, Certificates: []tls.Certificate{pair}}
	if cfg.ClientCAFile == "" {
		return parsed, nil
	}
	parsed.ClientCAs, parsed.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
	if cfg.RequireClient {
		parsed.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if !parsed.ClientCAs.AppendCertsFromPEM(contents[2]) {
		return nil, fmt.Errorf("%s holds no PEM certificate", cfg.ClientCAFile)
	}
	return parsed, nil
}
