package faults

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// disk is a small tmpfs that only exists in a mount namespace of the test's
// own, and ends with it.
type disk struct {
	t   *testing.T
	pid string // of the process that holds the namespaces
	dir string // the mount point, inside
}

// newDisk mounts a tmpfs of that size, for instance "128m".
func newDisk(t *testing.T, size string) *disk {
	t.Helper()
	d := &disk{t: t, dir: t.TempDir()}
	args := []string{"--mount"}
	if os.Geteuid() != 0 {
		args = []string{"--user", "--map-root-user", "--mount"}
	}
	script := fmt.Sprintf("mount -t tmpfs -o size=%s tmpfs %s && echo mounted && exec cat", size, d.dir)
	holder := exec.Command("unshare", append(args, "sh", "-c", script)...)
	holder.Stderr = os.Stderr
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatalf("make a mount namespace: %v", err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // cat ends, and the namespace with it
		if err := holder.Wait(); err != nil {
			t.Errorf("holder of the mount namespace: %v", err)
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "mounted\n" {
		t.Fatalf("mount a tmpfs: %q, %v", line, err)
	}
	d.pid = strconv.Itoa(holder.Process.Pid)
	return d
}

// path is where the test sees a file of the disk.
func (d *disk) path(name string) string { return filepath.Join("/proc", d.pid, "root", d.dir, name) }

// command runs inside the namespace.
func (d *disk) command(name string, args ...string) *exec.Cmd {
	enter := []string{"--target", d.pid, "--mount"}
	if os.Geteuid() != 0 {
		enter = append(enter, "--user", "--preserve-credentials")
	}
	return exec.Command("nsenter", append(append(enter, "--", name), args...)...)
}

func (d *disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := d.command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// fill leaves no byte free. free undoes it.
func (d *disk) fill() {
	d.t.Helper()
	f, err := os.Create(d.path("filler"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	var n int64
	for _, step := range []int{mib, 4096, 1} {
		zeros := make([]byte, step)
		for {
			k, err := f.Write(zeros)
			n += int64(k)
			if err != nil {
				break
			}
		}
	}
	if n == 0 {
		d.t.Log("the disk was full before")
	}
}

func (d *disk) free() {
	d.t.Helper()
	if err := os.Remove(d.path("filler")); err != nil {
		d.t.Fatal(err)
	}
}

// startLarder runs a mirror whose data directory is on the disk.
func (d *disk) startLarder(t *testing.T, s settings) *larder {
	t.Helper()
	l := d.newLarder(t, s)
	d.start(l)
	return l
}

func (d *disk) newLarder(t *testing.T, s settings) *larder {
	s.dir = filepath.Join(d.dir, "data")
	l := newLarder(t, s)
	l.dir = d.path("data")
	return l
}

func (d *disk) start(l *larder) {
	l.t.Helper()
	l.startWith(d.command(binary, l.args...))
}

// small and large are blobs that fit on a disk of 160 MiB beside the index, and
// that do not.
const (
	diskSize         = "160m"
	small, largeBlob = 10 * mib, 150 * mib
)

func TestBlobLargerThanTheDisk(t *testing.T) {
	t.Parallel()
	d := newDisk(t, diskSize)
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, largeBlob))
	l := d.startLarder(t, settings{servers: []*registry.Server{up.Server}})
	l.mustGet(t, right, tagAsk(up))
	l.mustGet(t, right, blobAsk(up))
	a := blobAsk(up)
	a.from, a.to = 100*mib, 100*mib+50
	l.mustGet(t, right, a)
	if l.kept(a.blob.Digest) || l.partial(a.blob.Digest) {
		t.Error("a blob larger than the disk is said to be on it")
	}
	if up.Sent(a.blob.Digest) < largeBlob {
		t.Error("it did not come from upstream")
	}
	l.stop()
}

// TestDiskFillsUp fills the disk under a running mirror, before a pull and in
// the middle of one; every client gets right bytes, and content is kept again
// once there is room.
func TestDiskFillsUp(t *testing.T) {
	t.Parallel()
	d := newDisk(t, diskSize)
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, small))
	l := d.startLarder(t, settings{servers: []*registry.Server{up.Server}})

	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: small / 2, Times: 1})
	client := make(chan seen, 1)
	go func() { client <- l.get(t, blobAsk(up)) }()
	<-gate.Reached()
	d.fill()
	gate.Open()
	if s := <-client; s.word != right {
		t.Errorf("the disk filled up midway: %v", s)
	}

	for i := range uint64(3) {
		image := up.AddImage("full", fmt.Sprint("v", i), registry.NewLayer(100+i, small))
		for _, a := range []ask{
			{server: up.Server, repo: "full", kind: registry.Manifests, tag: image.Tag, blob: image.Blob},
			{server: up.Server, repo: "full", kind: registry.Manifests, blob: image.Blob},
			{server: up.Server, repo: "full", kind: registry.Blobs, blob: image.Config},
			{server: up.Server, repo: "full", kind: registry.Blobs, blob: image.Layers[0]},
			{server: up.Server, repo: "full", kind: registry.Blobs, blob: image.Layers[0], from: mib, to: mib + 1},
		} {
			if s := l.get(t, a); s.word != right {
				t.Errorf("on a full disk: %s: %v", a.path(), s)
			}
		}
	}

	d.free()
	image := up.AddImage("roomy", tag, registry.NewLayer(200, small))
	a := ask{server: up.Server, repo: "roomy", kind: registry.Blobs, blob: image.Layers[0]}
	l.awaitWord(t, right, a)
	l.awaitKept(t, a)
	l.stop()
}

// awaitKept asks until the blob is on disk.
func (l *larder) awaitKept(t *testing.T, a ask) {
	t.Helper()
	for range 100 {
		l.mustGet(t, right, a)
		if l.kept(a.blob.Digest) {
			return
		}
	}
	t.Error("there is room, and a blob is not kept")
}

// TestDiskFullAtStart starts on a disk without a free byte, where an index is
// already and where there is none.
func TestDiskFullAtStart(t *testing.T) {
	t.Parallel()
	d := newDisk(t, diskSize)
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, small))
	l := d.startLarder(t, settings{servers: []*registry.Server{up.Server}})
	l.mustGet(t, right, tagAsk(up))
	l.mustGet(t, right, blobAsk(up))
	l.stop()
	d.fill()
	d.start(l)
	up.Forget()
	l.mustGet(t, right, tagAsk(up))
	l.mustGet(t, right, blobAsk(up))
	if n := up.Count(registry.Blobs); n != 0 {
		t.Errorf("what was held before was asked for %d times", n)
	}
	other := up.AddImage("other", tag, registry.NewLayer(2, small))
	l.mustGet(t, right, ask{server: up.Server, repo: "other", kind: registry.Manifests, tag: tag, blob: other.Blob})
	l.mustGet(t, right, ask{server: up.Server, repo: "other", kind: registry.Blobs, blob: other.Layers[0]})
	l.stop()
}

// TestReadOnlyDisk starts on a disk that cannot be written, with content on it:
// that is served, and the rest passes through.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	d := newDisk(t, diskSize)
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, small))
	other := up.AddImage("other", tag, registry.NewLayer(2, small))
	l := d.startLarder(t, settings{servers: []*registry.Server{up.Server}})
	l.mustGet(t, right, tagAsk(up))
	l.mustGet(t, right, blobAsk(up))
	l.stop()
	d.run("mount", "-o", "remount,bind,ro", d.dir)
	d.start(l)
	up.Forget()
	l.mustGet(t, right, tagAsk(up))
	l.mustGet(t, right, blobAsk(up))
	if n := up.Count(registry.Blobs); n != 0 {
		t.Errorf("what was held before was asked for %d times", n)
	}
	for range 2 {
		l.mustGet(t, right, ask{server: up.Server, repo: "other", kind: registry.Manifests, tag: tag, blob: other.Blob})
		l.mustGet(t, right, ask{server: up.Server, repo: "other", kind: registry.Blobs, blob: other.Layers[0]})
		l.mustGet(t, right, ask{server: up.Server, repo: "other", kind: registry.Blobs, blob: other.Layers[0], from: mib, to: mib + 7})
	}
	l.stop()
	d.run("mount", "-o", "remount,bind,rw", d.dir)
	d.start(l)
	up.Forget()
	l.mustGet(t, right, blobAsk(up))
	if n := up.Count(); n != 0 {
		t.Errorf("what was held before was asked for %d times", n)
	}
	l.stop()
}
