// Package rungroup runs the services of a process and stops them in the order
// of their dependencies, within one deadline.
//
// Services stand in tiers. Those of one tier know nothing of each other and are
// stopped together; a tier is stopped only when all the tiers after it, which
// may depend on it, have ended. For a mirror: the store; then the mirror over
// it; then the servers; then readiness, which is the first to go.
//
// It handles no signals and has no clock of its own beyond the deadline: cmd
// says by contexts when to stop and when to stop at once.
package rungroup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// Service is one thing that runs and has to be stopped.
type Service struct {
	// Name says what it is in logs and errors.
	Name string
	// Run works until Stop is called, and then returns nil. If it returns
	// earlier, whatever it returns, the whole group is stopped. A nil Run is a
	// service that only has something to stop, such as an open store.
	Run func() error
	// Stop makes Run end. It may use the time until ctx is done for what is in
	// flight; after that it ends at once what is left. It is called exactly
	// once: also when Run has ended by itself, when ctx is already done, and
	// possibly before Run was scheduled. A nil Stop has nothing to do.
	Stop func(ctx context.Context) error
}

// Group is how services are run. The zero Group gives no grace.
type Group struct {
	// Grace is how long stopping may take, all tiers together.
	Grace time.Duration
	// Linger is how long each tier is still waited for once Grace is over or
	// stopping at once was asked for. A service that takes longer hangs, and is
	// left behind. Zero means 2 s.
	Linger time.Duration
	// Log may be nil.
	Log *logrus.Entry
}

// Run starts all services and returns when all have ended or have been left
// behind. They run until stop is done or one of them ends by itself; then they
// are stopped, last tier first. When now is done, at any time, there is no more
// grace. Every service is stopped, also those whose dependents hang, so that a
// store is closed whatever happens above it.
//
// It returns what began the end, if that was a service: its error, or that it
// ended unasked. Else the first error of stopping, else nil. Services that did
// not end in time are named in the error; their goroutines stay.
func (g Group) Run(stop, now context.Context, tiers ...[]Service) error {
	count := 0
	for _, tier := range tiers {
		count += len(tier)
	}
	ended := make(chan error, count) // room for all: nobody waits to report
	running := make([][]*runner, len(tiers))
	for i, tier := range tiers {
		for _, s := range tier {
			r := &runner{Service: s, done: make(chan struct{})}
			running[i] = append(running[i], r)
			go r.run(ended) // ends with the service
		}
	}

	var first error
	select {
	case <-stop.Done():
		g.info("stopping")
	case <-now.Done():
		g.info("stopping at once")
	case first = <-ended:
		g.info("stopping: " + first.Error())
	}
	grace, cancel := context.WithTimeout(now, g.Grace)
	defer cancel()
	for _, tier := range slices.Backward(running) {
		if err := g.stopTier(grace, tier); first == nil {
			first = err
		}
	}
	return first
}

// runner is a service that runs.
type runner struct {
	Service
	done chan struct{} // closed when Run has returned

	mu      sync.Mutex
	stopped bool // Stop was called
	err     error
}

// run reports to ended if the service ends by itself.
func (r *runner) run(ended chan<- error) {
	defer close(r.done)
	if r.Run == nil {
		return
	}
	err := r.Run()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		r.err = fmt.Errorf("run %s: %w", r.Name, err)
	case !r.stopped:
		r.err = fmt.Errorf("run %s: it ended unasked", r.Name)
	default:
		return
	}
	ended <- r.err
}

// end stops the service and waits until it has ended.
func (r *runner) end(ctx context.Context) error {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	var err error
	if r.Stop != nil {
		if err = r.Stop(ctx); err != nil {
			err = fmt.Errorf("stop %s: %w", r.Name, err)
		}
	}
	<-r.done
	return errors.Join(r.err, err)
}

// stopTier stops the services of one tier together and waits for them: until
// grace is done, and then for g.Linger.
func (g Group) stopTier(grace context.Context, tier []*runner) error {
	type result struct {
		r   *runner
		err error
	}
	results := make(chan result, len(tier))
	left := map[*runner]bool{}
	for _, r := range tier {
		left[r] = true
		go func() { results <- result{r, r.end(grace)} }() // ends with the service
	}
	var first error
	hurry, over := grace.Done(), (<-chan time.Time)(nil)
	for len(left) > 0 {
		select {
		case res := <-results:
			delete(left, res.r)
			if first == nil {
				first = res.err
			}
		case <-hurry:
			hurry = nil // once
			timer := time.NewTimer(cmp.Or(g.Linger, 2*time.Second))
			defer timer.Stop()
			over = timer.C
		case <-over:
			var names []string
			for r := range left {
				names = append(names, r.Name)
			}
			slices.Sort(names)
			err := fmt.Errorf("stop %s: it did not end in time", strings.Join(names, ", "))
			g.info(err.Error())
			return errors.Join(first, err)
		}
	}
	return first
}

func (g Group) info(message string) {
	if g.Log != nil {
		g.Log.Info(message)
	}
}
