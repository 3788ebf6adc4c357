package nodeconfig

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func testConfig() Config {
	return Config{Mirror: netip.MustParseAddrPort("127.0.0.1:8000")}
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s: %s is\n%s\nwant\n%s", what, name, got[name], content)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: there is %s", what, name)
		}
	}
}

// TestFilesThereAndBack writes to files of every kind and undoes it: what was
// there is there again, to the byte, the mode and the time.
func TestFilesThereAndBack(t *testing.T) {
	const text = "one\ntwo\nthree\n"
	tests := map[string]struct {
		files map[string]string
		links map[string]string
		at    string
	}{
		"a new file":                   {files: map[string]string{"etc/x/": ""}, at: "/etc/x/file"},
		"a new file in new dirs":       {files: map[string]string{"etc/": ""}, at: "/etc/a/b/c/file"},
		"an old file":                  {files: map[string]string{"etc/file": text}, at: "/etc/file"},
		"an empty file":                {files: map[string]string{"etc/file": ""}, at: "/etc/file"},
		"a link to elsewhere":          {files: map[string]string{"opt/real": text, "etc/": ""}, links: map[string]string{"etc/file": "/opt/real"}, at: "/etc/file"},
		"a directory that is a link":   {files: map[string]string{"opt/real/": "", "etc/": ""}, links: map[string]string{"etc/dir": "../opt/real"}, at: "/etc/dir/sub/file"},
		"a link that leads nowhere":    {files: map[string]string{"opt/": "", "etc/": ""}, links: map[string]string{"etc/file": "/opt/real"}, at: "/etc/file"},
		"a link out of the root":       {files: map[string]string{"etc/real": text}, links: map[string]string{"etc/file": "../../../../../../etc/real"}, at: "/etc/file"},
		"a path with a colon in it":    {files: map[string]string{"etc/": ""}, at: "/etc/certs.d:/etc/docker/certs.d/_default/hosts.toml"},
		"a name that starts with dots": {files: map[string]string{"etc/.file": text}, at: "/etc/.file"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, test.files)
			for link, target := range test.links {
				if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
					t.Fatal(err)
				}
			}
			past := time.Date(2020, 2, 2, 2, 2, 2, 123456789, time.UTC)
			for file := range test.files {
				if file[len(file)-1] == '/' {
					continue
				}
				if err := os.Chmod(filepath.Join(root, file), 0o640); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(filepath.Join(root, file), past, past); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, root)
			n := nodeAt(root)
			for _, content := range []string{"one\nnew\nthree\n", "one\nnewer\nmore\nthree\n"} {
				now, err := n.read(test.at)
				if err != nil {
					t.Fatal(err)
				}
				if err := n.apply(t.Context(), []Change{edit(test.at, now, []byte(content), "")}); err != nil {
					t.Fatal(err)
				}
				got, err := n.read(test.at)
				if err != nil || string(got) != content {
					t.Fatalf("the file has %q (%v), want %q", got, err, content)
				}
			}
			changes, err := n.planUndo("/etc", "/opt")
			if err != nil {
				t.Fatal(err)
			}
			if err := n.apply(t.Context(), changes); err != nil {
				t.Fatal(err)
			}
			same(t, "after the undo", tree(t, root), before)
			if again, err := n.planUndo("/etc", "/opt"); err != nil || len(again) != 0 {
				t.Errorf("a second undo plans %v (%v)", again, err)
			}
		})
	}
}

// TestChangedMeanwhile plans, lets somebody else write, and applies.
func TestChangedMeanwhile(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{"etc/file": "theirs\n"})
	n := nodeAt(root)
	err := n.apply(t.Context(), []Change{edit("/etc/file", []byte("old\n"), []byte("ours\n"), "")})
	if !errors.Is(err, ErrChanged) {
		t.Fatalf("got %v, want ErrChanged", err)
	}
	if got := tree(t, root); len(got) != 3 {
		t.Errorf("something was written: %v", maps.Keys(got))
	}
	if got, err := n.read("/etc/file"); err != nil || string(got) != "theirs\n" {
		t.Errorf("the file has %q (%v)", got, err)
	}
}

// TestUndoAmongOthersChanges edits a file that others then change, too.
func TestUndoAmongOthersChanges(t *testing.T) {
	const before = "a = 1\nb = 2\nc = 3\n"
	tests := map[string]struct {
		now, want string
		kind      Kind
	}{
		"a line elsewhere":     {now: "z = 0\na = 1\nb = 2\nours = 1\nc = 3\n", want: "z = 0\na = 1\nb = 2\nc = 3\n", kind: File},
		"our line twice":       {now: "ours = 1\na = 1\nours = 1\n", want: "ours = 1\na = 1\nours = 1\n", kind: Warning},
		"nothing of ours left": {now: "x = 1\n", want: "x = 1\n", kind: Warning},
		"as it was":            {now: before, want: before, kind: File},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, map[string]string{"etc/file": before})
			n := nodeAt(root)
			if err := n.apply(t.Context(), []Change{edit("/etc/file", []byte(before), []byte("a = 1\nb = 2\nours = 1\nc = 3\n"), "")}); err != nil {
				t.Fatal(err)
			}
			put(t, root, map[string]string{"etc/file": test.now})
			changes, err := n.planUndo("/etc")
			if err != nil {
				t.Fatal(err)
			}
			if len(changes) != 1 || changes[0].Kind != test.kind {
				t.Fatalf("the undo is %+v", changes)
			}
			if err := n.apply(t.Context(), changes); err != nil {
				t.Fatal(err)
			}
			if got, err := n.read("/etc/file"); err != nil || string(got) != test.want {
				t.Errorf("the file has %q (%v), want %q", got, err, test.want)
			}
			if n.exists(recordName("/etc/file")) != (test.kind == Warning) {
				t.Error("the record is there without need, or gone too early")
			}
		})
	}
}
