package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/process"
)

// pod describes a pod to run.
type pod struct {
	namespace, name, image string
	secret                 string // imagePullSecret
	policy                 string // imagePullPolicy; empty means IfNotPresent
}

// object is the pod as the API server wants it.
func (p pod) object(t testing.TB) string {
	t.Helper()
	spec := map[string]any{
		"automountServiceAccountToken": false, "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
		"containers": []any{map[string]any{"name": "c", "image": p.image, "imagePullPolicy": max(p.policy, "IfNotPresent")}},
	}
	if p.secret != "" {
		spec["imagePullSecrets"] = []any{map[string]string{"name": p.secret}}
	}
	return string(encode(t, map[string]any{
		"apiVersion": "v1", "kind": "Pod", "spec": spec,
		"metadata": map[string]any{"name": p.name, "namespace": p.namespace},
	}))
}

// podStatus is what kubelet says of a pod.
type podStatus struct {
	Status struct {
		Phase             string
		ContainerStatuses []struct {
			State struct {
				Waiting *struct{ Reason, Message string }
				Running *struct{}
			}
		}
	}
}

// start makes a pod.
func (c *cluster) start(t testing.TB, p pod) {
	t.Helper()
	c.DoWith(t, p.object(t), "apply", "-f", "-")
}

// state tells how far a pod is: running, refused (its image cannot be pulled;
// why has the words) or neither yet.
func (c *cluster) state(ctx context.Context, p pod) (running, refused bool, why string, err error) {
	var s podStatus
	if err := c.Get(ctx, "/api/v1/namespaces/"+p.namespace+"/pods/"+p.name, &s); err != nil {
		return false, false, "", err
	}
	why = s.Status.Phase
	for _, c := range s.Status.ContainerStatuses {
		if c.State.Running != nil {
			return true, false, "running", nil
		}
		if w := c.State.Waiting; w != nil {
			why = w.Reason + ": " + w.Message
			refused = strings.HasPrefix(w.Reason, "ErrImage") || strings.HasPrefix(w.Reason, "ImagePull")
		}
	}
	return false, refused, why, nil
}

// runs waits until a pod runs.
func (c *cluster) runs(t testing.TB, p pod) {
	t.Helper()
	process.Await(t, "pod "+p.namespace+"/"+p.name, func(ctx context.Context) error {
		running, _, why, err := c.state(ctx, p)
		if err == nil && !running {
			err = errors.New(why)
		}
		return err
	})
}

// isRefused waits until a pod's image could not be pulled, and returns why. It
// fails the test when the pod runs instead.
func (c *cluster) isRefused(t testing.TB, p pod) (reason string) {
	t.Helper()
	process.Await(t, "the refusal of pod "+p.namespace+"/"+p.name, func(ctx context.Context) error {
		running, refused, why, err := c.state(ctx, p)
		if running {
			t.Fatalf("pod %s/%s runs", p.namespace, p.name)
		}
		if err == nil && !refused {
			err = errors.New(why)
		}
		reason = why
		return err
	})
	return reason
}

// remove deletes pods and waits until they are gone.
func (c *cluster) remove(t testing.TB, all ...pod) {
	t.Helper()
	for _, p := range all {
		c.Do(t, "delete", "pod", "--namespace", p.namespace, p.name, "--wait")
	}
}

// forget has containerd forget an image under all its names, as kubelet's
// garbage collection does, and with it the containers that ended: their
// snapshots would spare it the layers.
func (c *cluster) forget(t testing.TB, image string) {
	t.Helper()
	ctr := func(args ...string) string {
		out, err := c.Tool(t, filepath.Join(*binFlag, "ctr"), "", append([]string{"--namespace", "k8s.io"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	digests := map[string]string{} // by name: the third word of a line
	for line := range strings.Lines(ctr("images", "ls")) {
		if words := strings.Fields(line); len(words) > 2 {
			digests[words[0]] = words[2]
		}
	}
	if digests[image] == "" {
		t.Fatalf("containerd has no %s, but %v", image, digests)
	}
	for line := range strings.Lines(ctr("containers", "ls")) {
		if words := strings.Fields(line); len(words) > 1 && digests[words[1]] == digests[image] {
			// kubelet may be first.
			if _, err := c.Tool(t, filepath.Join(*binFlag, "ctr"), "", "--namespace", "k8s.io", "containers", "rm", words[0]); err != nil && !strings.Contains(err.Error(), "not found") {
				t.Fatal(err)
			}
		}
	}
	args := []string{"images", "rm", "--sync"}
	for name, digest := range digests {
		if digest == digests[image] {
			args = append(args, name)
		}
	}
	ctr(args...)
}

// event is something that happened to an object.
type event struct {
	Reason, Message string
	InvolvedObject  struct{ Kind, Name string }
	Count           int
}

// events are those of a namespace, for one reason.
func (c *cluster) events(t testing.TB, namespace, reason string) (all []event) {
	t.Helper()
	var list struct{ Items []event }
	if err := c.Get(t.Context(), "/api/v1/namespaces/"+namespace+"/events?fieldSelector=reason="+reason, &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// namespace makes one.
func (c *cluster) namespace(t testing.TB, name string) {
	t.Helper()
	c.Do(t, "create", "namespace", name)
	process.Await(t, "the service account of "+name, func(ctx context.Context) error {
		return c.Get(ctx, fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/default", name), &struct{}{})
	})
}
