package status_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/status"
)

func names(l *status.List[status.Image]) (all []string) {
	for _, i := range l.Items {
		all = append(all, i.Name()+":"+i.Tag)
	}
	return all
}

func TestSelect(t *testing.T) {
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	all := []status.Image{
		{Registry: "docker.io", Repository: "library/b", Tag: "1", Size: 10, Used: day},
		{Registry: "docker.io", Repository: "library/a", Tag: "1", Size: 30, Used: day},
		{Registry: "ghcr.io", Repository: "secret/c", Tag: "2", Size: 20, Used: day.Add(time.Hour), Private: true},
		{Repository: "own", Tag: "3", Size: 5, Pushed: day.Add(2 * time.Hour)},
	}
	before := slices.Clone(all)
	for name, c := range map[string]struct {
		view  status.View
		want  []string
		total int
		bytes int64
	}{
		"as it is":             {status.View{}, []string{"own:3", "ghcr.io/secret/c:2", "docker.io/library/a:1", "docker.io/library/b:1"}, 4, 65},
		"by size":              {status.View{Sort: status.SortSize}, []string{"docker.io/library/a:1", "ghcr.io/secret/c:2", "docker.io/library/b:1", "own:3"}, 4, 65},
		"by name":              {status.View{Sort: status.SortName}, []string{"own:3", "docker.io/library/a:1", "docker.io/library/b:1", "ghcr.io/secret/c:2"}, 4, 65},
		"cut":                  {status.View{Sort: status.SortSize, Limit: 1}, []string{"docker.io/library/a:1"}, 4, 65},
		"found":                {status.View{Find: "library/a:1"}, []string{"docker.io/library/a:1"}, 1, 30},
		"found nowhere":        {status.View{Find: "nothing"}, nil, 0, 0},
		"found, private":       {status.View{Find: "secret"}, []string{"ghcr.io/secret/c:2"}, 1, 20},
		"not found in public":  {status.View{Find: "secret", Public: true}, nil, 0, 0},
		"public":               {status.View{Public: true}, []string{"own:3", "ghcr.io:", "docker.io/library/a:1", "docker.io/library/b:1"}, 4, 65},
		"public, its registry": {status.View{Find: "ghcr", Public: true}, []string{"ghcr.io:"}, 1, 20},
	} {
		t.Run(name, func(t *testing.T) {
			l := status.Select(all, c.view)
			if got := names(l); !slices.Equal(got, c.want) || l.Total != c.total || l.Bytes != c.bytes || l.Items == nil {
				t.Errorf("%v of %d with %d bytes; want %v of %d with %d", got, l.Total, l.Bytes, c.want, c.total, c.bytes)
			}
			if !reflect.DeepEqual(all, before) {
				t.Error("what was given has changed")
			}
		})
	}
}

func TestParseView(t *testing.T) {
	for query, want := range map[string]string{
		"":                                  "",
		"sort=size&limit=1000&find=+a+":     "",
		"sort=age":                          `sort "age": write used, size or name`,
		"limit=0":                           `limit "0": write a number from 1 to 1000`,
		"limit=1001":                        `limit "1001": write a number from 1 to 1000`,
		"limit=many":                        `limit "many": write a number from 1 to 1000`,
		"find=" + strings.Repeat("x", 201):  "find: write at most 200 bytes",
		"limit=" + strings.Repeat("9", 2e3): "write a number from 1 to 1000",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		_, err = status.ParseView(q)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 120) {
			t.Errorf("%.40s: %v, want %q", query, err, want)
		}
	}
	for query, want := range map[string]status.View{
		"find=+a+":                   {Sort: "used", Limit: 100, Find: "a"},
		"sort=size&limit=1000&find=": {Sort: "size", Limit: 1000},
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := status.ParseView(q); err != nil || v != want {
			t.Errorf("%s: %v, %v", query, v, err)
		}
	}
}

// secret is in everything that Redact has to take out.
const secret = "team-secret/app"

// full has secret in every text of every part, all of it private.
func full() *status.Document {
	d := &status.Document{
		Fills:        status.First([]status.Fill{{Private: true}}, 1),
		Upstreams:    status.First([]status.Upstream{{}}, 1),
		Images:       status.First([]status.Image{{Private: true}}, 1),
		Repositories: status.First([]status.Repository{{Private: true}}, 1),
		Errors:       status.First([]status.Event{{}}, 1),
		Reviews:      &status.Reviews{Denied: []status.Verdict{{}}, Allowed: []status.Verdict{{}}},
		Names:        true,
	}
	// What may stay: it is in the metrics, or says nothing.
	kept := []string{"Registry", "Kind", "Endpoint", "Breaker", "Reason", "Level", "Message", "Operation", "Resource", "Decision", "Mode", "Revision", "Platforms", "Version", "Host"}
	var fill func(v reflect.Value, name string)
	fill = func(v reflect.Value, name string) {
		switch v.Kind() {
		case reflect.String:
			if !slices.Contains(kept, name) {
				v.SetString(secret)
			}
		case reflect.Pointer:
			if !v.IsNil() {
				fill(v.Elem(), name)
			}
		case reflect.Slice:
			for i := range v.Len() {
				fill(v.Index(i), name)
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.IsExported() {
					fill(v.Field(i), f.Name)
				}
			}
		}
	}
	fill(reflect.ValueOf(d), "")
	return d
}

func TestRedact(t *testing.T) {
	d := full()
	before := func() string {
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if n := strings.Count(before(), secret); n < 15 {
		t.Fatalf("only %d texts hold the secret", n)
	}
	items := d.Images.Items
	d.Redact()
	// One mode has no private host, mode or check.
	d.Mode = "mirror"
	if text := before(); strings.Contains(text, secret) || d.Names {
		t.Errorf("left in: %s", text)
	}
	if items[0].Repository != secret {
		t.Error("the list that others may be looking at has changed")
	}
}

func TestEvents(t *testing.T) {
	var es status.Events
	if l := es.List(); l.Total != 0 || l.Items == nil || len(l.Items) != 0 {
		t.Errorf("%+v", l)
	}
	for i := range 70 {
		es.Add(status.Event{At: time.Unix(int64(i), 0), Message: fmt.Sprint(i), Level: "warning"})
	}
	es.Add(status.Event{At: time.Unix(100, 0), Message: "69", Level: "warning"})
	l := es.List()
	if l.Total != 71 || len(l.Items) != 50 || l.Items[0].Message != "69" || l.Items[0].Count != 2 || l.Items[0].At.Unix() != 100 || l.Items[49].Message != "20" || l.Items[1].Count != 1 {
		t.Errorf("%d of %d: %+v", len(l.Items), l.Total, l.Items)
	}
	es.Add(status.Event{Message: strings.Repeat("ü", 1000)})
	if m := es.List().Items[0].Message; len(m) > 410 || !strings.HasSuffix(m, "ü…") {
		t.Errorf("%d bytes: %s", len(m), m)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 100 {
				es.Add(status.Event{Message: fmt.Sprint(i)})
				es.List()
			}
		})
	}
	group.Wait()
	if l := es.List(); l.Total != 72+800 || len(l.Items) != 50 {
		t.Error(l.Total, len(l.Items))
	}
}

func TestHistory(t *testing.T) {
	h, now := status.NewHistory("a", "b"), time.Unix(1000, 0)
	if s := h.Series(now, []int64{3, 4}); !reflect.DeepEqual(s, &status.Series{Every: 300, Until: now, Counts: map[string][]int64{"a": {3}, "b": {4}}}) {
		t.Errorf("%+v", s)
	}
	h.Note([]int64{10, 1})
	h.Note([]int64{10, 5})
	if s := h.Series(now, []int64{17, 3}); !reflect.DeepEqual(s.Counts, map[string][]int64{"a": {10, 0, 7}, "b": {1, 4, 0}}) {
		t.Errorf("%v", s.Counts)
	}
	for i := range int64(400) {
		h.Note([]int64{100 + i, 5})
	}
	s := h.Series(now, []int64{600, 5})
	if a := s.Counts["a"]; len(a) != 288 || a[287] != 101 || slices.Max(a[:287]) != 1 || slices.Min(a) != 1 {
		t.Errorf("%d parts: %v", len(a), a)
	}
}

func TestCache(t *testing.T) {
	found := 0
	c := status.Cache[int]{For: time.Hour}
	for range 3 {
		if got := c.Get(func() int { found++; return found }); got != 1 {
			t.Errorf("got %d", got)
		}
	}
	c = status.Cache[int]{For: 1} // a nanosecond: always over
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() { c.Get(func() int { found++; return found }) })
	}
	group.Wait()
	if found < 2 || found > 5 {
		t.Errorf("found out %d times", found)
	}
}

func TestTexts(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for got, want := range map[string]string{
		status.Size(-1): "?", status.Size(0): "0 B", status.Size(1023): "1023 B", status.Size(1024): "1.0 KiB", status.Size(1536 << 20): "1.5 GiB",
		status.Size(100 << 20): "100 MiB", status.Size(1<<20 - 1): "1.0 MiB", status.Size(1<<63 - 1): "8.0 EiB",
		status.Percent(1, 0): "–", status.Percent(999, 1000): "99 %", status.Percent(1000, 1000): "100 %", status.Percent(1, 1000): "0.1 %", status.Percent(0, 9): "0 %", status.Percent(99, 1000): "9.9 %",
		status.Span(-time.Hour): "0 s", status.Span(59 * time.Second): "59 s", status.Span(90 * time.Second): "1 min", status.Span(47 * time.Hour): "47 h", status.Span(48 * time.Hour): "2 days",
		status.Since(time.Time{}, now): "–", status.Since(now.Add(-time.Second), now): "just now", status.Since(now.Add(-time.Hour), now): "1 h ago",
		status.ShortDigest("sha256:0123456789abcdef"): "sha256:0123456789ab", status.ShortDigest("sha256:01"): "sha256:01", status.ShortDigest(""): "",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
