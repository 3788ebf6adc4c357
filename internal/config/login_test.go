package config

import (
	"reflect"
	"testing"

	"github.com/larder-registry/larder/store"
)

// TestFilesForTheEarlierProductLoad: what it accepted means the same here.
func TestFilesForTheEarlierProductLoad(t *testing.T) {
	cfg, warnings, err := Parse("proxy.yaml", []byte(`
registry_proxies:
  offline: true
  max_size: 50 GiB
  registries:
    - host: my_custom_registry.example.com
      username: toto
      password: pass1234
    - host: my-registry.example.com
      username: toto
      password: pass1234
    - host: registry-1.docker.io
      path_prefix: /
      username: null
      password: ~
      insecure: false
    - host: registry.example.com:5000
      path_prefix: /org/sub/
      username: "org-token"
      password: "with: colon # and hash"
      insecure: true
    - host: 123456789012.dkr.ecr.eu-west-1.amazonaws.com
      username: AWS
    - host: quay.io
      path_prefix:
      username:
`))
	if err != nil || len(warnings) != 1 {
		t.Fatal(warnings, err)
	}
	if got := warnings[0].String(); got != "proxy.yaml:6:13: registry_proxies.registries[0].host: no image can be from a host with an underscore; the entry has NO effect" {
		t.Error(got)
	}
	want := Default()
	want.RegistryProxies.Offline = true
	want.RegistryProxies.MaxSize = Limit{store.Bytes(50 << 30)}
	want.RegistryProxies.Registries = []Registry{
		{Host: "my-registry.example.com", Username: "toto", Password: "pass1234"},
		{Host: "docker.io"},
		{Host: "registry.example.com:5000", PathPrefix: "org/sub", Username: "org-token", Password: "with: colon # and hash", Insecure: true},
		{Host: "123456789012.dkr.ecr.eu-west-1.amazonaws.com"},
		{Host: "quay.io"},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %#v\nwant %#v", cfg, want)
	}
	cfg, _, err = Parse("proxy.yaml", []byte("registry_proxies:\n  max_size:\n  registries:\n"))
	if err != nil || !reflect.DeepEqual(cfg, Default()) {
		t.Errorf("empty keys: %+v, %v", cfg, err)
	}
}
