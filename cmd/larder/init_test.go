package main

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	api "github.com/larder-registry/larder/test/bottlerocket"
)

// TestScripts runs larder on the nodes that testdata/script describes. Beside
// testscript's own commands there are:
//
//	larder ARG…            runs larder, which has to exit with 0; ! larder, with 1
//	usage ARG…             runs larder, which has to exit with 2
//	nobody ARG…            runs larder without any right, which has to exit with 1
//	chowner ARG…           runs larder with no right but CAP_CHOWN; needs root
//	give UID:GID MODE DIR  gives a directory and what is in it away; needs root
//	owned UID:GID DIR      demands whom they belong to
//	keep DIR, kept DIR     remembers a tree with modes and times, and compares it
//	crlf FILE              ends its lines as Windows does
//	big FILE N             adds comments until it has N MiB
//	metadata ADDR [STATUS] serves an instance's address, or a failure
//	stranger SERVER        listens on $STRANGER_PORT, as somebody called so
//	mirror ARG…            runs larder mirror at $MIRROR_PORT and $ADMIN
//	bottlerocket DIR FILE  serves Bottlerocket's API in DIR, with the settings in FILE
//	settings FILE          writes its live settings, and how often it committed
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv(asLarder, "1")
			// The race detector makes every process wait a second at its end.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			// Nobody answers here, and the real services are never asked.
			env.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
			env.Values["kept"] = map[string]string{}
			env.Values["bottlerocket"] = map[string]*api.API{}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("there is no condition %q", cond)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"larder": func(ts *testscript.TestScript, neg bool, args []string) {
				want := exitOK
				if neg {
					want = exitFailed
				}
				exits(ts, want, os.Args[0], args)
			},
			"usage": func(ts *testscript.TestScript, _ bool, args []string) {
				exits(ts, exitUsage, os.Args[0], args)
			},
			"nobody":   asNobody,
			"chowner":  asChowner,
			"give":     give,
			"owned":    owned,
			"keep":     func(ts *testscript.TestScript, _ bool, args []string) { kept(ts)[args[0]] = treeOf(ts, args[0]) },
			"kept":     compareKept,
			"crlf":     crlf,
			"big":      enlarge,
			"metadata": serveMetadata,
			"stranger": stranger,

			"mirror":       scriptMirror,
			"bottlerocket": scriptBottlerocket,
			"settings":     scriptSettings,
		},
	})
}

// exits runs a program and demands its exit code.
func exits(ts *testscript.TestScript, want int, program string, args []string) {
	err := ts.Exec(program, args...)
	code := 0
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as Exec returns it
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("larder %s: %v", strings.Join(args, " "), err)
	}
	if code != want {
		ts.Fatalf("larder %s: exit code %d, want %d", strings.Join(args, " "), code, want)
	}
}

// asNobody runs larder as a user who owns nothing here. A copy of the program is
// run, since the original is where only its owner may go.
func asNobody(ts *testscript.TestScript, _ bool, args []string) {
	if os.Geteuid() != 0 {
		exits(ts, exitFailed, os.Args[0], args)
		return
	}
	program := forEverybody(ts)
	cmd := exec.Command(program, args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{asLarder + "=1", "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + ts.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitFailed {
		ts.Fatalf("larder %s, as nobody: %v, want exit code %d", strings.Join(args, " "), err, exitFailed)
	}
}

// forEverybody copies larder to where everybody can run it, and opens the way to
// the script's directory.
func forEverybody(ts *testscript.TestScript) (program string) {
	dir, err := os.MkdirTemp("", "larder-nobody-")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	ts.Check(os.Chmod(dir, 0o755))
	raw, err := os.ReadFile(os.Args[0])
	ts.Check(err)
	program = filepath.Join(dir, "larder")
	ts.Check(os.WriteFile(program, raw, 0o755))
	for at := ts.MkAbs("."); at != "/" && at != os.TempDir(); at = filepath.Dir(at) {
		ts.Check(os.Chmod(at, 0o755))
	}
	return program
}

// asChowner runs larder with the one power that the chart's init container has.
func asChowner(ts *testscript.TestScript, neg bool, args []string) {
	cmd := exec.Command(forEverybody(ts), args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{asLarder + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: []uintptr{0}, // CAP_CHOWN (capability.h)
	}
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	want := exitOK
	if neg {
		want = exitFailed
	}
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
		ts.Fatalf("larder %s, with CAP_CHOWN: %v, want exit code %d", strings.Join(args, " "), err, want)
	}
}

// give gives a directory to a user and closes it and those in it to others.
func give(ts *testscript.TestScript, _ bool, args []string) {
	var uid, gid int
	var mode fs.FileMode
	_, err := fmt.Sscanf(args[0]+" "+args[1], "%d:%d %o", &uid, &gid, &mode)
	ts.Check(err)
	ts.Check(filepath.WalkDir(ts.MkAbs(args[2]), func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = os.Chmod(name, mode)
		}
		if err != nil {
			return err
		}
		return os.Lchown(name, uid, gid)
	}))
}

// owned demands that a directory and all that is in it belongs to a user.
func owned(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(filepath.WalkDir(ts.MkAbs(args[1]), func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || fmt.Sprintf("%d:%d", stat.Uid, stat.Gid) != args[0] {
			return fmt.Errorf("%s belongs to %d:%d, want %s", name, stat.Uid, stat.Gid, args[0])
		}
		return nil
	}))
}

// kept are the trees a script has asked to remember.
func kept(ts *testscript.TestScript) map[string]string {
	all, ok := ts.Value("kept").(map[string]string)
	if !ok {
		ts.Fatalf("nothing can be kept")
	}
	return all
}

func compareKept(ts *testscript.TestScript, _ bool, args []string) {
	was, ok := kept(ts)[args[0]]
	if !ok {
		ts.Fatalf("%s was not kept", args[0])
	}
	if is := treeOf(ts, args[0]); is != was {
		ts.Fatalf("%s was\n%s\nand is\n%s", args[0], was, is)
	}
}

// treeOf describes a directory to the byte, the mode and the time.
func treeOf(ts *testscript.TestScript, dir string) string {
	var b strings.Builder
	root := ts.MkAbs(dir)
	err := filepath.WalkDir(root, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s", strings.TrimPrefix(name, root), info.Mode())
		switch {
		case info.Mode().IsRegular():
			raw, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d\n%s\n", info.ModTime().UnixNano(), raw)
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %s\n", target)
		default:
			b.WriteString("\n")
		}
		return nil
	})
	ts.Check(err)
	return b.String()
}

func crlf(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := strings.ReplaceAll(ts.ReadFile(name), "\n", "\r\n")
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
	}
}

func enlarge(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := ts.ReadFile(args[0])
	line := "# " + strings.Repeat("x", 97) + "\n"
	text += strings.Repeat(line, (size<<20-len(text))/len(line)+1)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// serveMetadata starts an instance metadata service that has the address, and
// points larder there.
func serveMetadata(ts *testscript.TestScript, _ bool, args []string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case len(args) > 1:
			status, _ := strconv.Atoi(args[1])
			w.WriteHeader(status)
		case r.Method == http.MethodPut:
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "300")
			_, _ = io.WriteString(w, "token")
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "token":
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasSuffix(r.URL.Path, "/local-ipv4") && !strings.Contains(args[0], ":"),
			strings.HasSuffix(r.URL.Path, "/ipv6") && strings.Contains(args[0], ":"):
			_, _ = io.WriteString(w, args[0])
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	ts.Defer(server.Close)
	ts.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.URL)
}

func stranger(ts *testscript.TestScript, _ bool, args []string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Server", args[0]) }))
	ts.Defer(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	ts.Check(err)
	ts.Setenv("STRANGER_PORT", port)
}
