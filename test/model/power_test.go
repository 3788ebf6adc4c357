package model

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"
)

// apart is set in the environment of a test binary that sees file systems which
// nobody else does.
const apart = "LARDER_MODEL_APART"

// beApart runs the tests again in a mount namespace of their own, and returns their
// exit code. A namespace that somebody else makes meanwhile would have a copy of
// what is mounted here, and keep alive what is unmounted.
func beApart() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), apart+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "a mount namespace, to cut the power in, needs root: %v\n", err)
		return 1
	}
	return 0
}

// disk is a file system of its own, in a file, whose power can be cut. It needs
// root and a loop device, as mount does.
type disk struct {
	t          *testing.T
	kind       string
	image, dir string
}

// diskSize is what it holds, in bytes; the image has holes.
const diskSize = 2 << 30

// newDisk makes one of this kind and mounts it. It makes sure that a cut does
// what it is for: what was synced stays, and what was not is gone.
func newDisk(t *testing.T, kind string) *disk {
	t.Helper()
	d := &disk{t: t, kind: kind, image: filepath.Join(t.TempDir(), "image"), dir: filepath.Join(t.TempDir(), "disk")}
	if err := errors.Join(os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, diskSize), os.Mkdir(d.dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	d.run("mkfs."+kind, "-q", d.image)
	d.mount()
	t.Cleanup(func() { d.run("umount", d.dir) })

	synced, loose := filepath.Join(d.dir, "synced"), filepath.Join(d.dir, "loose")
	f, err := os.Create(synced)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("synced")
	if err := errors.Join(err, f.Sync(), syncDir(d.dir), f.Close(), os.WriteFile(loose, []byte("not synced"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d.cut()
	d.restore()
	if text, err := os.ReadFile(synced); err != nil || string(text) != "synced" {
		t.Fatalf("a cut lost what was synced: %q, %v", text, err)
	}
	if text, err := os.ReadFile(loose); !errors.Is(err, fs.ErrNotExist) && len(text) > 0 {
		t.Fatalf("a cut kept what was not synced: %q, %v", text, err)
	}
	return d
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// mount mounts it. The journal is not written before somebody syncs, if that can
// be asked for: the longer that takes, the more there is to lose.
func (d *disk) mount() {
	d.t.Helper()
	options := "loop"
	if d.kind == "ext4" {
		options += ",commit=300"
	}
	d.run("mount", "-t", d.kind, "-o", options, d.image, d.dir)
}

func (d *disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %q: %v: %s (a disk whose power can be cut needs root, loop devices and mkfs.%s)", name, args, err, out, d.kind)
	}
}

// The ioctl by which a file system ends at once, and its flag for not even
// writing its journal (include/uapi/linux/fs.h and fs/ext4/ext4.h in Linux:
// EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN). Tests of file systems cut the power
// with it.
const (
	goingDown  = 0x8004587d
	noLogFlush = 2
)

// cut ends the file system: nothing is written from now on, the journal
// included. What only lay in memory is lost, pages that programs have mapped too;
// whoever writes or syncs is told that there is no disk.
func (d *disk) cut() {
	d.t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	flag := uint32(noLogFlush)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), goingDown, uintptr(unsafe.Pointer(&flag))); errno != 0 { //nolint:gosec // there is no other way to call it
		d.t.Fatalf("cut the power of %s: %v", d.dir, errno)
	}
}

// restore brings the power back. Nobody may have anything open.
func (d *disk) restore() {
	d.t.Helper()
	d.run("umount", d.dir)
	d.mount()
}
