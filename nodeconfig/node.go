package nodeconfig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// maxConfig bounds what is read of one file, in bytes. No runtime's
// configuration comes near.
const maxConfig = 16 << 20

// maxLinks is how many symbolic links lead to one file at most, as in the
// kernel (path_resolution(7)).
const maxLinks = 40

// Node is the machine that is configured. Its methods take paths as the node
// sees them and follow symbolic links within Root, so that a link to an absolute
// path leads where it leads on the node.
type Node struct {
	// Root is the directory at which the node's file system is seen: "/" on
	// the node itself, a mount in a container.
	Root string
	// ContainerdConfig is containerd's main file, when it is not
	// /etc/containerd/config.toml.
	ContainerdConfig string
	// ContainerdVersion is what containerd says of itself ("1.7.27"), when it
	// can neither be asked nor run.
	ContainerdVersion string
	// Log takes what happens beside the plan. It must not be nil.
	Log *logrus.Entry

	// containerdSocket is where a containerd answers that is not the system's
	// own; its programs are not the system's either.
	containerdSocket string
	// step, in tests, is called with a name before each thing that cannot be
	// taken back.
	step func(name string)
}

// Check returns an error unless Root is a directory.
func (n *Node) Check() error {
	info, err := os.Stat(n.Root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the node's root %s does not exist: mount the node's / there, or name where it is by --root", n.Root)
	case err != nil:
		return fmt.Errorf("open the node's root: %w", err)
	case !info.IsDir():
		return fmt.Errorf("the node's root %s is no directory", n.Root)
	}
	return nil
}

// Lock keeps every other process that calls it for the same node waiting, until
// release is called or the process ends. It creates no file: what is locked is
// the root directory itself. ctx bounds the wait.
func (n *Node) Lock(ctx context.Context) (release func(), err error) {
	dir, err := os.Open(n.Root)
	if err != nil {
		return nil, n.explain("open", "/", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { dir.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			dir.Close()
			return nil, fmt.Errorf("lock the node: %w", err)
		}
		select {
		case <-ctx.Done():
			dir.Close()
			return nil, fmt.Errorf("another larder is configuring this node: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// resolve follows the symbolic links in name as the node would. What does not
// exist yet is taken by its name.
func (n *Node) resolve(name string) (string, error) {
	at, links := "/", 0
	todo := strings.Split(name, "/")
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		target, err := os.Readlink(filepath.Join(n.Root, next))
		if err != nil { // no link, or nothing there
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("follow %s: %w", name, syscall.ELOOP)
		}
		if path.IsAbs(target) {
			at = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at, nil
}

// host is where this process finds the node's file name, links followed.
func (n *Node) host(name string) (string, error) {
	real, err := n.resolve(name)
	return filepath.Join(n.Root, real), err
}

// read returns the content of a regular file; nil, and no error, when there is
// none.
func (n *Node) read(name string) ([]byte, error) {
	host, err := n.host(name)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(host)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, nil
	case err != nil:
		return nil, n.explain("read", name, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read %s: it is no regular file", name)
	}
	file, err := os.Open(host)
	if err != nil {
		return nil, n.explain("read", name, err)
	}
	defer file.Close()
	var content bytes.Buffer
	if _, err := io.Copy(&content, io.LimitReader(file, maxConfig+1)); err != nil {
		return nil, n.explain("read", name, err)
	}
	if content.Len() > maxConfig {
		return nil, fmt.Errorf("read %s: it is larger than %d MiB", name, maxConfig>>20)
	}
	return append([]byte{}, content.Bytes()...), nil
}

// exists reports whether anything stands at name.
func (n *Node) exists(name string) bool {
	host, err := n.host(name)
	if err != nil {
		return false
	}
	_, err = os.Stat(host)
	return err == nil
}

// isDir reports whether name is a directory.
func (n *Node) isDir(name string) bool {
	host, err := n.host(name)
	if err != nil {
		return false
	}
	info, err := os.Stat(host)
	return err == nil && info.IsDir()
}

// list names what is in a directory, in order; nothing when there is none.
func (n *Node) list(name string) ([]string, error) {
	host, err := n.host(name)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(host)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, n.explain("list", name, err)
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	slices.Sort(names)
	return names, nil
}

// run runs one of the node's own programs, in the node's file system, and
// returns what it wrote to stdout. ctx bounds it. The program is looked for
// where nodes keep theirs.
func (n *Node) run(ctx context.Context, program string, args ...string) (string, error) {
	file := ""
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if n.exists(dir + "/" + program) {
			file = dir + "/" + program
			break
		}
	}
	if file == "" {
		return "", fmt.Errorf("run %s: %w", program, exec.ErrNotFound)
	}
	//nolint:gosec // the program is one of a few named in this package
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if path.Clean(n.Root) != "/" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: n.Root}
	}
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// explain adds to an error of the file system what an operator needs to do
// about it: whose the file is, who we are, and what to mount.
func (n *Node) explain(verb, name string, err error) error {
	cause := err
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		cause = pathError.Err
	}
	text := fmt.Sprintf("%s %s", verb, name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		if owner := n.owner(name); owner != "" {
			text += " (" + owner + ")"
		}
		return fmt.Errorf("%s: %w: larder runs as %d:%d; run it as root, with the node's / mounted writable at %s", text, cause, os.Geteuid(), os.Getegid(), n.Root)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s: %w: mount the node's %s writable at %s", text, cause, path.Dir(name), filepath.Join(n.Root, path.Dir(name)))
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%s: %w: when it is mounted by itself, mount its directory %s instead", text, cause, path.Dir(name))
	}
	return fmt.Errorf("%s: %w", text, cause)
}

// owner describes name, or the nearest directory above it that can be seen.
func (n *Node) owner(name string) string {
	for at := path.Clean("/" + name); ; at = path.Dir(at) {
		host, err := n.host(at)
		if err != nil {
			return ""
		}
		if info, err := os.Stat(host); err == nil {
			stat, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				return ""
			}
			return fmt.Sprintf("%s belongs to %d:%d, mode %04o", at, stat.Uid, stat.Gid, info.Mode().Perm())
		}
		if at == "/" {
			return ""
		}
	}
}

// at tells a test how far it has come.
func (n *Node) at(step string) {
	if n.step != nil {
		n.step(step)
	}
}
