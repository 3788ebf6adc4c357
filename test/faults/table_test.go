package faults

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

// row is one fault, and what comes of it in each situation.
type row struct {
	name string
	// fault befalls every request of the situation's kind unless it says
	// otherwise.
	fault registry.Fault
	opts  registry.Options
	// prepare does to the server what is no Fault.
	prepare  func(*registry.Server)
	distrust bool
	// within bounds each answer; 8 s when zero.
	within time.Duration
	// impatient: the mirror does not wait for the upstream's word on a tag for
	// longer than it does by default.
	impatient bool
	// long rows run only with -long.
	long bool
	want cells
}

// cells are the situations. A cell without words is not run.
type cells struct {
	tagCold   cell // a tag never seen
	tagCached cell // a tag that is held and has not changed
	tagMoved  cell // a tag that is held and now names something else
	byDigest  cell // an image manifest never seen, by digest
	blob      cell // a blob of a manifest never seen
	listed    cell // a blob whose image manifest was pulled before
	ranged    cell // a Range in the middle of a blob never seen
}

// cell is what must come of a fault in one situation.
type cell struct {
	// see lists the words (client_test.go) that may be seen, with a bar
	// between.
	see string
	// asks is how many requests the upstream gets at most, of all kinds.
	asks int
}

func want(see string, asks int) cell { return cell{see: see, asks: asks} }

// situation is a column of the table.
type situation struct {
	name string
	kind registry.Kind
	// warm is run while the upstream is well.
	warm func(t *testing.T, l *larder, up *upstream)
	ask  func(up *upstream) ask
	cell func(cells) cell
}

// upstream is one situation's registry and what it holds.
type upstream struct {
	*registry.Server
	image registry.Image
	moved registry.Image // what the tag names after it moved; else the same
}

const (
	repo = "team/app"
	tag  = "v1"
	// user and password are the mirror's own at registries that want some.
	user, password = "robot", "opensesame"
	// layerSize is more than a connection buffers in one go.
	layerSize = 300_000
	// rangeFrom and rangeTo are asked for by the situation ranged.
	rangeFrom, rangeTo = 100_000, 200_000
)

func tagAsk(up *upstream) ask {
	return ask{server: up.Server, repo: repo, kind: registry.Manifests, tag: tag, blob: up.moved.Blob}
}

func digestAsk(up *upstream) ask {
	return ask{server: up.Server, repo: repo, kind: registry.Manifests, blob: up.image.Blob}
}

func blobAsk(up *upstream) ask {
	return ask{server: up.Server, repo: repo, kind: registry.Blobs, blob: up.image.Layers[0]}
}

func warmTag(t *testing.T, l *larder, up *upstream) { l.mustGet(t, right, tagAsk(up)) }

func situations() []situation {
	return []situation{
		{name: "tag cold", kind: registry.Manifests, ask: tagAsk, cell: func(c cells) cell { return c.tagCold }},
		{name: "tag cached", kind: registry.Manifests, warm: warmTag, ask: tagAsk, cell: func(c cells) cell { return c.tagCached }},
		{
			name: "tag moved", kind: registry.Manifests, ask: tagAsk, cell: func(c cells) cell { return c.tagMoved },
			warm: func(t *testing.T, l *larder, up *upstream) {
				warmTag(t, l, up)
				up.moved = up.AddImage(repo, tag, registry.NewLayer(99, 5000))
			},
		},
		{name: "by digest", kind: registry.Manifests, ask: digestAsk, cell: func(c cells) cell { return c.byDigest }},
		{name: "blob", kind: registry.Blobs, ask: blobAsk, cell: func(c cells) cell { return c.blob }},
		{name: "listed blob", kind: registry.Blobs, warm: warmTag, ask: blobAsk, cell: func(c cells) cell { return c.listed }},
		{
			name: "ranged blob", kind: registry.Blobs, cell: func(c cells) cell { return c.ranged },
			ask: func(up *upstream) ask {
				a := blobAsk(up)
				a.from, a.to = rangeFrom, rangeTo
				return a
			},
		},
	}
}

// TestTable runs every row with a mirror of its own, all situations of it at
// once, each with a registry of its own.
func TestTable(t *testing.T) {
	for _, r := range table() {
		if r.long && !*long {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			runRow(t, r)
		})
	}
}

func runRow(t *testing.T, r row) {
	var (
		columns []situation
		ups     []*upstream
		conf    = settings{distrust: r.distrust, impatient: r.impatient, extra: []string{"stall_timeout: 1s"}}
	)
	for i, s := range situations() {
		if s.cell(r.want).see == "" {
			continue
		}
		up := &upstream{Server: registry.Start(t, r.opts)}
		// Content of its own, too: what one situation fetched is no help to another.
		up.image = up.AddImage(repo, tag, registry.NewLayer(uint64(i), layerSize))
		up.moved = up.image
		columns, ups = append(columns, s), append(ups, up)
		conf.servers = append(conf.servers, up.Server)
	}
	if len(r.opts.Users) > 0 {
		conf.entry = []string{"username: " + user, "password: " + password}
	}
	l := startLarder(t, conf)
	results := make([]seen, len(columns))
	var all sync.WaitGroup
	for i, s := range columns {
		up := ups[i]
		if s.warm != nil {
			s.warm(t, l, up)
		}
		up.Forget()
		f := r.fault
		if f.On == "" {
			f.On = s.kind
		}
		if r.prepare != nil {
			r.prepare(up.Server)
		} else {
			up.Set(f)
		}
		all.Go(func() { results[i] = l.getOldOrNew(t, up, s.ask(up)) })
	}
	all.Wait()
	l.stop()
	for i, s := range columns {
		t.Run(s.name, func(t *testing.T) { judge(t, r, s, l, ups[i], results[i]) })
	}
}

// getOldOrNew asks for what the tag names now, and if it was served the old
// image, as stale, judges by that.
func (l *larder) getOldOrNew(t *testing.T, up *upstream, a ask) seen {
	s := l.get(t, a)
	if s.word == wrong && a.tag != "" && s.header.Get("Docker-Content-Digest") == up.image.Digest.String() {
		a.blob = up.image.Blob
		if again := l.get(t, a); again.word == stale {
			return again
		}
	}
	return s
}

func judge(t *testing.T, r row, s situation, l *larder, up *upstream, got seen) {
	c, a := s.cell(r.want), s.ask(up)
	if !slices.Contains(strings.Split(c.see, "|"), got.word) {
		t.Errorf("saw %v, want %s", got, c.see)
	}
	within := r.within
	if within == 0 {
		within = 8 * time.Second
	}
	if got.took > within {
		t.Errorf("took %v, want at most %v", got.took, within)
	}
	if asked := up.Requests(); len(asked) > c.asks {
		t.Errorf("%d upstream requests, want at most %d:%s", len(asked), c.asks, list(asked))
	}
	switch kept := l.kept(a.blob.Digest); {
	case got.word == right && !a.ranged() && !kept:
		t.Error("it was served whole and right, and is not kept")
	case got.word != right && got.word != stale && kept && s.name != "tag cached":
		t.Error("it is kept, though it was never served whole and right")
	}
}

// list writes requests down for people.
func list(all []registry.Request) string {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "\n\t%s %s %s → %d, %d bytes", r.Method, r.Path, r.Range(), r.Status, r.Sent)
	}
	return b.String()
}
