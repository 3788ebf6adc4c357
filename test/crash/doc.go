// Package crash kills the larder binary by SIGKILL, again and again on one data
// directory, at random moments while clients pull through it, and looks at what
// each new process finds and serves.
//
// What has to hold: no byte that is served is wrong, every one is compared; a
// blob that is visible on disk hashes to its name; after a restart nothing is
// left that is neither a blob nor a partial ingest that can be resumed; and
// partial ingests are resumed, which the upstream's own count of bytes shows. A
// mirror that is ended in order loses nothing at all (stop_test.go).
//
// -rounds says how many times to kill; few by default, 100 in `make crash`. The
// named points inside the store, between each write and the next, are in the
// store's own tests (go test ./store -run Killed -crash 10). What a client sees
// of an upstream that fails is in test/faults.
//
// There is no code here besides tests.
package crash
