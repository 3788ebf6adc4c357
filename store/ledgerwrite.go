package store

import (
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// The bounds on how many writes share one transaction, and on their bytes: far
// below badger's own.
const (
	maxTogether      = 128
	maxTogetherBytes = 512 << 10
)

// writeQueue holds the writes that wait for the disk. Badger syncs once for each
// transaction, so those who come while it does share the next one. One of them
// leads: it writes for all who wait, and then lets the next lead.
type writeQueue struct {
	mu      sync.Mutex
	waiting []*ledgerWrite
	led     bool
}

// ledgerWrite is one key to write, or to delete.
type ledgerWrite struct {
	key, value []byte
	remove     bool
	// told is that the write is done, or that it is its writer's turn to lead.
	told chan turn
}

type turn struct {
	lead bool
	err  error
}

// put writes one key and returns when that is on disk.
func (l *Ledger) put(key, value []byte) error {
	return l.join(&ledgerWrite{key: key, value: value, told: make(chan turn, 1)})
}

// unput deletes one key and returns when that is on disk.
func (l *Ledger) unput(key []byte) error {
	return l.join(&ledgerWrite{key: key, remove: true, told: make(chan turn, 1)})
}

// join has w written with others who come now.
func (l *Ledger) join(w *ledgerWrite) error {
	q := &l.queue
	q.mu.Lock()
	q.waiting = append(q.waiting, w)
	lead := !q.led
	q.led = true
	q.mu.Unlock()
	if !lead {
		t := <-w.told
		if !t.lead {
			return t.err
		}
	}
	return l.lead(w)
}

// lead writes what waits, own being the first of it, and passes the lead on.
func (l *Ledger) lead(own *ledgerWrite) error {
	q := &l.queue
	q.mu.Lock()
	n, size := 1, 0
	for n < min(len(q.waiting), maxTogether) && size < maxTogetherBytes {
		size += len(q.waiting[n].value)
		n++
	}
	batch := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	q.mu.Unlock()

	err := l.commit(batch)

	q.mu.Lock()
	if len(q.waiting) > 0 {
		q.waiting[0].told <- turn{lead: true}
	} else {
		q.led, q.waiting = false, nil
	}
	q.mu.Unlock()
	for _, w := range batch {
		if w != own {
			w.told <- turn{err: err}
		}
	}
	return err
}

// commit writes a batch in one transaction.
func (l *Ledger) commit(batch []*ledgerWrite) error {
	err := contain(func() error {
		return l.db.db.Update(func(txn *badger.Txn) error {
			for _, w := range batch {
				var err error
				if w.remove {
					err = txn.Delete(w.key)
				} else {
					err = txn.Set(w.key, w.value)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return l.secureLogs()
}
