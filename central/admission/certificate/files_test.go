package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
)

// pair makes PEM files for names in dir.
func pair(t *testing.T, dir string, lifetime time.Duration, names ...string) {
	t.Helper()
	now := time.Now()
	a, err := newAuthority(now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.sign(now, lifetime, names)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"tls.crt": encodeCertificates([]*x509.Certificate{cert.Leaf}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: privatePE, Bytes: private}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFilesAreReadAgain swaps them as the kubelet does, by a link, and gets
// them wrong in between.
func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	swap := func(to string) {
		t.Helper()
		next := filepath.Join(dir, "next")
		if err := os.Symlink(to, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	pair(t, filepath.Join(dir, "1"), time.Hour, "one.test")
	pair(t, filepath.Join(dir, "2"), time.Hour, "two.test")
	swap("1")
	logger, hook := test.NewNullLogger()
	f, err := NewFiles(FilesConfig{
		CertFile: filepath.Join(dir, "data", "tls.crt"), KeyFile: filepath.Join(dir, "data", "tls.key"), Log: logrus.NewEntry(logger),
	})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(name string) {
		t.Helper()
		cert, err := f.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil || cert.Leaf.DNSNames[0] != name {
			t.Errorf("%v, %v, want %s", cert.Leaf.DNSNames, err, name)
		}
		if err := f.Ready(); err != nil {
			t.Error(err)
		}
	}
	expect("one.test")
	f.Reload()
	swap("2")
	f.Reload()
	expect("two.test")
	lines := len(hook.AllEntries())

	// The certificate of the one with the key of the other.
	cert, err := os.ReadFile(filepath.Join(dir, "1", "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "2", "tls.crt"), cert, 0o600); err != nil {
		t.Fatal(err)
	}
	f.Reload()
	f.Reload()
	expect("two.test")
	swap("nowhere")
	f.Reload()
	f.Reload()
	expect("two.test")
	if got := hook.AllEntries()[lines:]; len(got) != 2 || got[0].Level != logrus.ErrorLevel {
		t.Errorf("%d lines for two failures", len(got))
	}
	swap("1")
	f.Reload()
	expect("one.test")
}

func TestFilesThatCannotBeServed(t *testing.T) {
	logger, _ := test.NewNullLogger()
	log := logrus.NewEntry(logger)
	dir := t.TempDir()
	pair(t, dir, -time.Minute, "x.test")
	good := FilesConfig{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), Log: log}
	f, err := NewFiles(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Ready(); err == nil || !strings.Contains(err.Error(), "the certificate ended on ") {
		t.Errorf("one that has ended: %v", err)
	}
	for name, cfg := range map[string]FilesConfig{
		"no files":    {Log: log},
		"no log":      {CertFile: good.CertFile, KeyFile: good.KeyFile},
		"not there":   {CertFile: good.CertFile, KeyFile: dir + "/x", Log: log},
		"exchanged":   {CertFile: good.KeyFile, KeyFile: good.CertFile, Log: log},
		"a directory": {CertFile: dir, KeyFile: dir, Log: log},
	} {
		if f, err := NewFiles(cfg); err == nil {
			t.Errorf("%s: %v", name, f)
		}
	}
}
