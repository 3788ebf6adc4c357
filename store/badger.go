package store

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/sirupsen/logrus"
)

// indexRoom is what must be free on the disk before the index is opened or
// written: more than badger takes for a new log, the table of the old one and
// one compaction.
const indexRoom = 48 << 20

// database is badger, reduced to what the index needs.
type database struct{ db *badger.DB }

// entry is one key to write; a nil value deletes it.
type entry struct{ key, value []byte }

// tuned are badger's options for a small index in a small process. The defaults
// take 2 GiB of apparent disk and hundreds of MiB of memory.
func tuned(dir string, syncWrites bool, log *logrus.Entry) badger.Options {
	return badger.DefaultOptions(dir).
		WithSyncWrites(syncWrites).
		WithMemTableSize(8 << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(4).
		WithBaseTableSize(2 << 20).
		WithValueLogFileSize(1 << 20). // nothing goes there, see maxValue
		WithValueThreshold(64 << 10).
		WithBlockCacheSize(2 << 20).
		WithIndexCacheSize(2 << 20).
		WithNumCompactors(2).
		WithCompression(options.None).
		WithMetricsEnabled(false).
		WithDetectConflicts(false).
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		WithBypassLockGuard(true). // Store has the lock of the whole directory
		WithLogger(quiet{log})
}

// openDatabase opens the index. A panic or a fault in badger, as far as it is in
// the goroutine that calls, is an error here.
func openDatabase(opts badger.Options) (d *database, err error) {
	err = contain(func() error {
		db, err := badger.Open(opts)
		if err != nil {
			return err
		}
		d = &database{db: db}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	return d, nil
}

// errPanicked means that badger panicked. What it had started may still run, so
// its directory is not touched again by this process.
var errPanicked = errors.New("badger panicked")

// contain runs f and turns panics, and faults in memory maps, into errors.
func contain(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanicked, p)
		}
	}()
	return f()
}

// each calls f with every key and value, both valid during the call only.
func (d *database) each(f func(key, value []byte) error) error {
	return contain(func() error {
		return d.db.View(func(txn *badger.Txn) error {
			it := txn.NewIterator(badger.DefaultIteratorOptions)
			defer it.Close()
			for it.Rewind(); it.Valid(); it.Next() {
				item := it.Item()
				if err := item.Value(func(value []byte) error { return f(item.Key(), value) }); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// get returns the value of key, nil when there is none.
func (d *database) get(key string) (value []byte, err error) {
	err = contain(func() error {
		return d.db.View(func(txn *badger.Txn) error {
			item, err := txn.Get([]byte(key))
			if errors.Is(err, badger.ErrKeyNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			value, err = item.ValueCopy(nil)
			return err
		})
	})
	return value, err
}

// write applies entries; some may be written when it fails.
func (d *database) write(entries []entry) error {
	return contain(func() error {
		batch := d.db.NewWriteBatch()
		defer batch.Cancel()
		for _, e := range entries {
			write := func() error { return batch.Set(e.key, e.value) }
			if e.value == nil {
				write = func() error { return batch.Delete(e.key) }
			}
			if err := write(); err != nil {
				return err
			}
		}
		return batch.Flush()
	})
}

func (d *database) close() error {
	return contain(d.db.Close)
}

// quiet passes on badger's complaints only; its news are of no use to anybody.
type quiet struct{ log *logrus.Entry }

func (q quiet) Errorf(format string, args ...any)   { q.log.Errorf("badger: "+format, args...) }
func (q quiet) Warningf(format string, args ...any) { q.log.Debugf("badger: "+format, args...) }
func (q quiet) Infof(string, ...any)                {}
func (q quiet) Debugf(string, ...any)               {}
