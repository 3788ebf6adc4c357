package cluster

import (
	"fmt"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

func TestCluster(t *testing.T) {
	up := registry.Start(t, registry.Options{Addr: "127.0.0.1:5000"})
	addImage(t, up, "pause", "1")
	addImage(t, up, "app", "1")
	c := startControlPlane(t)
	c.startNode(t, "127.0.0.1:5000/pause:1")
	t.Log("node ready")
	c.do(t, "run", "one", "--image", "127.0.0.1:5000/app:1")
	await(t, "the pod", func() error {
		out, err := c.kubectl(t, "", "get", "pod", "one", "-o", "jsonpath={.status.phase} {.status.podIP}")
		if err == nil && !strings.HasPrefix(out, "Running") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	t.Log(c.do(t, "get", "pods", "-o", "wide"))
	t.Log(c.do(t, "get", "events"))
}
