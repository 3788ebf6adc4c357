package nodeconfig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// recordSuffix names the record beside the file name: ".name.larder-undo". No
// runtime reads such a name: they look for *.toml, *.conf, *.crt and the like.
const recordSuffix = ".larder-undo"

// recordVersion is the form of a record. A record of another form is left alone.
const recordVersion = 1

// record says what a file was before we first wrote it, and what we made of it.
// It is readable by root only, since the file may hold credentials.
type record struct {
	Version int    `json:"larder_undo"`
	Path    string `json:"path"`
	// Existed says whether there was a file; the fields down to Before
	// describe it.
	Existed  bool        `json:"existed"`
	Mode     fs.FileMode `json:"mode,omitempty"`
	UID      int         `json:"uid"`
	GID      int         `json:"gid"`
	Modified time.Time   `json:"modified,omitzero"`
	Labels   labels      `json:"labels,omitempty"`
	Before   []byte      `json:"before,omitempty"`
	// Wrote is what we made of it, at last and, since a run may be killed
	// between writing the record and writing the file, before that.
	Wrote []splice `json:"wrote"`
	// MadeDir is the topmost directory we made for the file, if any.
	MadeDir string `json:"made_dir,omitempty"`
}

type labels map[string][]byte

// splice is a content, told as the first Prefix bytes of another, Inserted, and
// the other's last Suffix bytes.
type splice struct {
	Prefix   int    `json:"prefix"`
	Suffix   int    `json:"suffix"`
	Inserted []byte `json:"inserted"`
}

// recordName is where the record of the file name stands.
func recordName(name string) string {
	return path.Join(path.Dir(name), "."+path.Base(name)+recordSuffix)
}

// recorded is the file a record's name belongs to; false for other names.
func recorded(dir, base string) (string, bool) {
	name, ok := strings.CutSuffix(base, recordSuffix)
	if !ok {
		return "", false
	}
	name, ok = strings.CutPrefix(name, ".")
	return path.Join(dir, name), ok && name != ""
}

// newRecord notes that the file before, with the attributes a, becomes after.
// A nil before means there was none.
func newRecord(name string, before, after []byte, a attributes, madeDir string) *record {
	r := &record{Version: recordVersion, Path: name, Existed: before != nil, Before: before, MadeDir: madeDir}
	if r.Existed {
		r.Mode, r.UID, r.GID, r.Modified, r.Labels = a.mode, a.uid, a.gid, a.modified.UTC(), a.labels
	}
	r.became(after)
	return r
}

// became notes what we make of the file now; what it was first stays. The
// difference is taken in whole lines, so that it can be found again in a file
// that others have changed since.
func (r *record) became(after []byte) {
	var w splice
	w.Prefix = commonLines(r.Before, after)
	w.Suffix = commonTail(r.Before[w.Prefix:], after[w.Prefix:])
	w.Inserted = after[w.Prefix : len(after)-w.Suffix]
	r.Wrote = append([]splice{w}, r.Wrote[:min(1, len(r.Wrote))]...)
}

// ours reports whether now, nil for no file, is what we wrote or what was there
// before.
func (r *record) ours(now []byte) bool {
	if now == nil || bytes.Equal(now, r.Before) {
		return r.untouched(now)
	}
	return slices.ContainsFunc(r.Wrote, func(w splice) bool {
		return bytes.Equal(now, slices.Concat(r.Before[:w.Prefix], w.Inserted, r.Before[len(r.Before)-w.Suffix:]))
	})
}

// untouched reports whether now, nil for no file, is what was there before.
func (r *record) untouched(now []byte) bool {
	return (now != nil) == r.Existed && bytes.Equal(now, r.Before)
}

// without takes what we inserted out of a file that others have changed since,
// and puts back what stood there. It fails when our lines are not there, or not
// exactly once.
func (r *record) without(now []byte) ([]byte, bool) {
	if !r.Existed {
		return nil, false
	}
	for _, w := range r.Wrote {
		if len(bytes.TrimSpace(w.Inserted)) > 0 && bytes.Count(now, w.Inserted) == 1 {
			return bytes.Replace(now, w.Inserted, r.Before[w.Prefix:len(r.Before)-w.Suffix], 1), true
		}
	}
	return nil, false
}

// attributes are those of the file as it was.
func (r *record) attributes() attributes {
	return attributes{mode: r.Mode, uid: r.UID, gid: r.GID, modified: r.Modified, labels: r.Labels}
}

func (r *record) encode() ([]byte, error) {
	raw, err := json.MarshalIndent(r, "", "  ")
	return append(raw, '\n'), err
}

// record reads the record of the file name; nil when there is none.
func (n *Node) record(name string) (*record, error) {
	raw, err := n.read(recordName(name))
	if err != nil || raw == nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", recordName(name), err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("read %s: it was written by another version of larder (form %d, this one knows %d)", recordName(name), r.Version, recordVersion)
	}
	for _, w := range r.Wrote {
		if w.Prefix < 0 || w.Suffix < 0 || w.Prefix > len(r.Before)-w.Suffix {
			return nil, fmt.Errorf("read %s: it is damaged", recordName(name))
		}
	}
	return r, nil
}

// writeRecord puts r beside its file.
func (n *Node) writeRecord(r *record) error {
	raw, err := r.encode()
	if err != nil {
		return err
	}
	host, err := n.host(recordName(r.Path))
	if err != nil {
		return err
	}
	if err := replace(host, raw, attributes{mode: 0o600, uid: -1}); err != nil {
		return n.explain("write", recordName(r.Path), err)
	}
	return nil
}

// dropRecord forgets what the file name was.
func (n *Node) dropRecord(name string) error {
	host, err := n.host(recordName(name))
	if err != nil {
		return err
	}
	if err := os.Remove(host); err != nil && !os.IsNotExist(err) {
		return n.explain("remove", recordName(name), err)
	}
	return nil
}

// commonLines is the length of the lines a and b start with alike.
func commonLines(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return bytes.LastIndexByte(a[:n], '\n') + 1
}

// commonTail is the length of the lines a and b end with alike.
func commonTail(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	if n == len(a) && n == len(b) {
		return n
	}
	tail := a[len(a)-n:]
	// When all of a or b is alike, the tail may already start a line.
	if (n == len(a) || a[len(a)-1-n] == '\n') && (n == len(b) || b[len(b)-1-n] == '\n') {
		return n
	}
	i := bytes.IndexByte(tail, '\n')
	if i < 0 {
		return 0
	}
	return n - i - 1
}
