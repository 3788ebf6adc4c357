// Package allocations holds the way of a blob through the mirror, from its store
// or its upstream to a client's socket, to what it may allocate: as much for a
// large blob as for a small one when it is held, and a little for each MiB when
// it is still arriving. Memory that is allocated for each piece sent is what
// turns a busy mirror's processor time into garbage collection.
//
// What such a pull takes in all is measured by the benchmarks here, which make
// bench-micro runs with those of single parts; test/bench compares servers.
package allocations
