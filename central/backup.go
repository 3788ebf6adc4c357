package central

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// A backup is a tar archive: the format, the records in parts, the content they
// speak of, and at the end how much that was, so that one cut short is known.
// Unfinished uploads are not in it.
const (
	backupFormat = "larder-backup 1"
	backupHead   = "FORMAT"
	backupLedger = "ledger/"
	backupBlobs  = "blobs/"
	backupEnd    = "END"
	// backupPart is about how long a part with records is.
	backupPart = 1 << 20
)

// BackedUp is what a backup holds.
type BackedUp struct {
	Records int   `json:"records"`
	Blobs   int   `json:"blobs"`
	Bytes   int64 `json:"bytes"`
	// Damaged are digests of content that is missing or wrong on disk, and not
	// in the backup.
	Damaged []string `json:"damaged,omitempty"`
}

// backupRecord is a record in a backup.
type backupRecord struct {
	Key   string `json:"k"`
	Value []byte `json:"v"`
}

// Backup writes everything, as it was at one moment, while pushes and pulls go
// on; garbage is not collected meanwhile. Content is checked as it is copied.
// It fails when some of it is damaged, and has then written all the rest.
func (c *Central) Backup(ctx context.Context, w io.Writer) (BackedUp, error) {
	c.collecting.Lock()
	defer c.collecting.Unlock()
	b := &backup{c: c, w: tar.NewWriter(w)}
	err := b.run(ctx)
	switch {
	case err != nil:
		err = fmt.Errorf("back up: %w", err)
	case len(b.done.Damaged) > 0:
		err = fmt.Errorf("back up: content is damaged, and missing in the backup: %s", strings.Join(b.done.Damaged, ", "))
	}
	return b.done, err
}

type backup struct {
	c     *Central
	w     *tar.Writer
	part  bytes.Buffer
	parts int
	done  BackedUp
}

func (b *backup) run(ctx context.Context) error {
	if err := b.file(backupHead, []byte(backupFormat+"\n")); err != nil {
		return err
	}
	needed := map[digest.Digest]struct{}{}
	err := b.c.ledger.Each(ctx, func(r store.Record) error {
		if strings.HasPrefix(r.Key, uploadsPrefix) {
			return nil
		}
		for _, prefix := range []string{"blobs/", "manifests/"} {
			if dgst, _, ok := splitHolder(prefix, r.Key); ok {
				needed[dgst] = struct{}{}
			}
		}
		return b.record(r)
	})
	if err == nil {
		err = b.flush()
	}
	if err != nil {
		return err
	}
	for dgst := range needed {
		if err := b.blob(ctx, dgst); err != nil {
			return err
		}
	}
	slices.Sort(b.done.Damaged)
	if err := b.file(backupEnd, append(encode(b.done), '\n')); err != nil {
		return err
	}
	return b.w.Close()
}

// record adds a record to the part that is being written.
func (b *backup) record(r store.Record) error {
	b.part.Write(encode(backupRecord{r.Key, r.Value}))
	b.part.WriteByte('\n')
	b.done.Records++
	if b.part.Len() < backupPart {
		return nil
	}
	return b.flush()
}

func (b *backup) flush() error {
	if b.part.Len() == 0 {
		return nil
	}
	b.parts++
	err := b.file(fmt.Sprintf("%s%08d.jsonl", backupLedger, b.parts), b.part.Bytes())
	b.part.Reset()
	return err
}

// file adds a small file.
func (b *backup) file(name string, content []byte) error {
	if err := b.w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := b.w.Write(content)
	return err
}

// blob adds content. It is read twice: what is damaged must not come into the
// archive, and is only known at its end.
func (b *backup) blob(ctx context.Context, dgst digest.Digest) error {
	blob, err := b.c.content.Open(dgst)
	if errors.Is(err, oci.ErrBlobUnknown) {
		b.done.Damaged = append(b.done.Damaged, string(dgst))
		return nil
	}
	if err != nil {
		return err
	}
	defer blob.Close()
	if err := ctx.Err(); err != nil {
		return err
	}
	h := dgst.Algorithm().Hash()
	if _, err := io.Copy(h, blob); err != nil {
		return err
	}
	if digest.NewDigest(dgst.Algorithm(), h) != dgst {
		b.done.Damaged = append(b.done.Damaged, string(dgst))
		return nil
	}
	if _, err := blob.Seek(0, io.SeekStart); err != nil {
		return err
	}
	size := blob.Descriptor().Size
	if err := b.w.WriteHeader(&tar.Header{
		Name: backupBlobs + string(dgst.Algorithm()) + "/" + dgst.Encoded(), Mode: 0o400, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}); err != nil {
		return err
	}
	b.done.Blobs++
	b.done.Bytes += size
	_, err = io.Copy(b.w, blob)
	return err
}

// Restore fills an empty ledger and depot from a backup. It fails, and what was
// filled is of no use, unless the backup is whole, every digest is right, and
// everything that a record speaks of is there.
func Restore(ctx context.Context, r io.Reader, cfg Config) (BackedUp, error) {
	if list, err := cfg.Ledger.List(ctx, "", "", 1); err != nil || len(list) > 0 {
		return BackedUp{}, errors.Join(errors.New("restore: the data directory is not empty"), err)
	}
	c, err := New(ctx, Config{Ledger: cfg.Ledger, Content: cfg.Content, Drafts: cfg.Drafts, Log: cfg.Log})
	if err != nil {
		return BackedUp{}, err
	}
	res := &restore{c: c, r: tar.NewReader(r)}
	if err := res.run(ctx); err != nil {
		return res.done, fmt.Errorf("restore: %w", err)
	}
	return res.done, nil
}

type restore struct {
	c     *Central
	r     *tar.Reader
	want  BackedUp
	ended bool
	done  BackedUp
}

func (r *restore) run(ctx context.Context) error {
	for first := true; ; first = false {
		header, err := r.r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if first != (header.Name == backupHead) || r.ended {
			return errors.New("this is not a backup that larder wrote")
		}
		if err := r.entry(ctx, header); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
	switch {
	case !r.ended:
		return errors.New("the backup is cut short")
	case r.want.Records != r.done.Records || r.want.Blobs != r.done.Blobs || r.want.Bytes != r.done.Bytes:
		return fmt.Errorf("the backup has %d records and %d blobs of %d bytes, and should have %d, %d, %d",
			r.done.Records, r.done.Blobs, r.done.Bytes, r.want.Records, r.want.Blobs, r.want.Bytes)
	case len(r.want.Damaged) > 0:
		r.done.Damaged = r.want.Damaged
		return nil // told when it was made; the rest is good
	}
	return r.c.verify(ctx)
}

func (r *restore) entry(ctx context.Context, header *tar.Header) error {
	switch {
	case header.Name == backupHead:
		text, err := io.ReadAll(io.LimitReader(r.r, 100))
		if err == nil && strings.TrimSpace(string(text)) != backupFormat {
			err = fmt.Errorf("the backup's format is %.40q, this larder knows %q", text, backupFormat)
		}
		return err
	case header.Name == backupEnd:
		r.ended = true
		return json.NewDecoder(io.LimitReader(r.r, 64<<20)).Decode(&r.want)
	case strings.HasPrefix(header.Name, backupLedger):
		return r.records(ctx)
	case strings.HasPrefix(header.Name, backupBlobs):
		return r.blob(ctx, strings.TrimPrefix(header.Name, backupBlobs))
	}
	return errors.New("the backup has an entry that larder did not write")
}

// records makes the records of one part, many at once: each waits for the disk.
func (r *restore) records(ctx context.Context) error {
	list := map[string][]byte{}
	flush := func() error {
		keys := make([]string, 0, len(list))
		for key := range list {
			keys = append(keys, key)
		}
		err := each(keys, func(key string) error { return r.c.ledger.Create(ctx, key, list[key]) })
		clear(list)
		return err
	}
	dec := json.NewDecoder(io.LimitReader(r.r, 8*backupPart))
	for {
		var rec backupRecord
		err := dec.Decode(&rec)
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return err
		}
		if _, twice := list[rec.Key]; twice {
			return fmt.Errorf("record %.80q is there twice", rec.Key)
		}
		list[rec.Key] = rec.Value
		r.done.Records++
		if len(list) == together {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// blob takes content in, if it has the digest it is named by.
func (r *restore) blob(ctx context.Context, name string) error {
	algorithm, hex, _ := strings.Cut(name, "/")
	dgst, err := oci.ParseDigest(algorithm + ":" + hex)
	if err != nil {
		return err
	}
	in, id, err := r.c.newDraft(oci.Name{}, dgst.Algorithm())
	if err != nil {
		return err
	}
	defer r.c.unuse(id)
	err = in.add(ctx, &bodyReader{Reader: r.r})
	if err == nil {
		err = in.check(ctx, dgst.Algorithm(), dgst)
	}
	if err == nil {
		err = in.draft.Sync(false)
	}
	if err = errors.Join(err, in.draft.Close()); err == nil {
		err = r.c.content.Commit(id, dgst)
	}
	r.done.Blobs++
	r.done.Bytes += in.size
	return err
}

// verify checks that everything a record speaks of is there.
func (c *Central) verify(ctx context.Context) error {
	var problems []error
	problem := func(key, text string) {
		if len(problems) < 20 {
			problems = append(problems, fmt.Errorf("record %q: %s", key, text))
		}
	}
	err := c.ledger.Each(ctx, func(r store.Record) error {
		switch dgst, _, ok := splitHolder("blobs/", r.Key); {
		case ok:
			rec, err := decode[blobRecord](r)
			if err != nil {
				return err
			}
			if kept, err := c.content.Stat(dgst); err != nil || kept.Size != rec.Size {
				problem(r.Key, "the content is missing, or has another size")
			}
		case strings.Contains(r.Key, "/_manifests/"):
			rec, err := decode[manifestRecord](r)
			if err != nil {
				return err
			}
			if _, err := c.readContent(digest.Digest(r.Key[strings.LastIndexByte(r.Key, '/')+1:]), rec.Size); err != nil {
				problem(r.Key, err.Error())
			}
		case strings.Contains(r.Key, "/_tags/"):
			rec, err := decode[tagRecord](r)
			if err != nil {
				return err
			}
			repository, _, _ := strings.Cut(strings.TrimPrefix(r.Key, "repos/"), "/_tags/")
			if _, err := c.ledger.Get(ctx, manifestKey(repository, rec.Digest)); err != nil {
				problem(r.Key, "points to "+string(rec.Digest)+", which is not there")
			}
		}
		return nil
	})
	return errors.Join(append(problems, err)...)
}
