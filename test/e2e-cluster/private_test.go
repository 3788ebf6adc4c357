package cluster

import (
	"fmt"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// private: an image that the node has, and the mirror keeps, is no easier to
// come by for a pod without the pull secret.
func private(t *testing.T, s *suite) {
	layer := addImage(t, s.up, "private/app", "1", registry.NewLayer(2, mebibyte))
	s.namespace(t, "team")
	s.namespace(t, "others")
	s.secret(t, "team", "pull", example, user, password)
	s.secret(t, "others", "wrong", example, user, "guessed")

	image := example + "/private/app:1"
	entitled := pod{namespace: "team", name: "entitled", image: image, secret: "pull"}
	s.start(t, entitled)
	s.runs(t, entitled)
	if direct := asked(s.up, "private/app", false, registry.Blobs); len(direct) > 0 {
		t.Errorf("the image did not come through the mirror:\n%s", describe(direct))
	}
	if len(asked(s.up, "private/app", true, registry.Blobs)) == 0 {
		t.Error("the mirror has not fetched the image")
	}
	strangers := func(suffix string) {
		t.Helper()
		var all []pod
		for _, p := range []pod{
			{name: "nothing", policy: "IfNotPresent"},
			{name: "nothing-always", policy: "Always"},
			{name: "never", policy: "Never"},
			{name: "wrong", policy: "IfNotPresent", secret: "wrong"},
			{name: "wrong-always", policy: "Always", secret: "wrong"},
		} {
			p.namespace, p.name, p.image = "others", p.name+suffix, image
			s.start(t, p)
			all = append(all, p)
		}
		for _, p := range all {
			s.isRefused(t, p)
		}
		s.remove(t, all...)
	}
	refused := count(t, "larder_private_denied_total")
	strangers("")
	if count(t, "larder_private_denied_total") == refused {
		t.Error("the mirror counts nobody it did not let in")
	}

	// The same once the node has it from the mirror's disk.
	s.remove(t, entitled)
	s.forget(t, image)
	sent := s.up.Sent(layer)
	entitled.name = "entitled-again"
	strangers("-before")
	s.start(t, entitled)
	s.runs(t, entitled)
	if now := s.up.Sent(layer); now != sent || sent < mebibyte {
		t.Errorf("the upstream has sent %d bytes of the layer, after %d before:\n%s", now, sent, describe(asked(s.up, "private/app", true, registry.Blobs)))
	}
	strangers("-after")
	s.remove(t, entitled)
	s.memory(t)
}

// secret makes a pull secret.
func (s *suite) secret(t *testing.T, namespace, name, host, user, password string) {
	t.Helper()
	s.Do(t, "create", "secret", "docker-registry", name, "--namespace", namespace,
		"--docker-server", host, "--docker-username", user, fmt.Sprintf("--docker-password=%s", password))
}
