package main

import (
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/policy"
	"github.com/larder-registry/larder/mirror"
)

// front is what clients of a mirror talk to: the mirror, or the gate before it.
type front interface {
	oci.Reader
	oci.Lister
}

// gated puts the image policy before the mirror, if there is one, and says
// what is in force.
func gated(m *mirror.Mirror, cfg *policy.Config, log *logrus.Entry) (front, error) {
	if cfg == nil {
		log.Info("no image policy: every image is served")
		return m, nil
	}
	p, err := policy.New(*cfg)
	if err != nil {
		return nil, err
	}
	log.WithFields(policyFields(p)).Info("image policy in force")
	return mirror.NewGate(m, p), nil
}

// policyFields tell a policy in a log line: the default action and the entries,
// in the spelling they are decided by.
func policyFields(p *policy.Policy) logrus.Fields {
	s := p.Summary()
	return logrus.Fields{
		"default":        string(s.Default),
		"mode":           string(s.Mode),
		"require_digest": s.RequireDigest,
		"allow":          strings.Join(s.Allow, ","),
		"deny":           strings.Join(s.Deny, ","),
		"namespaces":     strings.Join(s.Namespaces, ","),
		"revision":       s.Revision,
	}
}
