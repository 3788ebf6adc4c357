package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Spawn starts the program at path, or of that name, for a test. Its output goes to a file of its own
// in dir, which is also where it works and its home; of the environment it sees
// PATH, HOME and what env has. It is killed with its children when the test ends,
// and if the test failed, its last words are shown.
func Spawn(t testing.TB, dir string, env []string, path string, args ...string) *Process {
	t.Helper()
	path, err := exec.LookPath(path)
	if err == nil {
		path, err = filepath.Abs(path) // it works elsewhere
	}
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(path)
	out, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	p, err := start(cmd, name, out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			ended := p.Ended()
			p.Kill()
			t.Logf("%s said last:\n%s", name, p.Tail())
			if ended != nil {
				t.Logf("it ended by itself: %v", p.cmd.ProcessState)
			}
		}
		p.Kill()
	})
	return p
}
