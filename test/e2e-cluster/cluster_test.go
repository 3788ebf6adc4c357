package cluster

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

const mebibyte = 1 << 20

// suite is what the parts of the test share.
type suite struct {
	*cluster
	up          *registry.Server
	authorities []byte
}

// TestCluster is one story in parts: each goes on where the one before ended.
func TestCluster(t *testing.T) {
	up := startUpstream(t)
	for _, repo := range []string{"pause", "before", "app"} {
		up.SetAnonymous("larder-registry/larder", "pause", "before", "app")
		addImage(t, up, repo, "1", registry.NewLayer(1, 3*mebibyte))
	}
	addLarder(t, up, "larder-registry/larder", "0.1.0", "first", up.CAPEM())
	s := &suite{cluster: startControlPlane(t), up: up, authorities: up.CAPEM()}
	s.startNode(t, pauseImage)
	before := pod{"default", "before", example + "/before:1", "", ""}
	s.start(t, before)
	s.runs(t, before)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"install", install},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, s) }) {
			t.Fatalf("without %s the rest says nothing", part.name)
		}
	}
}

// install applies the rendered manifests, as they are.
func install(t *testing.T, s *suite) {
	began := time.Now()
	s.do(t, "apply", "-k", "../../manifests/mirror")
	s.mirrorReady(t)
	t.Logf("from kubectl apply to a ready mirror: %v", time.Since(began).Round(time.Millisecond))
	hosts, err := os.ReadFile(hostsTOML)
	if err != nil || !strings.Contains(string(hosts), "http://127.0.0.1:8000") {
		t.Fatalf("init has not told containerd: %v: %s", err, hosts)
	}
	fmt.Println(string(hosts))
	p := pod{"default", "app", example + "/app:1", "", ""}
	s.start(t, p)
	s.runs(t, p)
	fmt.Println(describe(s.up.Requests()))
}
