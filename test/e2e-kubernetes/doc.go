// Package kubernetes puts the admission webhook before real API servers: etcd,
// kube-apiserver and kube-controller-manager of three minor versions, driven by
// kubectl as people do it. No node runs and no image is pulled; whether a pod
// may be is decided before that.
//
// cluster_test.go starts a control plane, webhook_test.go installs what
// docs/admission.md says, word for word, with the webhook's replicas as processes
// behind a small balancer in the place of the Service. What is then tried:
// bypasses_test.go, every way to bring in an image; objects_test.go, what must
// never be blocked; certificates_test.go, the life of the certificate;
// limits_test.go, objects as large as they get; table_test.go, the table of images through webhook and
// ValidatingAdmissionPolicy.
//
// The package has tests only. They are run by the script named run, which builds
// what they need. Nothing leaves loopback.
package kubernetes
