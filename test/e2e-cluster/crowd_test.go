package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

// A crowd of pods, each with an image of its own, keeps the node pulling for a
// while: four at a time, at crowdRate bytes a second for each connection.
const (
	crowd      = 24
	crowdLayer = 8 * mebibyte
	crowdRate  = 2 * mebibyte
)

func crowdRepo(name string, i uint64) string { return fmt.Sprintf("%s-%d", name, i) }

func itoa(i int) string { return strconv.Itoa(i) }

// gather makes a crowd, in a namespace of its name.
func (s *suite) gather(t *testing.T, name string) (all []pod) {
	t.Helper()
	s.up.Shape(0, crowdRate)
	s.namespace(t, name)
	var objects []string
	for i := range uint64(crowd) {
		p := pod{namespace: name, name: "p" + strconv.FormatUint(i, 10), image: fmt.Sprintf("%s/%s:1", example, crowdRepo(name, i))}
		all = append(all, p)
		objects = append(objects, p.object(t))
	}
	s.DoWith(t, strings.Join(objects, "\n---\n"), "apply", "-f", "-")
	return all
}

// waiting is how many of a crowd do not run yet.
func (s *suite) waiting(t *testing.T, all []pod) (n int) {
	t.Helper()
	for _, p := range all {
		running, _, _, err := s.state(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if !running {
			n++
		}
	}
	return n
}

// arrived waits until all of a crowd run, demands that none of their pulls
// failed, and disperses them. It returns how many pulled past the mirror.
func (s *suite) arrived(t *testing.T, name string, all []pod) (past int) {
	t.Helper()
	for _, p := range all {
		s.runs(t, p)
	}
	for _, reason := range []string{"Failed", "BackOff"} {
		for _, e := range s.events(t, name, reason) {
			t.Errorf("%s, %d times: %s: %s", e.InvolvedObject.Name, e.Count, reason, e.Message)
		}
	}
	pulled := 0
	for _, e := range s.events(t, name, "Pulled") {
		if strings.HasPrefix(e.Message, "Successfully pulled image") {
			pulled += e.Count
		}
	}
	if pulled != len(all) {
		t.Errorf("%d images were pulled, want %d", pulled, len(all))
	}
	for i := range uint64(crowd) {
		if len(asked(s.up, crowdRepo(name, i), false, registry.Manifests, registry.Blobs)) > 0 {
			past++
		}
	}
	s.up.Shape(0, 0)
	s.Do(t, "delete", "namespace", name)
	return past
}

// somebodyPulls waits until the mirror answers a pull, or few are left to do so.
func (s *suite) somebodyPulls(t *testing.T, all []pod) (somebody bool) {
	t.Helper()
	process.Await(t, "a pull through the mirror", func(context.Context) error {
		samples, err := metrics()
		if err != nil {
			return err
		}
		somebody = samples["larder_followers"] > 0
		if !somebody && s.waiting(t, all) > 2 {
			return fmt.Errorf("nobody pulls")
		}
		return nil
	})
	return somebody
}

// killed: the mirror is killed in the middle of pulls, as often as it comes
// back while there are any. None fails.
func killed(t *testing.T, s *suite) {
	all := s.gather(t, "killed")
	var starts []time.Duration
	pid, _ := answering(t)
	for s.somebodyPulls(t, all) {
		kill(t, pid)
		old := pid
		process.Await(t, "the end of the mirror", func(context.Context) error {
			if now, err := mirrorPID(); err == nil && now == old {
				return fmt.Errorf("process %d is there", old)
			}
			return nil
		})
		var took time.Duration
		pid, took = answering(t)
		starts = append(starts, took)
	}
	past := s.arrived(t, "killed", all)
	if len(starts) < 3 {
		t.Errorf("the mirror was killed only %d times", len(starts))
	}
	if past == 0 {
		t.Error("no pull was ever without the mirror: it was killed at the wrong moments")
	}
	t.Logf("%d pulls, the mirror killed %d times, none failed; %d of them went on or began at the upstream; from its start until it was ready the mirror took %v",
		len(all), len(starts), past, starts)
	s.mirrorReady(t)
}

// rolled: the DaemonSet is restarted, and brought to another image, in the
// middle of pulls. None fails.
func rolled(t *testing.T, s *suite) {
	all := s.gather(t, "rolled")
	const image = ghcr + "/larder-registry/larder:0.1.1"
	var took []time.Duration
	for _, args := range [][]string{
		{"rollout", "restart", "--namespace", namespace, "daemonset/larder-mirror"},
		{"set", "image", "--namespace", namespace, "daemonset/larder-mirror", "init=" + image, "mirror=" + image},
	} {
		if !s.somebodyPulls(t, all) {
			t.Error("the crowd was too small: nobody pulls any more")
		}
		began := time.Now()
		s.Do(t, args...)
		s.mirrorReady(t)
		took = append(took, time.Since(began).Round(10*time.Millisecond))
	}
	past := s.arrived(t, "rolled", all)
	t.Logf("%d pulls, the DaemonSet rolled in %v, none failed; %d of them went on or began at the upstream", len(all), took, past)
}

// memory tells what the mirror's pod takes, as kubelet counts it, and the most
// its process ever had.
func (s *suite) memory(t *testing.T) {
	t.Helper()
	var summary struct {
		Pods []struct {
			PodRef struct{ Namespace, Name string }
			Memory struct{ WorkingSetBytes, RSSBytes int64 }
		}
	}
	if err := s.Get(t.Context(), "/api/v1/nodes/"+nodeName+"/proxy/stats/summary", &summary); err != nil {
		t.Fatal(err)
	}
	pid, err := mirrorPID()
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	peak, _, _ = strings.Cut(peak, "\n")
	for _, p := range summary.Pods {
		if p.PodRef.Namespace == namespace {
			t.Logf("%s: %d MiB in use, %d MiB of it the program's own; the process had at most %s",
				p.PodRef.Name, p.Memory.WorkingSetBytes/mebibyte, p.Memory.RSSBytes/mebibyte, strings.TrimSpace(peak))
		}
	}
}
