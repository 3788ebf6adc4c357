package config

import (
	"fmt"
	"strings"
	"time"
)

// Webhook configures the admission webhook. What it holds pods to is the image
// policy.
type Webhook struct {
	// Certificate says where the serving certificate comes from: "self" makes
	// one and tells the cluster, "files" serves what the command line names.
	Certificate string `yaml:"certificate"`
	// Workloads says what becomes of objects whose pods would be denied:
	// "deny", "warn" or "off".
	Workloads string `yaml:"workloads"`
	// Registration names the ValidatingWebhookConfiguration, and SecretName
	// the Secret for the authority, in Namespace. An empty Namespace is the
	// service account's. They, and what follows, are for "self" only.
	Registration string `yaml:"registration"`
	SecretName   string `yaml:"secret"`
	Namespace    string `yaml:"namespace"`
	// ServiceAccountDir holds the files token, ca.crt and namespace.
	ServiceAccountDir string `yaml:"service_account_dir"`
	// AuthorityLifetime and CertificateLifetime are how long an authority and
	// a serving certificate last. Both are replaced in time.
	AuthorityLifetime   Duration `yaml:"authority_lifetime"`
	CertificateLifetime Duration `yaml:"certificate_lifetime"`
}

// defaultWebhook returns the webhook's settings where a file says nothing.
func defaultWebhook() Webhook {
	return Webhook{ //nolint:gosec // names of objects, and no secret
		Certificate:         "self",
		Workloads:           "warn",
		Registration:        "larder-webhook",
		SecretName:          "larder-webhook-authority",
		ServiceAccountDir:   "/var/run/secrets/kubernetes.io/serviceaccount",
		AuthorityLifetime:   Duration(10 * 365 * 24 * time.Hour),
		CertificateLifetime: Duration(90 * 24 * time.Hour),
	}
}

// minLifetime keeps certificates from ending while the cluster hears of them.
const minLifetime = Duration(time.Minute)

// webhook checks the section.
func (c *checker) webhook(w *Webhook) {
	const section = "webhook"
	c.oneOf(section+".certificate", w.Certificate, "self", "files")
	c.oneOf(section+".workloads", w.Workloads, "deny", "warn", "off")
	c.objectName(section+".registration", w.Registration)
	c.objectName(section+".secret", w.SecretName)
	if w.Namespace != "" {
		c.objectName(section+".namespace", w.Namespace)
	}
	if w.ServiceAccountDir == "" {
		c.problemAt(section+".service_account_dir", "a directory is wanted", "remove the key to use the default")
	}
	w.ServiceAccountDir = c.path(w.ServiceAccountDir)
	for key, d := range map[string]Duration{"authority_lifetime": w.AuthorityLifetime, "certificate_lifetime": w.CertificateLifetime} {
		if d < minLifetime {
			c.problemAt(section+"."+key, fmt.Sprintf("%s is too short for a cluster to follow", d), fmt.Sprintf("write %s or more", minLifetime))
		}
	}
}

// objectName accepts what can name an object in Kubernetes (a DNS subdomain, RFC
// 1123).
func (c *checker) objectName(key, name string) {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Trim(label, "-") != label {
			c.problemAt(key, fmt.Sprintf("%q cannot be the name of an object in Kubernetes", name), "write lower-case letters, digits, '-' and '.'")
			return
		}
	}
	if len(name) > 253 {
		c.problemAt(key, "the name is longer than 253 bytes", "")
	}
}
