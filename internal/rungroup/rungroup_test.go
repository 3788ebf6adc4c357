package rungroup_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/internal/rungroup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// long is a time no test takes; it is only used up by a failure.
const long = 30 * time.Second

// diary is the order in which things happened.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) write(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

// service runs until it is stopped, and writes in the diary when it is and when
// it has ended.
func (d *diary) service(name string, started *sync.WaitGroup) rungroup.Service {
	stop := make(chan struct{})
	started.Add(1)
	return rungroup.Service{
		Name: name,
		Run: func() error {
			started.Done()
			<-stop
			d.write(name + " ends")
			return nil
		},
		Stop: func(context.Context) error {
			d.write("stop " + name)
			close(stop)
			return nil
		},
	}
}

func TestStopsInOrderOfDependencies(t *testing.T) {
	var d diary
	var started sync.WaitGroup
	stop, ask := context.WithCancel(t.Context())
	store := rungroup.Service{Name: "store", Stop: func(context.Context) error {
		d.write("stop store")
		return nil
	}}
	tiers := [][]rungroup.Service{
		{store},
		{d.service("mirror", &started)},
		{d.service("server a", &started), d.service("server b", &started)},
	}
	go func() { // ends when all have started
		started.Wait()
		ask()
	}()
	if err := (rungroup.Group{Grace: long}).Run(stop, t.Context(), tiers...); err != nil {
		t.Fatal(err)
	}
	// The two servers come in any order, each stopped before it ends.
	slices.Sort(d.lines[:4])
	want := []string{"server a ends", "server b ends", "stop server a", "stop server b", "stop mirror", "mirror ends", "stop store"}
	if !slices.Equal(d.lines, want) {
		t.Errorf("got %q, want %q", d.lines, want)
	}
}

// TestSiblingsStopTogether: neither of two services of a tier ends before the
// other was told to.
func TestSiblingsStopTogether(t *testing.T) {
	stop, ask := context.WithCancel(t.Context())
	ask()
	var told sync.WaitGroup
	told.Add(2)
	sibling := func(name string) rungroup.Service {
		return rungroup.Service{Name: name, Stop: func(context.Context) error {
			told.Done()
			told.Wait()
			return nil
		}}
	}
	if err := (rungroup.Group{Grace: long}).Run(stop, t.Context(), []rungroup.Service{sibling("a"), sibling("b")}); err != nil {
		t.Fatal(err)
	}
}

func TestAServiceThatEndsStopsAll(t *testing.T) {
	broken := errors.New("address in use")
	tests := map[string]struct {
		result error
		want   string
	}{
		"with an error": {broken, "run server: address in use"},
		"unasked":       {nil, "run server: it ended unasked"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var d diary
			var started sync.WaitGroup
			mirror := d.service("mirror", &started)
			stopped := 0
			server := rungroup.Service{
				Name: "server",
				Run: func() error {
					started.Wait()
					return tt.result
				},
				Stop: func(context.Context) error {
					stopped++
					return errors.New("stopping is no news any more")
				},
			}
			logger, logged := test.NewNullLogger()
			err := rungroup.Group{Grace: long, Log: logrus.NewEntry(logger)}.Run(t.Context(), t.Context(), []rungroup.Service{mirror}, []rungroup.Service{server})
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if tt.result != nil && !errors.Is(err, tt.result) {
				t.Errorf("%v does not wrap its cause", err)
			}
			if stopped != 1 || !slices.Equal(d.lines, []string{"stop mirror", "mirror ends"}) {
				t.Errorf("server stopped %d times; %q", stopped, d.lines)
			}
			if e := logged.LastEntry(); e == nil || e.Message != "stopping: "+tt.want {
				t.Errorf("logged %v", e)
			}
		})
	}
}

func TestErrorsOfStopping(t *testing.T) {
	flush, drain := errors.New("flush"), errors.New("drain")
	stop, ask := context.WithCancel(t.Context())
	ask()
	closed := false
	err := rungroup.Group{Grace: long}.Run(stop, t.Context(),
		[]rungroup.Service{{Name: "store", Stop: func(context.Context) error { closed = true; return flush }}},
		[]rungroup.Service{{Name: "server", Stop: func(context.Context) error { return drain }}},
	)
	if !errors.Is(err, drain) || errors.Is(err, flush) || err.Error() != "stop server: drain" {
		t.Errorf("got %v, want the first error", err)
	}
	if !closed {
		t.Error("the store was not stopped after the server failed to")
	}
}

func TestRunFailsWhileStopping(t *testing.T) {
	stop, ask := context.WithCancel(t.Context())
	told := make(chan struct{})
	cause := errors.New("accept failed")
	server := rungroup.Service{
		Name: "server",
		Run:  func() error { ask(); <-told; return cause },
		Stop: func(context.Context) error { close(told); return nil },
	}
	if err := (rungroup.Group{Grace: long}).Run(stop, t.Context(), []rungroup.Service{server}); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

// draining is a service whose Stop waits for what never ends, as long as it
// may.
func draining(name string, began chan<- struct{}) rungroup.Service {
	return rungroup.Service{Name: name, Stop: func(ctx context.Context) error {
		close(began)
		<-ctx.Done()
		return nil
	}}
}

func TestOneDeadlineForAll(t *testing.T) {
	stop, ask := context.WithCancel(t.Context())
	ask()
	first, second := make(chan struct{}), make(chan struct{})
	err := rungroup.Group{Grace: time.Millisecond, Linger: long}.Run(stop, t.Context(),
		[]rungroup.Service{draining("mirror", first)}, []rungroup.Service{draining("server", second)})
	if err != nil {
		t.Errorf("got %v", err)
	}
	<-first
	<-second
}

func TestNowEndsTheGrace(t *testing.T) {
	stop, ask := context.WithCancel(t.Context())
	now, hurry := context.WithCancel(t.Context())
	began := make(chan struct{})
	go func() { // ends when the drain has begun
		ask()
		<-began
		hurry()
	}()
	if err := (rungroup.Group{Grace: 100 * long, Linger: long}).Run(stop, now, []rungroup.Service{draining("server", began)}); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestNowAloneStops(t *testing.T) {
	now, hurry := context.WithCancel(t.Context())
	hurry()
	began := make(chan struct{})
	if err := (rungroup.Group{Grace: 100 * long, Linger: long}).Run(t.Context(), now, []rungroup.Service{draining("server", began)}); err != nil {
		t.Errorf("got %v", err)
	}
}

// TestHangingServiceIsLeftBehind: it is named, and does not keep the store from
// being closed.
func TestHangingServiceIsLeftBehind(t *testing.T) {
	stop, ask := context.WithCancel(t.Context())
	ask()
	release, ended := make(chan struct{}), make(chan struct{})
	closed := false
	err := rungroup.Group{Grace: time.Millisecond, Linger: time.Second}.Run(stop, t.Context(),
		[]rungroup.Service{{Name: "store", Stop: func(context.Context) error { closed = true; return nil }}},
		[]rungroup.Service{
			{Name: "server", Stop: func(context.Context) error { return nil }},
			{Name: "mirror", Run: func() error { defer close(ended); <-release; return nil }},
		})
	if err == nil || !strings.Contains(err.Error(), "stop mirror: it did not end in time") {
		t.Errorf("got %v", err)
	}
	if !closed {
		t.Error("the store was not stopped")
	}
	close(release)
	<-ended
}

func TestNothingToRun(t *testing.T) {
	stop, ask := context.WithCancel(t.Context())
	ask()
	if err := (rungroup.Group{}).Run(stop, t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}
