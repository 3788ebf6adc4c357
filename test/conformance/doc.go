// Package conformance holds Larder to the OCI distribution spec 1.1 over real
// HTTP, endpoint by endpoint (end-1 to end-13). docs/conformance.md says which
// test shows which requirement.
//
// target_test.go starts the registries: larder central, which everything is
// asked of, and the mirror before it, which is asked what only reads. It tests
// nothing that is Larder's own choice; that is in the packages' own tests.
package conformance
