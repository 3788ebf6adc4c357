package upstream

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

const there = "https://registry.test"

func quietLog() *logrus.Entry {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logrus.NewEntry(logger)
}

func fail(t *testing.T, bs *breakers) {
	t.Helper()
	admit(t, bs).failure(1)
}

func wantHealth(t *testing.T, bs *breakers, reg prometheus.Gatherer, want Health) {
	t.Helper()
	got := bs.state()[there].Health
	if got != want {
		t.Errorf("breaker is %s, want %s", got, want)
	}
	if shown := series(t, reg)[`larder_breaker_state{endpoint=`+there+`}`]; shown != float64(got) {
		t.Errorf("the metric says %v of a breaker that is %s", shown, got)
	}
}

// TestBreakerPauses runs on a made-up clock. The pauses double from 5 s to 60 s,
// give or take a fifth; in each, exactly one probe goes out at the end.
func TestBreakerPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		bs := newBreakers(time.Now, newMetrics(reg), quietLog())
		for range breakerThreshold {
			admit(t, bs).release()
			wantHealth(t, bs, reg, Closed)
			fail(t, bs)
		}
		for _, pause := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 60 * time.Second, 60 * time.Second} {
			wantHealth(t, bs, reg, Open)
			<-time.After(pause * 79 / 100)
			if _, ok := bs.admit(there); ok {
				t.Errorf("admitted before a pause of %v was over", pause)
			}
			<-time.After(pause * 42 / 100)
			wantHealth(t, bs, reg, HalfOpen) // although nobody has asked since
			probe, ok := bs.admit(there)
			if !ok {
				t.Fatalf("no probe after a pause of %v", pause)
			}
			wantHealth(t, bs, reg, HalfOpen)
			if _, ok := bs.admit(there); ok {
				t.Error("a second request was admitted beside the probe")
			}
			probe.failure(1)
		}
	})
}

func TestBreakerVerdicts(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps func(t *testing.T, bs *breakers, now *clock)
		want  Health
	}{
		{"two failures", func(t *testing.T, bs *breakers, _ *clock) { fail(t, bs); fail(t, bs) }, Closed},
		{"three failures", func(t *testing.T, bs *breakers, _ *clock) { fail(t, bs); fail(t, bs); fail(t, bs) }, Open},
		{"success between", func(t *testing.T, bs *breakers, _ *clock) {
			fail(t, bs)
			fail(t, bs)
			admit(t, bs).success()
			fail(t, bs)
			fail(t, bs)
		}, Closed},
		{"a heavy one", func(t *testing.T, bs *breakers, _ *clock) { admit(t, bs).failure(breakerThreshold) }, Open},
		{"nothing learnt", func(t *testing.T, bs *breakers, _ *clock) {
			fail(t, bs)
			fail(t, bs)
			admit(t, bs).release()
		}, Closed},
		{"only the first verdict counts", func(t *testing.T, bs *breakers, _ *clock) {
			for range 5 {
				ticket := admit(t, bs)
				ticket.success()
				ticket.failure(1)
			}
		}, Closed},
		{"header alone is no success", func(t *testing.T, bs *breakers, _ *clock) {
			for range 3 {
				ticket := admit(t, bs)
				ticket.answered()
				ticket.broke(false)
			}
		}, Open},
		{"bodies that give something", func(t *testing.T, bs *breakers, _ *clock) {
			for range 9 {
				ticket := admit(t, bs)
				ticket.answered()
				ticket.broke(true)
			}
		}, Closed},
		{"a probe that answers", func(t *testing.T, bs *breakers, now *clock) {
			admit(t, bs).failure(breakerThreshold)
			now.advance(time.Minute)
			admit(t, bs).answered()
		}, Closed},
		{"a probe that is cancelled leaves room for the next", func(t *testing.T, bs *breakers, now *clock) {
			admit(t, bs).failure(breakerThreshold)
			now.advance(time.Minute)
			admit(t, bs).release()
			admit(t, bs)
		}, HalfOpen},
		{"one sent before it opened", func(t *testing.T, bs *breakers, now *clock) {
			early := admit(t, bs)
			admit(t, bs).failure(breakerThreshold)
			now.advance(time.Minute)
			early.failure(1) // no longer news
			admit(t, bs)
		}, HalfOpen},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := newClock()
			reg := prometheus.NewRegistry()
			bs := newBreakers(now.now, newMetrics(reg), quietLog())
			test.steps(t, bs, now)
			wantHealth(t, bs, reg, test.want)
		})
	}
}

func admit(t *testing.T, bs *breakers) *ticket {
	t.Helper()
	ticket, ok := bs.admit(there)
	if !ok {
		t.Fatal("not admitted")
	}
	return ticket
}

// TestBreakersAreBounded: names that clients make up cost neither memory nor
// metrics without end.
func TestBreakersAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	bs := newBreakers(time.Now, newMetrics(reg), quietLog())
	late := admit(t, bs)
	for i := range 3 * maxBreakers {
		if ticket, ok := bs.admit(fmt.Sprintf("https://r%d.test", i)); ok {
			ticket.success()
		}
	}
	late.failure(breakerThreshold) // of an endpoint that has made room
	if got := len(bs.state()); got != maxBreakers {
		t.Errorf("%d breakers, want %d", got, maxBreakers)
	}
	if got := len(series(t, reg)); got != maxBreakers {
		t.Errorf("%d series, want %d", got, maxBreakers)
	}
}
