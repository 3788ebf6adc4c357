package store

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// The bounds on partial ingests. Beyond them the oldest go; eviction takes
// partials before blobs in any case.
const (
	partialAge   = 24 * time.Hour
	partialCount = 256
)

// partial is an ingest nobody has open. Store.mu guards it.
type partial struct {
	size     int64
	held     []oci.Span
	used     time.Time
	reserved bool
}

// state is the form of ingest/<id>/state. Held lists [start, end) pairs. It is
// a claim that the next ingest checks by hashing, so it is not synced.
type state struct {
	Size int64      `json:"size"`
	Held [][2]int64 `json:"held"`
}

// SaveHeld notes beside the data which bytes are held, so that an ingest after
// a restart need not fetch them again. held is sorted and disjoint. Call it
// after those bytes were written, every few megabytes: it costs a small file.
func (i *Ingest) SaveHeld(held []oci.Span) error {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.ended || i.closed {
		return fmt.Errorf("save state: %w", ErrClosed)
	}
	if err := i.writeState(held); err != nil {
		return noSpace(fmt.Errorf("save state: %w", err))
	}
	i.store.mu.Lock()
	i.held, i.kept = slices.Clone(held), len(held) > 0
	i.store.mu.Unlock()
	i.store.at("state")
	return nil
}

// writeState replaces the state file.
func (i *Ingest) writeState(held []oci.Span) error {
	st := state{Size: i.size, Held: make([][2]int64, 0, len(held))}
	for _, span := range held {
		st.Held = append(st.Held, [2]int64{span.Start, span.End})
	}
	text, err := json.Marshal(st)
	if err != nil {
		return err
	}
	path := filepath.Join(i.store.ingestDir(i.id), "state")
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return err
	}
	return i.store.files.rename(path+".new", path)
}

// parseState reads a state file and refuses what cannot be true.
func parseState(text []byte) (size int64, held []oci.Span, err error) {
	var st state
	if err := json.Unmarshal(text, &st); err != nil {
		return 0, nil, fmt.Errorf("parse state: %w", err)
	}
	end := int64(0)
	for _, pair := range st.Held {
		span := oci.Span{Start: pair[0], End: pair[1]}
		if span.Start < end || span.End <= span.Start || span.End > st.Size {
			return 0, nil, fmt.Errorf("parse state: span %d-%d is not possible", span.Start, span.End)
		}
		held, end = append(held, span), span.End
	}
	if len(held) == 0 {
		return 0, nil, fmt.Errorf("parse state: nothing is held")
	}
	return st.Size, held, nil
}
