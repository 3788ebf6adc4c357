// Package e2e pulls through a running `larder mirror` with the clients people
// have: containerd 1.6 and 2.x through ctr and through CRI, podman, skopeo and
// crane. Each is started as the program it is, configured as docs/clients.md
// says, and its own store is read afterwards: every blob must be there and hash
// to its digest.
//
// The clients and how each is pointed at the mirror are in containerd_test.go,
// containers_test.go and crane_test.go; what befalls the mirror is in
// faults_test.go, and in standin_test.go where something takes its place; the
// table that crosses the two is in clients_test.go. A pass over registries that
// are not Larder's own is in foreign_test.go. Clients that push to a running
// `larder central`, and what is large there, are in the files whose names begin
// with central. What runs everything, and fetches what it needs, is the script
// named run.
//
// The package has tests only. They need Linux and root, because containerd
// mounts what it unpacks. Nothing leaves loopback.
package e2e
