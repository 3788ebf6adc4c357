// Package chart holds the Helm chart and the manifests made from it to what they
// promise. helm and kustomize are run as users run them; nothing is looked at but
// what they print.
//
// render_test.go: what lies in manifests/ is what the chart gives, and kustomize
// builds each base and overlay. values_test.go: wrong values are refused by name,
// and docs/kubernetes.md lists all there are. references_test.go: what names
// something names something that is there; pods_test.go: how pods are confined,
// probed and placed. larder_test.go: the binary takes every flag and every
// configuration file that is rendered. releases_test.go: two releases beside each
// other. serverside_test.go: a real API server (apiserver_test.go) takes every
// object, and the pod security standards hold; helm_test.go: helm installs, upgrades
// and uninstalls there.
//
// The package has tests only. They are run by the script named run, which builds
// what they need; `make manifests-check` is that. No node runs here: test/e2e-cluster
// has one.
package chart
