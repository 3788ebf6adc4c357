// Package check holds the image to what is promised of it, with the programs that
// will have to do with it: built twice it is the same to the byte; buildah, given
// the Dockerfile, makes the same of it; containerd and podman take it; every
// subcommand runs in it without rights and without a place to write; a registry,
// Larder's own, keeps it with what is attached to it.
//
// It needs root and Debian's buildah, podman, runc and containerd. Nothing is
// fetched. The release is checked in the package release.
package check
