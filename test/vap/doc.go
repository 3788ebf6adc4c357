// Package vap holds the ValidatingAdmissionPolicies that internal/policy writes
// to the verdicts of its Go matcher, with the API server's own evaluator and no
// API server: the same compiler, the same libraries, the same bounds on cost.
//
// It has no code but tests, and is a module of its own so that the product's
// go.mod does not carry Kubernetes. The same table is run against real API
// servers by test/e2e-kubernetes.
package vap
