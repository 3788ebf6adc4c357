package cluster

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// snapshot is every file of the node that is not as the machine has it, and
// all of /var/lib: its kind, owner, mode and content.
type snapshot map[string]string

// takeSnapshot looks at all that an installation might leave behind. What
// containerd, kubelet and CNI keep for pods comes and goes with every pod.
func takeSnapshot(t testing.TB) snapshot {
	t.Helper()
	s := snapshot{}
	for _, root := range []string{"/node/upper", "/var/lib"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it went while we looked
			}
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(path, "/node/upper")
			switch name {
			case "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/cni", "/var/log":
				return fs.SkipDir
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			owner := info.Sys().(*syscall.Stat_t)
			s[name] = fmt.Sprintf("%v %d:%d", info.Mode(), owner.Uid, owner.Gid)
			if d.Type().IsRegular() {
				content, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				s[name] += fmt.Sprintf(" %x", sha256.Sum256(content))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// differences are the names under which two snapshots differ, each with both
// states.
func (s snapshot) differences(other snapshot) (all []string) {
	names := maps.Clone(s)
	maps.Copy(names, other)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if s[name] != other[name] {
			all = append(all, fmt.Sprintf("%s: %q, then %q", name, s[name], other[name]))
		}
	}
	return all
}
