package store_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/store"
)

// insideEnv is set where a test runs in namespaces of its own.
const insideEnv = "LARDER_STORE_TEST_INSIDE"

// inNamespaces runs the calling test again, in a child with mount namespaces of
// its own, where it returns true; in the parent it returns false when the child
// is done. So a test may mount what it likes: it goes with the child, however
// that ends. Without root a user namespace makes the child root over itself.
func inNamespaces(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatalf("make mounts private: %v", err)
		}
		return true
	}
	t.Parallel() // with the other children; nothing is shared
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	runAgain(t, attr)
	return false
}

// runAgain runs the calling test in a child process.
func runAgain(t *testing.T, attr *syscall.SysProcAttr) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var pattern []string
	for part := range strings.SplitSeq(t.Name(), "/") {
		pattern = append(pattern, "^"+part+"$")
	}
	args := []string{"-test.run=" + strings.Join(pattern, "/"), "-test.timeout=10m", "-test.v"}
	for _, arg := range os.Args[1:] {
		if !strings.HasPrefix(arg, "-test.") {
			args = append(args, arg)
		}
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), insideEnv+"=1", "TMPDIR="+t.TempDir(), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in the child: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("the child did not run the test:\n%s", out)
	}
}

// smallDisk is a tmpfs that belongs to the test.
type smallDisk struct {
	t   *testing.T
	dir string
}

// newSmallDisk mounts one with room for size bytes.
func newSmallDisk(t *testing.T, size int64, options ...string) smallDisk {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options = append(options, "size="+strconv.FormatInt(size, 10), "mode=0755", "huge=never")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, strings.Join(options, ",")); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	// What still has it open (an index that could not be closed) keeps it until
	// the child ends.
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return smallDisk{t, dir}
}

func (d smallDisk) free() int64 {
	d.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		d.t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// fill leaves only left bytes free.
func (d smallDisk) fill(left int64) error {
	f, err := os.OpenFile(filepath.Join(d.dir, "filler"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(d.dir, &st); err != nil {
			return err
		}
		size := int64(st.Bavail)*st.Bsize - left
		if size <= 0 {
			return nil
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		// The store may be writing too; then there is less than a moment ago.
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			// Not a byte more after an interruption: the store may have made
			// room since, which is what some tests wait for.
			err = unix.Fallocate(int(f.Fd()), 0, info.Size(), size)
		}
		if errors.Is(err, unix.ENOSPC) {
			continue
		}
		if err != nil {
			return fmt.Errorf("fill the disk: %w", err)
		}
		return nil
	}
}

// relieve gives back what fill took.
func (d smallDisk) relieve() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, "filler")); err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
}

// data is where the store lies on the disk.
func (d smallDisk) data() string { return filepath.Join(d.dir, "data") }

// config is for a store without limits of its own on the disk.
func (d smallDisk) config() store.Config {
	return store.Config{Dir: d.data(), MaxSize: store.Bytes(1 << 30), MinFree: store.Bytes(0)}
}
