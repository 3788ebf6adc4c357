package cluster

import (
	"bytes"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/test/authority"
	"github.com/larder-registry/larder/test/registry"
)

const mebibyte = 1 << 20

// suite is what the parts of the test share.
type suite struct {
	*cluster
	up        *registry.Server
	ca        *authority.Authority
	untouched snapshot // the node before Larder
	appLayer  digest.Digest
}

// TestCluster is one story in parts: each goes on where the one before ended.
func TestCluster(t *testing.T) {
	ca, err := authority.New("cluster")
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{up: startUpstream(t), ca: ca}
	trust(t, s.ca.PEM())
	authorities := bytes.Join([][]byte{s.up.CAPEM(), s.ca.PEM()}, nil)
	addLarder(t, s.up, "larder-registry/larder", "v0.1.0", "first", authorities)
	addLarder(t, s.up, "larder-registry/larder", "0.1.1", "second", authorities)
	s.up.SetAnonymous(append([]string{"larder-registry/larder"}, s.addPublic(t)...)...)

	s.cluster = startControlPlane(t, s.ca)
	s.startNode(t, pauseImage)
	before := pod{namespace: "default", name: "before", image: example + "/before:1"}
	s.start(t, before)
	s.runs(t, before)
	s.remove(t, before)
	s.untouched = takeSnapshot(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"install", install},
		{"accepted", accepted},
		{"pulls", pulls},
		{"killed", killed},
		{"rolled", rolled},
		{"private", private},
		{"uninstall", uninstall},
		{"chart", chart},
		{"central", push},
		{"webhook", webhook},
		{"shared", shared},
		{"uninstall-chart", uninstallChart},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, s) }) {
			t.Fatalf("the parts after %s are not tried", part.name)
		}
	}
}

// addPublic gives the upstream the images that everybody may have, and returns
// their repositories.
func (s *suite) addPublic(t *testing.T) []string {
	t.Helper()
	repos := []string{"pause", "before"}
	addImage(t, s.up, "pause", "1")
	addImage(t, s.up, "before", "1")
	repos = append(repos, "app", "pushed")
	addImage(t, s.up, "pushed", "1", registry.NewLayer(4, mebibyte))
	s.appLayer = addImage(t, s.up, "app", "1", registry.NewLayer(1, appLayer))
	for i := range uint64(crowd) {
		repos = append(repos, crowdRepo("killed", i), crowdRepo("rolled", i))
		addImage(t, s.up, crowdRepo("killed", i), "1", registry.NewLayer(100+i, crowdLayer))
		addImage(t, s.up, crowdRepo("rolled", i), "1", registry.NewLayer(200+i, crowdLayer))
	}
	return repos
}
