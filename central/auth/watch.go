package auth

import (
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// watched is what some files say, read again when they change. It looks when it
// is asked, at most every lookEvery, so nothing runs in between. Files are
// followed through links: a mounted Secret changes by its link.
type watched[T any] struct {
	paths []string
	parse func(contents [][]byte) (T, error)
	log   *logrus.Entry
	now   func() time.Time

	mu     sync.Mutex
	looked time.Time
	stamps []stamp
	value  T
}

// stamp tells one state of a file from another.
type stamp struct {
	size     int64
	modified time.Time
	file     os.FileInfo
}

const (
	// lookEvery bounds how often files are looked at, and so how long a
	// change takes to be noticed.
	lookEvery = 2 * time.Second
	// maxFile bounds a file, in bytes: an htpasswd file of ten thousand users
	// takes a tenth of it.
	maxFile = 8 << 20
)

// watch reads the files for the first time, and fails when they cannot be used.
func watch[T any](log *logrus.Entry, now func() time.Time, parse func([][]byte) (T, error), paths ...string) (*watched[T], error) {
	w := &watched[T]{paths: paths, parse: parse, log: log, now: now}
	stamps, err := w.look()
	if err != nil {
		return nil, err
	}
	if w.value, err = w.read(); err != nil {
		return nil, err
	}
	w.stamps, w.looked = stamps, now()
	return w, nil
}

// get returns what the files say. While they cannot be read or make no sense,
// that is what they said last, and the log says why.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.now(); now.Sub(w.looked) >= lookEvery || now.Before(w.looked) {
		w.looked = now
		w.refresh()
	}
	return w.value
}

func (w *watched[T]) refresh() {
	stamps, err := w.look()
	if same(stamps, w.stamps) {
		return // as they were, or not to be looked at, as before
	}
	// Remembered before they are read: a file that changes meanwhile is read
	// once more, and one that makes no sense is told of once.
	w.stamps = stamps
	if err == nil {
		var value T
		if value, err = w.read(); err == nil {
			w.value = value
			w.log.WithField("file", w.paths[0]).Info("read again after a change")
			return
		}
	}
	w.log.WithError(err).Error("a file has changed and cannot be used; what it said before stays in force")
}

func (w *watched[T]) look() ([]stamp, error) {
	stamps := make([]stamp, len(w.paths))
	for i, name := range w.paths {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() || info.Size() > maxFile {
			return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("not a regular file of at most %d bytes", maxFile)}
		}
		stamps[i] = stamp{info.Size(), info.ModTime(), info}
	}
	return stamps, nil
}

func same(a, b []stamp) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].size != b[i].size || !a[i].modified.Equal(b[i].modified) || !os.SameFile(a[i].file, b[i].file) {
			return false
		}
	}
	return true
}

func (w *watched[T]) read() (value T, err error) {
	contents := make([][]byte, len(w.paths))
	for i, name := range w.paths {
		if contents[i], err = os.ReadFile(name); err != nil {
			return value, err
		}
	}
	if value, err = w.parse(contents); err != nil {
		return value, fmt.Errorf("read %s: %w", w.paths[0], err)
	}
	return value, nil
}
