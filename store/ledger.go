package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
)

// Record is one entry of a ledger.
type Record struct {
	Key   string
	Value []byte
	// Version tells one value of a key from every other it ever had. Two
	// versions are compared for being the same, and for nothing else.
	Version string
}

var (
	// ErrNoRecord means that a ledger has nothing under a key.
	ErrNoRecord = errors.New("no such record")
	// ErrConflict means that a record is there already, or has another version
	// than the caller knew: somebody else was first. The caller reads again.
	ErrConflict = errors.New("record was changed by somebody else")
)

// The bounds on what a ledger keeps, in bytes; what is larger is refused with
// oci.ErrNameInvalid.
const (
	MaxRecordKey   = 1024
	MaxRecordValue = maxValue
)

// Ledger is a small database whose every change is one record: made if it is
// not there, replaced or removed if it is as the caller knew it. A change that
// was acknowledged is on disk. Its methods may be called from any goroutine.
//
// It is badger with synced transactions. Unlike the index of a Store it cannot
// be rebuilt from files: one that is damaged is an error, and never deleted.
type Ledger struct {
	dir     string
	log     *logrus.Entry
	files   files
	db      *database
	seed    maphash.Seed
	stripes [64]sync.Mutex // by key: what is read is what is replaced

	mu     sync.Mutex // guards the fields below
	logs   []string   // badger's logs whose directory entry is on disk
	closed bool

	queue writeQueue
}

// OpenLedger opens or makes the ledger in dir, which nobody else may have open:
// lock the directory above it first, see [LockDir]. It fails with ErrNoSpace on
// a disk too full for badger, which a full disk kills. log may be nil.
func OpenLedger(dir string, log *logrus.Entry) (*Ledger, error) {
	if log == nil {
		log = discarding()
	}
	l := &Ledger{dir: dir, log: log, files: files{}.orReal(), seed: maphash.MakeSeed()}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open ledger: %w", noSpace(err))
	}
	return l, nil
}

func (l *Ledger) open() error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	ballast := filepath.Join(l.dir, "BALLAST")
	if l.guard() != nil {
		_ = os.Remove(ballast) // the guard says whether that helped
	}
	if err := l.guard(); err != nil {
		return err
	}
	if err := preflight(l.dir); err != nil {
		return err
	}
	db, err := openDatabase(tuned(l.dir, true, l.log))
	if err != nil {
		return err
	}
	l.db = db
	if err := errors.Join(l.secureLogs(), l.checkVersion()); err != nil {
		return errors.Join(err, db.close())
	}
	if err := reserveFile(ballast, ledgerBallast); err != nil {
		_ = os.Remove(ballast) // short of room it is not kept
	}
	return nil
}

// ledgerBallast is what the ballast takes: given up, it is room enough to open the
// ledger on a disk that others have filled.
const ledgerBallast = indexRoom + ballastSize

// ledgerVersion is the format of what central writes here. A newer one is
// refused.
const ledgerVersion = "larder-ledger 1"

func (l *Ledger) checkVersion() error {
	text, err := l.db.get(versionKey)
	switch {
	case err != nil:
		return err
	case text == nil:
		return l.put([]byte(versionKey), []byte(ledgerVersion))
	case string(text) != ledgerVersion:
		return fmt.Errorf("%w: its format is %q, this one knows %q", errNewer, text, ledgerVersion)
	}
	return nil
}

// Close closes the ledger. It may be called more than once; everything else
// fails with ErrClosed afterwards.
func (l *Ledger) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	// Nobody is in the middle of a change once every stripe was had.
	for i := range l.stripes {
		l.stripes[i].Lock()
		defer l.stripes[i].Unlock()
	}
	if l.guard() != nil {
		_ = os.Remove(filepath.Join(l.dir, "BALLAST")) // closing takes its room
	}
	if err := l.db.close(); err != nil {
		return fmt.Errorf("close ledger: %w", err)
	}
	return nil
}

// Get reads a record; ErrNoRecord when there is none.
func (l *Ledger) Get(ctx context.Context, key string) (Record, error) {
	r := Record{Key: key}
	if err := l.usable(ctx); err != nil {
		return r, err
	}
	err := contain(func() error {
		return l.db.db.View(func(txn *badger.Txn) error {
			item, err := txn.Get(ledgerKey(key))
			if errors.Is(err, badger.ErrKeyNotFound) {
				return ErrNoRecord
			}
			if err != nil {
				return err
			}
			r.Version = version(item)
			r.Value, err = item.ValueCopy(nil)
			return err
		})
	})
	if err != nil {
		return r, fmt.Errorf("read record: %w", err)
	}
	return r, nil
}

// Create makes a record; ErrConflict when there is one.
func (l *Ledger) Create(ctx context.Context, key string, value []byte) error {
	return l.change(ctx, key, func(now Record, found bool) error {
		if found {
			return ErrConflict
		}
		return l.put(ledgerKey(key), value)
	}, value)
}

// Swap replaces a record that has this version; ErrConflict when it has
// another, or is gone.
func (l *Ledger) Swap(ctx context.Context, key string, value []byte, old string) error {
	return l.change(ctx, key, func(now Record, found bool) error {
		if !found || now.Version != old {
			return ErrConflict
		}
		return l.put(ledgerKey(key), value)
	}, value)
}

// Delete removes a record that has this version; ErrConflict when it has
// another, or is gone.
func (l *Ledger) Delete(ctx context.Context, key, old string) error {
	return l.change(ctx, key, func(now Record, found bool) error {
		if !found || now.Version != old {
			return ErrConflict
		}
		return l.unput(ledgerKey(key))
	}, nil)
}

// change runs f with what is under key now, and nobody else changing it.
func (l *Ledger) change(ctx context.Context, key string, f func(now Record, found bool) error, value []byte) error {
	if len(key) > MaxRecordKey || len(value) > MaxRecordValue {
		return oci.Errorf(oci.ErrNameInvalid, "a record of %d bytes under a key of %d is too long", len(value), len(key))
	}
	stripe := &l.stripes[maphash.String(l.seed, key)%uint64(len(l.stripes))]
	stripe.Lock()
	defer stripe.Unlock()
	now, err := l.Get(ctx, key)
	if err != nil && !errors.Is(err, ErrNoRecord) {
		return err
	}
	if err := l.guard(); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := f(now, err == nil); err != nil {
		return fmt.Errorf("write record: %w", noSpace(err))
	}
	return nil
}

// secureLogs has a log that badger has begun on disk as a whole: its blocks,
// and its entry in the directory, which badger syncs at a time of its own.
func (l *Ledger) secureLogs() error {
	found, err := filepath.Glob(filepath.Join(l.dir, "*.mem"))
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(found, l.logs) {
		return nil
	}
	if err := reserveLogs(l.dir); err != nil {
		return err
	}
	d, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := l.files.sync(d); err != nil {
		return err
	}
	l.logs = found
	return nil
}

// List returns the records whose keys start with prefix, in the order of their
// keys, those after the key after when that is not empty, at most n of them
// (n < 0: all).
func (l *Ledger) List(ctx context.Context, prefix, after string, n int) ([]Record, error) {
	list := []Record{}
	if n == 0 {
		return list, nil
	}
	err := l.each(ctx, prefix, after, func(r Record) (more bool, err error) {
		list = append(list, r)
		return n < 0 || len(list) < n, nil
	})
	return list, err
}

// Each calls f with every record as they all were at one moment, whatever
// happens meanwhile.
func (l *Ledger) Each(ctx context.Context, f func(Record) error) error {
	return l.each(ctx, "", "", func(r Record) (bool, error) { return true, f(r) })
}

func (l *Ledger) each(ctx context.Context, prefix, after string, f func(Record) (more bool, err error)) error {
	if err := l.usable(ctx); err != nil {
		return err
	}
	start := ledgerKey(max(prefix, after))
	options := badger.DefaultIteratorOptions
	options.Prefix = ledgerKey(prefix)
	options.PrefetchValues = false // they lie beside the keys
	err := contain(func() error {
		return l.db.db.View(func(txn *badger.Txn) error {
			it := txn.NewIterator(options)
			defer it.Close()
			for it.Seek(start); it.Valid(); it.Next() {
				if err := ctx.Err(); err != nil {
					return err
				}
				item := it.Item()
				r := Record{Key: string(item.Key()[len(ledgerPrefix):]), Version: version(item)}
				if after != "" && r.Key == after {
					continue
				}
				var err error
				if r.Value, err = item.ValueCopy(nil); err != nil {
					return err
				}
				if more, err := f(r); err != nil || !more {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	return nil
}

// usable refuses to touch a database that is closed.
func (l *Ledger) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("use ledger: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("use ledger: %w", ErrClosed)
	}
	return nil
}

// guard refuses to write while the disk is nearly full: badger writes through
// memory maps, and would be killed.
func (l *Ledger) guard() error {
	free, _, err := freeBytes(l.files, l.dir)
	if err == nil && free < indexRoom {
		return fmt.Errorf("%w: %d bytes are free, the ledger takes %d", ErrNoSpace, free, int64(indexRoom))
	}
	return nil
}

// ledgerPrefix tells records from what badger and this file keep besides.
const ledgerPrefix = "="

func ledgerKey(key string) []byte { return append([]byte(ledgerPrefix), key...) }

// version is badger's number of the transaction that wrote an item.
func version(item *badger.Item) string {
	return string(binary.BigEndian.AppendUint64(nil, item.Version()))
}

// LockDir takes a data directory for this process, which has to exist. It waits
// up to wait for another process to let go, and fails with ErrLocked then. Call
// release once everything in it is closed.
func LockDir(ctx context.Context, dir string, wait time.Duration) (release func() error, err error) {
	lock, err := lockDir(ctx, dir, wait)
	if err != nil {
		return nil, err
	}
	return lock.release, nil
}
