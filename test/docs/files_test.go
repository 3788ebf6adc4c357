package docs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// files makes the file system of a sandbox and goes there: empty but for the
// programs of this machine, which it cannot write to.
func (s sandbox) files(w *world) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", s.Dir, "tmpfs", 0, "size=4g,mode=0755,huge=never"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	at := func(name string) string { return filepath.Join(s.Dir, name) }
	for _, dir := range []string{"usr", "proc", "dev", "sys", "tmp", "etc/ssl/certs", "etc/alternatives", "var/lib", "var/tmp", "run", "root", "home", "out", "clients", "fixtures", "old"} {
		if err := os.MkdirAll(at(dir), 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(at("tmp"), 0o1777), os.Chmod(at("var/tmp"), 0o1777)); err != nil {
		return err
	}
	for _, dir := range []string{"/usr", "/etc/alternatives"} {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue // not Debian
		}
		if err := bindReadOnly(dir, at(dir)); err != nil {
			return err
		}
	}
	if len(s.Path) == 1 {
		if err := bindReadOnly(s.Path[0], at("clients")); err != nil {
			return err
		}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		if err := s.systemDir(dir); err != nil {
			return err
		}
	}
	if err := unix.Mount("/dev", at("dev"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	if err := unix.Mount("proc", at("proc"), "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// /usr/local/bin can be written to: that is where one installs.
	if err := unix.Mount("tmpfs", at("usr/local/bin"), "tmpfs", 0, "size=256m,mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := copyFile(s.Binary, at("usr/local/bin/larder"), 0o755); err != nil {
		return err
	}
	if s.Curl != "" {
		if err := copyFile(s.Curl, at("usr/local/bin/curl"), 0o755); err != nil {
			return err
		}
	}
	for name, text := range w.files() {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(at("script"), []byte(s.Script), 0o644); err != nil {
		return err
	}
	if cache, err := os.ReadFile("/etc/ld.so.cache"); err == nil {
		if err := os.WriteFile(at("etc/ld.so.cache"), cache, 0o644); err != nil {
			return err
		}
	}
	if err := unix.PivotRoot(s.Dir, at("old")); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return nil
}

// bindReadOnly shows a directory at another place. Within a user namespace the
// restrictions that are on it have to stay.
func bindReadOnly(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(to, &fs); err != nil {
		return err
	}
	keep := uintptr(fs.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME)
	if err := unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|keep, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", from, err)
	}
	return nil
}

// systemDir makes /bin and the like as they are on this machine: a link into /usr,
// or a directory.
func (s sandbox) systemDir(name string) error {
	info, err := os.Lstat("/" + name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	at := filepath.Join(s.Dir, name)
	if info.Mode()&os.ModeSymlink != 0 {
		to, err := os.Readlink("/" + name)
		if err != nil {
			return err
		}
		return os.Symlink(to, at)
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	return bindReadOnly("/"+name, at)
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
