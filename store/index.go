package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// The index holds what the files do not say. Its entries are small and few, so
// memory has them all and answers every question; badger only carries them over
// a restart. Memory notes which keys changed, and the present values of those
// are written a moment later: so an old value never goes over a new one, and a
// write that had to be left out is made up for.
//
//	v                        format version
//	t/registry\0repo\0tag    what a tag points to
//	l/registry\0repo\0digest media type under which a repository vouches
//	m/digest                 media type and children of an image manifest
//	u/digest                 last use
//	x/registry\0repo\0       to whom a repository may be shown; read after the
//	                         tags and links without which it means nothing
const (
	kindExposure = 'x'
	kindTag      = 't'
	kindLink     = 'l'
	kindManifest = 'm'
	kindUse      = 'u'
)

// indexVersion is the format above. A store refuses a newer one and rebuilds an
// older one.
const indexVersion = 1

// versionKey is where the format version is kept.
const versionKey = "v"

// The bounds that keep every entry within badger's own: keys far below 64 KiB,
// and values so small that none goes to the value log. maxMediaType is RFC
// 6838's (section 4.2: two names of 127 characters and a slash).
const (
	maxKey       = 1024
	maxValue     = 48 << 10
	maxMediaType = 255
)

// checkEntry refuses names and media types that the index cannot hold.
func checkEntry(k key, mediaType string) error {
	if len(k.encode()) > maxKey || len(mediaType) > maxMediaType || strings.Contains(k.name.String()+k.item, "\x00") {
		return oci.Errorf(oci.ErrNameInvalid, "name or media type is too long")
	}
	return nil
}

// errNewer means that a newer Larder wrote the index.
var errNewer = errors.New("index was written by a newer version")

// key names one entry of the index.
type key struct {
	kind byte
	name oci.Name // tags and links
	item string   // tag or digest
}

func tagKey(ref oci.Reference) key { return key{kindTag, ref.Name, ref.Tag} }

func useKey(dgst digest.Digest) key { return key{kind: kindUse, item: string(dgst)} }

func manifestKey(dgst digest.Digest) key { return key{kind: kindManifest, item: string(dgst)} }

func linkKey(name oci.Name, dgst digest.Digest) key { return key{kindLink, name, string(dgst)} }

func exposureKey(name oci.Name) key { return key{kind: kindExposure, name: name} }

// encode gives the key's form in badger.
func (k key) encode() []byte {
	if k.kind == kindTag || k.kind == kindLink || k.kind == kindExposure {
		return []byte(string(k.kind) + "/" + k.name.Registry + "\x00" + k.name.Repository + "\x00" + k.item)
	}
	return []byte(string(k.kind) + "/" + k.item)
}

// rank orders writes: exposures first.
func (k key) rank() int {
	if k.kind == kindExposure {
		return 0
	}
	return 1
}

// parseKey reads the form that encode gives; the item is not checked.
func parseKey(text []byte) (key, bool) {
	if len(text) < 3 || text[1] != '/' {
		return key{}, false
	}
	k, rest := key{kind: text[0]}, string(text[2:])
	switch k.kind {
	case kindManifest, kindUse:
		k.item = rest
	case kindTag, kindLink, kindExposure:
		parts := strings.Split(rest, "\x00")
		if len(parts) != 3 {
			return key{}, false
		}
		k.name, k.item = oci.Name{Registry: parts[0], Repository: parts[1]}, parts[2]
	default:
		return key{}, false
	}
	return k, true
}

// The values of tags, manifests and exposures.
type (
	tagValue struct {
		MediaType string        `json:"m"`
		Digest    digest.Digest `json:"d"`
		Size      int64         `json:"s"`
		Confirmed int64         `json:"c"` // Unix seconds, 0 for never
	}
	manifestValue struct {
		MediaType string          `json:"m"`
		Children  []digest.Digest `json:"c"`
	}
	exposureValue struct {
		Kind string `json:"k"`
		At   int64  `json:"t"` // Unix seconds
	}
)

// value returns what memory holds under k; nil when nothing. Store.mu is held.
func (s *Store) value(k key) []byte {
	rec := s.blobs[digest.Digest(k.item)]
	repo := s.repos[k.name]
	switch {
	case k.kind == kindUse && rec != nil:
		return strconv.AppendInt(nil, rec.used.UnixNano(), 10)
	case k.kind == kindManifest && rec != nil && rec.mediaType != "":
		if text := mustJSON(manifestValue{rec.mediaType, rec.children}); len(text) <= maxValue {
			return text
		}
		return mustJSON(manifestValue{}) // Open reads the file again
	case k.kind == kindTag && repo != nil:
		if t, ok := repo.tags[k.item]; ok {
			v := tagValue{MediaType: t.MediaType, Digest: t.Digest, Size: t.Size}
			if !t.Confirmed.IsZero() {
				v.Confirmed = t.Confirmed.Unix()
			}
			return mustJSON(v)
		}
	case k.kind == kindExposure && repo != nil && repo.exposure.Kind != "":
		return mustJSON(exposureValue{repo.exposure.Kind, repo.exposure.At.Unix()})
	case k.kind == kindLink && repo != nil:
		if mediaType, ok := repo.links[digest.Digest(k.item)]; ok {
			return []byte(mediaType)
		}
	}
	return nil
}

// mustJSON encodes structs of strings and numbers, which cannot fail.
func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode index entry: %v", err))
	}
	return text
}

// restore puts an entry of the index into memory; false when it is not valid,
// or speaks of content whose file is gone. Store.mu is held, or nobody else
// knows the store yet.
func (s *Store) restore(k key, value []byte) bool {
	switch k.kind {
	case kindUse:
		rec := s.blobs[digest.Digest(k.item)]
		nanos, err := strconv.ParseInt(string(value), 10, 64)
		if rec == nil || err != nil {
			return false
		}
		rec.known = true
		if !rec.dirty { // else it was used since the store was opened
			rec.used = time.Unix(0, nanos)
		}
	case kindManifest:
		rec := s.blobs[digest.Digest(k.item)]
		var v manifestValue
		if rec == nil || json.Unmarshal(value, &v) != nil {
			return false
		}
		rec.reread = v.MediaType == ""
		s.learn(digest.Digest(k.item), rec, &manifest{v.MediaType, v.Children})
	case kindTag:
		var v tagValue
		if json.Unmarshal(value, &v) != nil || s.blobs[v.Digest] == nil {
			return false
		}
		t := Tag{Descriptor: oci.Descriptor{MediaType: v.MediaType, Digest: v.Digest, Size: v.Size}}
		if v.Confirmed != 0 {
			t.Confirmed = time.Unix(v.Confirmed, 0)
		}
		s.names++
		s.repository(k.name).tags[k.item] = t
	case kindExposure:
		repo := s.repos[k.name]
		var v exposureValue
		if repo == nil || k.item != "" || json.Unmarshal(value, &v) != nil || v.Kind == "" {
			return false
		}
		repo.exposure = Exposure{Kind: v.Kind, At: time.Unix(v.At, 0).UTC()}
	case kindLink:
		if s.blobs[digest.Digest(k.item)] == nil {
			return false
		}
		s.names++
		s.repository(k.name).links[digest.Digest(k.item)] = string(value)
	}
	return true
}

// index writes behind memory. Its methods are safe after a failure to open:
// then memory is all there is.
type index struct {
	store *Store
	kick  chan struct{}

	// mu serialises whoever uses db; never taken under Store.mu.
	mu     sync.Mutex
	db     *database
	closed bool

	whyMu sync.Mutex
	why   error // why db is nil, or why it is not written to

	// changed holds the keys to write, or lost says that there were too many to
	// remember; Store.mu guards both.
	changed map[key]struct{}
	lost    bool
}

// maxChanged bounds the keys that wait for a disk that cannot be written to.
const maxChanged = 200_000

// dirty notes that k's entry changed. Store.mu is held.
func (s *Store) dirty(k key) {
	ix := s.index
	if len(ix.changed) >= maxChanged {
		clear(ix.changed)
		ix.lost = true
	}
	ix.changed[k] = struct{}{}
}

// persist has the index written: soon, or before it returns where the
// configuration says SyncWrites.
func (s *Store) persist() error {
	if s.syncWrites {
		return s.index.flush()
	}
	s.index.wake()
	return nil
}

// wake has the index written soon.
func (ix *index) wake() {
	select {
	case ix.kick <- struct{}{}:
	default: // about to be
	}
}

// flush writes what changed. While there is no database, or no room to write to
// it safely, what changed stays noted and memory goes on without.
func (ix *index) flush() error {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.flushLocked()
}

// flushLocked is flush with mu held.
func (ix *index) flushLocked() error {
	if ix.db == nil {
		return ix.trouble()
	}
	if err := ix.guard(time.Second); err != nil {
		return ix.note(err)
	}
	s := ix.store
	s.mu.Lock()
	lost := ix.lost
	s.mu.Unlock()
	if lost {
		if err := ix.read(ix.db); err != nil {
			return ix.note(err)
		}
	}
	s.mu.Lock()
	changed := ix.changed
	ix.changed = make(map[key]struct{})
	s.mu.Unlock()
	if len(changed) == 0 {
		return ix.note(nil)
	}
	s.at("flush")
	err := ix.write(changed)
	if err != nil {
		err = fmt.Errorf("write index: %w", err)
		s.mu.Lock()
		maps.Copy(ix.changed, changed)
		s.mu.Unlock()
		s.log.WithError(err).Warn("trying again later")
	}
	s.at("flushed")
	return ix.note(err)
}

// write writes the present values of the keys, in batches, so that neither
// memory nor the disk is asked for much at once.
func (ix *index) write(changed map[key]struct{}) error {
	const batch = 500
	entries := []entry{{[]byte(versionKey), strconv.AppendInt(nil, indexVersion, 10)}}
	keys := slices.Collect(maps.Keys(changed))
	// What says whom content may be shown to goes before what says that it is
	// there.
	slices.SortFunc(keys, func(a, b key) int { return a.rank() - b.rank() })
	for part := range slices.Chunk(keys, batch) {
		ix.store.mu.Lock()
		for _, k := range part {
			if ix.store.early(k) {
				ix.store.dirty(k)
				continue
			}
			entries = append(entries, entry{k.encode(), ix.store.value(k)})
		}
		ix.store.mu.Unlock()
		if err := ix.guard(time.Second); err != nil {
			return err
		}
		if err := ix.db.write(entries); err != nil {
			return err
		}
		// Badger may have begun a new log.
		if err := reserveLogs(ix.dir()); err != nil {
			return err
		}
		entries = entries[:0]
	}
	return nil
}

// note remembers why the index is not written to, and returns it.
func (ix *index) note(err error) error {
	ix.whyMu.Lock()
	defer ix.whyMu.Unlock()
	ix.why = err
	return err
}

// trouble says why the index is not written to, or nil. It never waits for one
// who is writing.
func (ix *index) trouble() error {
	ix.whyMu.Lock()
	defer ix.whyMu.Unlock()
	return ix.why
}

// close writes what is left and closes the database, which takes room of its
// own: the ballast's, when there is no other. Without any the database stays as
// a crash would leave it, to be replayed at the next Open.
func (ix *index) close() error {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.closed = true
	if ix.db == nil {
		return nil
	}
	// What cannot be written now is lost, as in a crash; it was reported.
	_ = ix.flushLocked()
	if ix.guard(0) != nil {
		ix.dropBallast()
	}
	db := ix.db
	ix.db = nil
	if r := ix.store.free.room(ix.store, 0); r.known && r.avail < ballastSize/2 {
		return fmt.Errorf("close index: %w: %d bytes are free", ErrNoSpace, r.avail)
	}
	return db.close()
}
