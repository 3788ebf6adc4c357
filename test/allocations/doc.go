// Package allocations holds the way of a blob through the mirror, from its store
// or its upstream to a client's socket, to what it may allocate: as much for a
// large blob as for a small one when it is held, and a little for each MiB when
// it is still arriving. Memory that is allocated for each piece sent is what
// turns a busy mirror's processor time into garbage collection.
//
// It has tests only: Debian's nginx and others are compared in test/bench, and
// single parts have benchmarks of their own (make bench-micro).
package allocations
