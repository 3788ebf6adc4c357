package main

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/internal/rungroup"
)

// maxUnwritten is how many bytes of lines wait to be written before requests
// wait with them.
const maxUnwritten = 256 << 10

// gather is how long lines gather after others were written. The first after a
// quiet moment is written at once.
const gather = 5 * time.Millisecond

// requestLog writes the access log's lines of requests that went well, in the
// form in which logrus writes all others. They are written together, so that under load a line costs no system call of its own.
type requestLog struct {
	format lineFormatter
	out    io.Writer
	off    bool // the level is above that of these lines

	mu      sync.Mutex
	room    sync.Cond // on mu; told when lines were taken to be written
	pending []byte
	kick    chan struct{} // holds one: there are lines
	stopped chan struct{} // closed when nothing is to be written any more
}

// newRequestLog takes what newLogger does, which has found level and format good.
func newRequestLog(out io.Writer, level, format string) *requestLog {
	l := &requestLog{format: lineFormatter{json: format == "json"}, out: out, off: level == "error" || level == "warn", kick: make(chan struct{}, 1), stopped: make(chan struct{})}
	l.room.L = &l.mu
	return l
}

// Line implements ociserver.Lines.
func (l *requestLog) Line(at time.Time, fields []ociserver.Field) {
	if l.off {
		return
	}
	l.mu.Lock()
	for len(l.pending) > maxUnwritten {
		l.room.Wait()
	}
	l.pending = l.format.appendRequest(l.pending, at, fields)
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default: // about to be written
	}
}

// appendRequest appends a line as Format writes it.
func (f lineFormatter) appendRequest(line []byte, at time.Time, fields []ociserver.Field) []byte {
	if f.json {
		line = append(line, '{')
	}
	line = f.field(line, "time", at)
	line = append(line, f.constant()...)
	for _, field := range fields {
		line = f.key(line, field.Key)
		if field.Text != "" {
			line = appendText(line, field.Text, f.json)
		} else {
			line = appendNumber(line, field.Number)
		}
		line = f.separate(line)
	}
	return append(f.end(line), '\n')
}

// service writes lines until it is stopped, and what is left then.
func (l *requestLog) service() rungroup.Service {
	done := make(chan struct{})
	return rungroup.Service{
		Name: "access log",
		Run: func() error {
			defer close(done)
			var spare []byte
			pause := time.NewTimer(gather)
			defer pause.Stop()
			for {
				select {
				case <-l.kick:
				case <-l.stopped:
					l.write(spare)
					return nil
				}
				spare = l.write(spare)
				pause.Reset(gather)
				select {
				case <-pause.C:
				case <-l.stopped:
				}
			}
		},
		Stop: func(context.Context) error {
			close(l.stopped)
			// However late it is: the last lines say how it ended. Who reads
			// them may not keep the process from ending, though.
			patience := time.NewTimer(linger / 2)
			defer patience.Stop()
			select {
			case <-done:
			case <-patience.C:
			}
			return nil
		},
	}
}

// write writes what is pending, and returns what held it, to hold the next.
func (l *requestLog) write(spare []byte) []byte {
	l.mu.Lock()
	lines := l.pending
	l.pending = spare[:0]
	l.room.Broadcast()
	l.mu.Unlock()
	if len(lines) > 0 {
		_, _ = l.out.Write(lines) //nolint:errcheck // there is nowhere to say so
	}
	return lines
}
