package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/admin"
	"github.com/larder-registry/larder/internal/rungroup"
	"github.com/larder-registry/larder/internal/status"
)

// observer is what a process remembers of itself for the status page: its last
// errors and a day of its counters.
type observer struct {
	metrics prometheus.Gatherer
	started time.Time
	host    string
	events  status.Events
	history *status.History
	// counters names what of a tally the history has.
	counters []counter
	// basis is what all views have in common.
	basis status.Cache[basis]
}

// counter is one line of the history.
type counter struct {
	name string
	of   func(*tally) int64
}

// basis is what was counted a moment ago.
type basis struct {
	at    time.Time
	tally *tally
}

// newObserver makes the observer of a process with these services, and has it see what
// is logged.
func newObserver(log *logrus.Entry, metrics prometheus.Gatherer, services ...string) *observer {
	o := &observer{metrics: metrics, started: time.Now(), basis: status.Cache[basis]{For: time.Second}}
	o.host, _ = os.Hostname() // without, the page has no name
	for _, service := range services {
		switch service {
		case "mirror":
			o.counters = append(o.counters,
				counter{"requests", func(t *tally) int64 { return t.sum.Requests }}, counter{"hits", func(t *tally) int64 { return t.sum.Hits }},
				counter{"saved", func(t *tally) int64 { return t.sum.Saved }}, counter{"passed", func(t *tally) int64 { return t.sum.Passed }})
		case "registry":
			o.counters = append(o.counters,
				counter{"served", func(t *tally) int64 { return t.sum.Saved + t.sum.Passed }}, counter{"received", func(t *tally) int64 { return t.received }})
		case "webhook":
			o.counters = append(o.counters,
				counter{"reviews", func(t *tally) int64 { return t.reviewed() }}, counter{"denied", func(t *tally) int64 { return t.reviews["denied"] }})
		}
	}
	names := make([]string, len(o.counters))
	for i, c := range o.counters {
		names[i] = c.name
	}
	o.history = status.NewHistory(names...)
	log.Logger.SetFormatter(noting{log.Logger.Formatter, &o.events})
	return o
}

// service notes the counters until it is stopped.
func (o *observer) service() rungroup.Service {
	return until("history", func(ctx context.Context) error {
		tick := time.NewTicker(status.HistoryEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				o.history.Note(o.values(o.count()))
			case <-ctx.Done():
				return nil
			}
		}
	})
}

// document is what every process has to say.
func (o *observer) document(mode string, checks admin.Checks) (*status.Document, *tally) {
	b := o.basis.Get(func() basis { return basis{time.Now(), o.count()} })
	doc := &status.Document{
		Schema: status.Schema, Mode: mode, Version: versionText(), Host: o.host, At: b.at, Started: o.started, Ready: true,
		Checks: []status.Check{}, History: o.history.Series(b.at, o.values(b.tally)), Errors: o.events.List(),
	}
	for _, c := range checks {
		check := status.Check{Name: c.Name, Advisory: c.Advisory}
		if err := c.Ready(); err != nil {
			check.Problem = err.Error()
			doc.Ready = doc.Ready && c.Advisory
		}
		doc.Checks = append(doc.Checks, check)
	}
	return doc, b.tally
}

func (o *observer) values(t *tally) []int64 {
	values := make([]int64, len(o.counters))
	for i, c := range o.counters {
		values[i] = c.of(t)
	}
	return values
}

// tally is what the metrics say, added up.
type tally struct {
	traffic []status.Traffic
	sum     status.Traffic
	// remaining is what is left of rate limits, by registry.
	remaining map[string]int64
	received  int64
	reviews   map[string]int64
	revision  string
}

func (t *tally) reviewed() (n int64) {
	for _, count := range t.reviews {
		n += count
	}
	return n
}

// count reads the metrics. What cannot be read is not counted; /metrics says so.
func (o *observer) count() *tally {
	t := &tally{remaining: map[string]int64{}, reviews: map[string]int64{}}
	families, _ := o.metrics.Gather() //nolint:errcheck // see above
	by := map[string]*status.Traffic{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			label := func(name string) string {
				for _, pair := range m.GetLabel() {
					if pair.GetName() == name {
						return pair.GetValue()
					}
				}
				return ""
			}
			t.take(f.GetName(), label, int64(m.GetCounter().GetValue()+m.GetGauge().GetValue()), by)
		}
	}
	for _, one := range by {
		t.traffic = append(t.traffic, *one)
	}
	slices.SortFunc(t.traffic, func(a, b status.Traffic) int {
		return cmp.Or(cmp.Compare(b.Saved+b.Passed, a.Saved+a.Passed), cmp.Compare(a.Registry, b.Registry))
	})
	t.sum = status.Sum(t.traffic)
	return t
}

// take adds one value. Requests are those for blobs and image manifests, but for
// those that were asked for credentials: the same request comes again with them.
func (t *tally) take(name string, label func(string) string, n int64, by map[string]*status.Traffic) {
	of := func() *status.Traffic {
		registry := label("registry")
		if by[registry] == nil {
			by[registry] = &status.Traffic{Registry: registry}
		}
		return by[registry]
	}
	switch name {
	case "larder_requests_total":
		if kind := label("kind"); kind != "blob" && kind != "manifest" || label("code") == "401" {
			return
		}
		switch label("outcome") {
		case "hit", "join", "stale":
			of().Requests += n
			of().Hits += n
		case "fill", "pass":
			of().Requests += n
		case "miss":
			of().Requests += n
			of().Misses += n
		}
	case "larder_served_bytes_total":
		if label("source") == "upstream" {
			of().Passed += n
		} else {
			of().Saved += n
		}
	case "larder_upstream_bytes_total":
		of().Fetched += n
	case "larder_stale_served_total":
		of().Stale += n
	case "larder_policy_denied_total":
		if label("mode") == "enforce" {
			of().Denied += n
		}
	case "larder_private_denied_total":
		if label("reason") == "refused" {
			of().Denied += n
		}
	case "larder_upstream_ratelimit_remaining":
		t.remaining[label("registry")] = n
	case "larder_central_received_bytes_total":
		t.received += n
	case "larder_admission_reviews_total":
		t.reviews[label("decision")] += n
	case "larder_policy_revision_info":
		t.revision = label("revision")
	}
}

// noting is a log's formatter that has warnings and errors remembered. It costs
// other lines nothing, as hooks would.
type noting struct {
	logrus.Formatter
	events *status.Events
}

// Format implements logrus.Formatter.
func (f noting) Format(e *logrus.Entry) ([]byte, error) {
	if e.Level <= logrus.WarnLevel {
		f.note(e)
	}
	return f.Formatter.Format(e)
}

// note remembers a line, with those of its fields that say what it is about.
// Verdicts of the webhook are remembered elsewhere.
func (f noting) note(e *logrus.Entry) {
	text := func(key string) string {
		if v, ok := e.Data[key]; ok {
			return fmt.Sprint(v)
		}
		return ""
	}
	if e.Data["rule"] != nil {
		return
	}
	event := status.Event{At: e.Time, Level: e.Level.String(), Message: e.Message, Error: text(logrus.ErrorKey)}
	if e.Message == "request" {
		event.Message = fmt.Sprintf("%s %s answered with %s", text("method"), text("kind"), text("status"))
	}
	subject := strings.Trim(text("registry")+"/"+text("repository"), "/")
	if tag := text("tag"); tag != "" {
		subject += ":" + tag
	} else if dgst := text("digest"); dgst != "" {
		subject = strings.TrimPrefix(subject+"@"+dgst, "@")
	}
	event.Subject = strings.Join(slices.DeleteFunc([]string{subject, text("endpoint"), text("file"), text("reason")}, func(s string) bool { return s == "" }), " ")
	f.events.Add(event)
}
