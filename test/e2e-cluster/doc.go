// Package cluster has a Kubernetes node of this machine run what Larder ships:
// the rendered manifests as they are, then the chart with values for all roles.
// It refuses to run outside of the namespaces that the script named run makes,
// since it writes to /etc and to /var/lib.
//
// cluster_test.go tells the story, part after part: install_test.go and
// crowd_test.go are about pulls through the mirror, and through a mirror that is
// killed and rolled meanwhile; private_test.go about who gets a private image;
// chart_test.go about the registry and the webhook; uninstall_test.go about what
// is left. The rest is the stage: control_test.go and node_test.go start
// Kubernetes, upstream_test.go the registries of the world, archive_test.go and
// images_test.go fill them, pods_test.go and mirror_test.go look.
//
// The package has tests only. Nothing leaves the node's own network.
package cluster
