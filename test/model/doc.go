// Package model holds the central registry to a model of it: many clients push,
// move, pull and delete at random, garbage is collected all the while, and the
// registry's process is killed by SIGKILL again and again.
//
// Each client has repositories, image manifests and tags that others leave
// alone, and blobs that all share, in repositories and content, so that what one
// lets go another needs. It remembers what was acknowledged: that has to be there
// to the byte, what was deleted has to be gone, and what a kill left open may be
// either, until somebody looks. In the end everything is deleted, and nothing may
// be left on disk.
//
// With -cut the registry lies on a file system of its own, in a loop device, whose
// power is cut in the place of each kill (power_test.go): everything that was not
// synced is lost, of the files as of the database.
//
// -steps and -kills say how much; little by default, thousands in `make model`.
// There is no code here besides tests.
package model
