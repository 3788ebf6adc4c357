package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/ociserver"
)

// A line of the fast way is to the byte what logrus writes.
func TestRequestLinesAreLikeAllOthers(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	fields := []ociserver.Field{
		{Key: "bytes", Number: 1 << 40},
		{Key: "client", Text: "127.0.0.1:5"},
		{Key: "duration_ms", Number: 0.125},
		{Key: "repository", Text: `a "b" <c>`},
		{Key: "status", Number: 200},
		{Key: "tag", Text: "a=b"},
	}
	entry := &logrus.Entry{Time: at, Level: logrus.InfoLevel, Message: "request", Data: logrus.Fields{
		"bytes": int64(1 << 40), "client": "127.0.0.1:5", "duration_ms": 0.125, "repository": `a "b" <c>`, "status": 200, "tag": "a=b",
	}}
	for _, f := range []lineFormatter{{}, {json: true}} {
		want, err := f.Format(entry)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.appendRequest(nil, at, fields); string(got) != string(want) {
			t.Errorf("json %v:\n got %s\nwant %s", f.json, got, want)
		}
	}
}

func TestRequestLinesCostNoMemory(t *testing.T) {
	fields := []ociserver.Field{{Key: "bytes", Number: 12}, {Key: "client", Text: "127.0.0.1:5"}, {Key: "duration_ms", Number: 0.125}}
	line := make([]byte, 0, 1024)
	at := time.Now()
	if n := testing.AllocsPerRun(100, func() { lineFormatter{json: true}.appendRequest(line[:0], at, fields) }); n > 1 {
		t.Errorf("%v allocations for a line", n)
	}
}

// Every line is written once and whole, whoever writes at the same time, and
// those of the last moment before the end, too.
func TestRequestLogWritesAll(t *testing.T) {
	var out bytes.Buffer
	l := newRequestLog(&out, "info", "text")
	s := l.service()
	var running, writing sync.WaitGroup
	running.Go(func() {
		if err := s.Run(); err != nil {
			t.Error(err)
		}
	})
	const each = 2000
	for _, name := range []string{"a", "b", "c", "d"} {
		writing.Go(func() {
			for range each {
				l.Line(time.Now(), []ociserver.Field{{Key: name, Text: "x"}})
			}
		})
	}
	writing.Wait()
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	running.Wait()
	for _, name := range []string{"a", "b", "c", "d"} {
		if n := strings.Count(out.String(), " "+name+"=x\n"); n != each {
			t.Errorf("%d lines of %s, want %d", n, name, each)
		}
	}
}

func TestRequestLogOfAHigherLevel(t *testing.T) {
	var out bytes.Buffer
	l := newRequestLog(&out, "warn", "text")
	l.Line(time.Now(), nil)
	l.write(nil)
	if out.Len() != 0 {
		t.Errorf("got %q", out.String())
	}
}
