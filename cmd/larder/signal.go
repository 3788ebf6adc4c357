package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// outliveReaders keeps a service running when whoever reads its log has gone:
// else the next line ends the process (os/signal, "SIGPIPE"), which a node pulls
// by. Commands that only tell something are better ended.
func outliveReaders() { signal.Ignore(syscall.SIGPIPE) }

// signals returns two contexts: the first SIGTERM or SIGINT ends stop, the
// second ends now. A third is left to the system, which kills the process. Call
// release when the work is done.
func signals(parent context.Context) (stop, now context.Context, release func()) {
	stop, asked := context.WithCancel(parent)
	now, hurry := context.WithCancel(parent)
	received := make(chan os.Signal, 2)
	signal.Notify(received, syscall.SIGTERM, os.Interrupt)
	released := make(chan struct{})
	// Ends with the second signal, or with release.
	go func() {
		defer signal.Stop(received)
		for _, cancel := range []context.CancelFunc{asked, hurry} {
			select {
			case <-received:
				cancel()
			case <-released:
				return
			}
		}
	}()
	return stop, now, func() {
		close(released)
		asked()
		hurry()
	}
}
