package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// redraw is how often a bar is drawn anew at most.
const redraw = 100 * time.Millisecond

// progress tells how far one image has come: by a bar on a terminal, by a line
// at the end elsewhere. It counts what is written to it, from any goroutine.
type progress struct {
	out      io.Writer
	terminal bool
	name     string
	started  time.Time

	mu          sync.Mutex
	blobs       int
	have, total int64
	drawn       time.Time
}

func newProgress(out io.Writer, name string) *progress {
	f, ok := out.(*os.File)
	return &progress{out: out, name: name, started: time.Now(), terminal: ok && isTerminal(f)}
}

// expect says what is to come.
func (p *progress) expect(blobs []oci.Descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blobs = len(blobs)
	for _, b := range blobs {
		p.total += max(b.Size, 0)
	}
}

// Write counts b.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have += int64(len(b))
	if now := time.Now(); p.terminal && now.Sub(p.drawn) >= redraw {
		p.drawn = now
		const width = 30
		filled := 0
		if p.total > 0 {
			filled = int(min(p.have*width/p.total, width))
		}
		fmt.Fprintf(p.out, "\r\x1b[K%s  [%s%s] %s of %s, %s/s", p.name, strings.Repeat("#", filled), strings.Repeat(".", width-filled),
			mebibytes(p.have), mebibytes(p.total), mebibytes(p.rate(now)))
	}
	return len(b), nil
}

// rate is bytes a second so far.
func (p *progress) rate(now time.Time) int64 {
	return int64(float64(p.have) / max(now.Sub(p.started).Seconds(), 0.001))
}

func (p *progress) done() {
	p.end(fmt.Sprintf("warm: %d blobs, %s in %.1f s, %s/s", p.blobs, mebibytes(p.have), time.Since(p.started).Seconds(), mebibytes(p.rate(time.Now()))))
}

func (p *progress) failed(err error) { p.end("failed: " + err.Error()) }

// end writes the last line.
func (p *progress) end(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	fmt.Fprintf(p.out, "%s  %s\n", p.name, text)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
