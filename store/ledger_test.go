package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/internal/oci"
)

func newLedger(t testing.TB) *Ledger {
	t.Helper()
	l, err := OpenLedger(filepath.Join(t.TempDir(), "index"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestLedgerChangesOnlyWhatTheCallerKnew(t *testing.T) {
	l, ctx := newLedger(t), t.Context()
	if _, err := l.Get(ctx, "a"); !errors.Is(err, ErrNoRecord) {
		t.Errorf("get of nothing: %v", err)
	}
	if err := l.Swap(ctx, "a", []byte("x"), ""); !errors.Is(err, ErrConflict) {
		t.Errorf("swap of nothing: %v", err)
	}
	if err := l.Delete(ctx, "a", ""); !errors.Is(err, ErrConflict) {
		t.Errorf("delete of nothing: %v", err)
	}
	if err := l.Create(ctx, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := l.Create(ctx, "a", []byte("2")); !errors.Is(err, ErrConflict) {
		t.Errorf("create of what is there: %v", err)
	}
	one := mustGet(t, l, "a")
	if string(one.Value) != "1" {
		t.Errorf("value %q", one.Value)
	}
	if err := l.Swap(ctx, "a", []byte("1"), one.Version); err != nil {
		t.Fatal(err)
	}
	two := mustGet(t, l, "a")
	if two.Version == one.Version {
		t.Error("the same value twice has one version")
	}
	if err := l.Swap(ctx, "a", []byte("3"), one.Version); !errors.Is(err, ErrConflict) {
		t.Errorf("swap of an old version: %v", err)
	}
	if err := l.Delete(ctx, "a", one.Version); !errors.Is(err, ErrConflict) {
		t.Errorf("delete of an old version: %v", err)
	}
	if err := l.Delete(ctx, "a", two.Version); err != nil {
		t.Fatal(err)
	}
	if err := l.Create(ctx, "a", []byte("4")); err != nil {
		t.Fatal(err)
	}
	if again := mustGet(t, l, "a"); again.Version == one.Version || again.Version == two.Version {
		t.Error("a record made anew has a version it had before")
	}
}

func mustGet(t *testing.T, l *Ledger, key string) Record {
	t.Helper()
	r, err := l.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLedgerLists(t *testing.T) {
	l, ctx := newLedger(t), t.Context()
	for _, key := range []string{"b/2", "a/1", "b/10", "b", "b/1", "c"} {
		if err := l.Create(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		prefix, after string
		n             int
		want          string
	}{
		{"", "", -1, "a/1 b b/1 b/10 b/2 c"},
		{"", "", 2, "a/1 b"},
		{"", "", 0, ""},
		{"b/", "", -1, "b/1 b/10 b/2"},
		{"b/", "b/1", -1, "b/10 b/2"},
		{"b/", "b/11", 1, "b/2"},
		{"b/", "a", -1, "b/1 b/10 b/2"},
		{"b/", "c", -1, ""},
		{"x", "", -1, ""},
	} {
		list, err := l.List(ctx, tt.prefix, tt.after, tt.n)
		var keys []string
		for _, r := range list {
			keys = append(keys, r.Key)
			if string(r.Value) != r.Key || r.Version == "" {
				t.Errorf("record %+v", r)
			}
		}
		if got := strings.Join(keys, " "); err != nil || got != tt.want {
			t.Errorf("list %+v: %q, %v", tt, got, err)
		}
	}
	// Each sees one moment, whatever happens while it goes on.
	seen := 0
	err := l.Each(ctx, func(r Record) error {
		seen++
		return l.Create(ctx, fmt.Sprintf("d/%d", seen), nil)
	})
	if err != nil || seen != 6 {
		t.Errorf("%d records at one moment, %v", seen, err)
	}
	stop := errors.New("stop")
	if err := l.Each(ctx, func(Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("each: %v", err)
	}
}

// TestLedgerCountsRight has many add to one number: every addition counts once.
func TestLedgerCountsRight(t *testing.T) {
	l, ctx := newLedger(t), t.Context()
	if err := l.Create(ctx, "n", nil); err != nil {
		t.Fatal(err)
	}
	const writers, each = 8, 25
	var running sync.WaitGroup
	var conflicts atomic.Int64
	for range writers {
		running.Go(func() {
			for added := 0; added < each; {
				r, err := l.Get(ctx, "n")
				if err == nil {
					err = l.Swap(ctx, "n", append(r.Value, '.'), r.Version)
				}
				switch {
				case errors.Is(err, ErrConflict):
					conflicts.Add(1)
				case err != nil:
					t.Error(err)
					return
				default:
					added++
				}
			}
		})
	}
	running.Wait()
	if got := len(mustGet(t, l, "n").Value); got != writers*each {
		t.Errorf("%d additions, want %d (%d conflicts)", got, writers*each, conflicts.Load())
	}
}

func TestLedgerKeepsWhatItAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	l, err := OpenLedger(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for n := range 300 {
		running.Go(func() {
			if err := l.Create(t.Context(), fmt.Sprintf("k/%03d", n), []byte(strings.Repeat("v", n*40))); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	// What a crash leaves: the files as they are, copied behind badger's back.
	crashed := filepath.Join(t.TempDir(), "index")
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
	if _, err := l.Get(t.Context(), "k/001"); !errors.Is(err, ErrClosed) {
		t.Errorf("get after close: %v", err)
	}
	if err := l.Create(t.Context(), "x", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("create after close: %v", err)
	}
	for _, dir := range []string{dir, crashed} {
		l, err := OpenLedger(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		list, err := l.List(t.Context(), "k/", "", -1)
		if err != nil || len(list) != 300 {
			t.Errorf("%d records are left, %v", len(list), err)
		}
		for n, r := range list {
			if string(r.Value) != strings.Repeat("v", n*40) {
				t.Errorf("record %s has %d bytes", r.Key, len(r.Value))
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLedgerRefuses(t *testing.T) {
	l, ctx := newLedger(t), t.Context()
	if err := l.Create(ctx, strings.Repeat("k", MaxRecordKey+1), nil); !errors.Is(err, oci.ErrNameInvalid) {
		t.Errorf("a long key: %v", err)
	}
	if err := l.Create(ctx, "k", make([]byte, MaxRecordValue+1)); !errors.Is(err, oci.ErrNameInvalid) {
		t.Errorf("a long value: %v", err)
	}
	if err := l.Create(ctx, strings.Repeat("k", MaxRecordKey), make([]byte, MaxRecordValue)); err != nil {
		t.Errorf("the longest: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := l.Get(gone, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("get for somebody who left: %v", err)
	}
}

// TestLedgerOnAFullDisk is that badger, which a full disk kills, is not asked to
// write on one, and that reading goes on.
func TestLedgerOnAFullDisk(t *testing.T) {
	l, ctx := newLedger(t), t.Context()
	if err := l.Create(ctx, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	real := l.files.statfs
	l.files.statfs = func(dir string) (unix.Statfs_t, error) {
		st, err := real(dir)
		st.Bavail = indexRoom/uint64(st.Frsize) - 1
		return st, err
	}
	if err := l.Create(ctx, "b", nil); !errors.Is(err, ErrNoSpace) {
		t.Errorf("create: %v", err)
	}
	if r := mustGet(t, l, "a"); string(r.Value) != "1" {
		t.Errorf("value %q", r.Value)
	}
	l.files.statfs = real
	if err := l.Create(ctx, "b", nil); err != nil {
		t.Errorf("create once there is room: %v", err)
	}
}

func TestLedgerThatIsDamagedOrNewer(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"damaged": func(t *testing.T, dir string) {
			tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
			if err != nil || len(tables) == 0 {
				t.Fatalf("no tables: %v", err)
			}
			if err := os.WriteFile(tables[0], []byte("rubbish"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"newer": func(t *testing.T, dir string) {
			db, err := openDatabase(tuned(dir, true, discarding()))
			if err != nil {
				t.Fatal(err)
			}
			if err := db.write([]entry{{[]byte(versionKey), []byte("larder-ledger 2")}}); err != nil {
				t.Fatal(err)
			}
			if err := db.close(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "index")
			l, err := OpenLedger(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Create(t.Context(), "a", []byte("1")); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			damage(t, dir)
			before, err := filepath.Glob(filepath.Join(dir, "*.sst"))
			if err != nil || len(before) == 0 {
				t.Fatal(before, err)
			}
			if l, err := OpenLedger(dir, nil); err == nil {
				l.Close()
				t.Fatal("it opens")
			}
			// It is left for somebody to look at.
			after, err := filepath.Glob(filepath.Join(dir, "*.sst"))
			if err != nil || len(after) < len(before) {
				t.Errorf("%d of %d tables are left, %v", len(after), len(before), err)
			}
		})
	}
}
