// Package faults runs the larder binary against an upstream that misbehaves
// (test/registry) and judges what a client sees, how often the upstream was
// asked, how long it took, and what is on disk afterwards.
//
// Everything is real: the binary is built and started as a process with a
// configuration file, over sockets on loopback, and killed where a test says
// so. The judge (client_test.go) is stricter than any client: a byte that is
// wrong in an answer that ends cleanly, a body that is short and ends cleanly,
// and a status that breaks containerd's pull are failures wherever they occur.
//
// The table of faults is in table_test.go; freshness_test.go is about tags,
// fill_test.go about blobs that many want, crash_test.go about kill -9,
// disk_test.go about full and read-only disks, input_test.go about requests
// that nobody should send. With -long the table has more rows.
//
// There is no code here besides tests.
package faults
