package config

import (
	"strings"
	"testing"
	"time"
)

func TestTheWebhooksKeysAreRead(t *testing.T) {
	cfg, warnings, err := Parse("/etc/larder/f", []byte(`
webhook:
  certificate: files
  workloads: deny
  registration: images.example
  secret: ca
  namespace: larder
  service_account_dir: sa
  authority_lifetime: 48h
  certificate_lifetime: 24h
`))
	if err != nil || len(warnings) != 0 {
		t.Fatal(warnings, err)
	}
	want := Webhook{
		Certificate: "files", Workloads: "deny", Registration: "images.example", SecretName: "ca", Namespace: "larder",
		ServiceAccountDir: "/etc/larder/sa", AuthorityLifetime: Duration(48 * time.Hour), CertificateLifetime: Duration(24 * time.Hour),
	}
	if cfg.Webhook != want {
		t.Errorf("got  %+v\nwant %+v", cfg.Webhook, want)
	}
	if cfg, _, err := Parse("f", []byte("webhook:\n")); err != nil || cfg.Webhook != defaultWebhook() {
		t.Errorf("an empty section: %+v, %v", cfg, err)
	}
}

func TestTheWebhooksMistakes(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"an unknown certificate":  {"certificate: cert-manager", `f:2:16: webhook.certificate: unknown value "cert-manager"; write one of self, files`},
		"an unknown answer":       {"workloads: maybe", `f:2:14: webhook.workloads: unknown value "maybe"; write one of deny, warn, off`},
		"a name in upper case":    {"registration: Larder", `f:2:17: webhook.registration: "Larder" cannot be the name of an object in Kubernetes; write lower-case letters, digits, '-' and '.'`},
		"a path as a name":        {"secret: a/b", `f:2:11: webhook.secret: "a/b" cannot be the name of an object in Kubernetes`},
		"an endless name":         {"secret: " + strings.Repeat("a", 254), "f:2:11: webhook.secret: the name is longer than 253 bytes"},
		"a namespace with a dash": {"namespace: -x", `f:2:14: webhook.namespace: "-x" cannot be`},
		"no directory":            {`service_account_dir: ""`, "f:2:24: webhook.service_account_dir: a directory is wanted; remove the key to use the default"},
		"too short a life":        {"authority_lifetime: 1s", "f:2:23: webhook.authority_lifetime: 1s is too short for a cluster to follow; write 1m or more"},
		"too short a leaf":        {"certificate_lifetime: 59s", "f:2:25: webhook.certificate_lifetime: 59s is too short"},
		"an unknown key":          {"certificates: self", `f:2:3: webhook.certificates: unknown key; did you mean "certificate"?`},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Parse("f", []byte("webhook:\n  "+c.content+"\n"))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}
