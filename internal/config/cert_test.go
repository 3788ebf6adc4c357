package config

import (
	"testing"
	"time"

	"github.com/larder-registry/larder/test/authority"
)

// pair writes a certificate and its key as dir/cert.pem and dir/key.pem.
func pair(t *testing.T, dir string) {
	t.Helper()
	a, err := authority.New("authority")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Issue(time.Now().Add(time.Hour), "larder.test")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cert.pem", string(cert))
	write(t, dir, "key.pem", string(key))
}
