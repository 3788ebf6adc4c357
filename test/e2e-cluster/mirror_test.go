package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/process"
)

// What the chart makes of a release named larder.
const (
	namespace = "larder"
	daemonSet = "/apis/apps/v1/namespaces/" + namespace + "/daemonsets/larder-mirror"
	admins    = "http://127.0.0.1:8001" // the mirror's admin port, on the node
	dataDir   = "/var/lib/larder"
	hostsTOML = "/etc/containerd/certs.d/_default/hosts.toml"
)

// mirrorReady waits until the DaemonSet's pod, as it is to be now, is ready.
func (c *cluster) mirrorReady(t testing.TB) {
	t.Helper()
	process.Await(t, "the DaemonSet", func(ctx context.Context) error {
		var d struct {
			Metadata struct{ Generation int64 }
			Status   struct {
				ObservedGeneration                                                           int64
				DesiredNumberScheduled, UpdatedNumberScheduled, NumberReady, NumberAvailable int
			}
		}
		err := c.Get(ctx, daemonSet, &d)
		if s := d.Status; err == nil && (s.ObservedGeneration < d.Metadata.Generation || s.DesiredNumberScheduled != 1 ||
			s.UpdatedNumberScheduled != 1 || s.NumberReady != 1 || s.NumberAvailable != 1) {
			err = fmt.Errorf("%+v", d)
		}
		return err
	})
}

// running is a process of Larder on the node.
type running struct {
	pid  int
	line string
}

// processes are those that run a subcommand of Larder.
func processes(command string) (all []running, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		words := strings.Split(string(line), "\x00")
		if err != nil || len(words) < 2 || words[1] != command || !strings.HasSuffix(words[0], "larder") {
			continue // it may have ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		all = append(all, running{pid, strings.Join(words, " ")})
	}
	return all, nil
}

// mirrorPID is the mirror's process.
func mirrorPID() (int, error) {
	all, err := processes("mirror")
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%d mirrors run", len(all))
	}
	if err != nil {
		return 0, err
	}
	return all[0].pid, nil
}

// answering waits until the mirror says that it is ready, and returns its
// process and how long after that one's start it did so.
func answering(t testing.TB) (pid int, took time.Duration) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	process.Await(t, "the mirror", func(context.Context) error {
		for {
			resp, err := http.Get(admins + "/readyz")
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = errors.New(resp.Status)
				}
			}
			if err == nil {
				now := uptime(t)
				if pid, err = mirrorPID(); err == nil {
					took = now - startOf(t, pid)
				}
				return err
			}
			if _, gone := mirrorPID(); gone != nil {
				return err // it has not begun; ask less often
			}
			<-tick.C
		}
	})
	return pid, took
}

func uptime(t testing.TB) time.Duration {
	t.Helper()
	content, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(content))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds * float64(time.Second))
}

// startOf is when a process began, since boot: proc_pid_stat(5), field 22, in
// hundredths of a second.
func startOf(t testing.TB, pid int) time.Duration {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(content), ") ")
	ticks, err := strconv.ParseInt(strings.Fields(rest)[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// metrics are the mirror's counters: a sample's name with its labels, and its
// value.
func metrics() (map[string]float64, error) {
	resp, err := http.Get(admins + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	samples := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), "} ")
		if !ok {
			name, value, _ = strings.Cut(lines.Text(), " ")
		}
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			samples[name] = f
		}
	}
	return samples, nil
}

// count adds up a counter over all samples that have these labels.
func count(t testing.TB, name string, labels ...string) (sum float64) {
	t.Helper()
	samples, err := metrics()
	if err != nil {
		t.Fatal(err)
	}
next:
	for sample, value := range samples {
		own, rest, _ := strings.Cut(sample, "{")
		if own != name {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(","+rest+",", ","+l+",") {
				continue next
			}
		}
		sum += value
	}
	return sum
}

// kill ends a process without a word.
func kill(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
