package e2e

import (
	"context"
	"runtime"
	"testing"
)

// crane is the row of crane. It knows no mirrors: it is pointed at one by the
// name it pulls, and has nowhere to go when that one is away.
func crane() client {
	return client{name: "crane", fresh: freshCrane, quick: "killed", faults: map[string]fault{"killed": killedThenRestarted, "cut": cutThenHealed}}
}

type craneNode struct {
	program, home, ref string
	env                []string
}

func freshCrane(t *testing.T, to target) node {
	t.Helper()
	home := scratch(t)
	return craneNode{
		program: bin(t, "crane"), home: home, env: environ(t, home),
		ref: to.mirror + "/f/" + pathName + "/" + to.repo + ":" + to.tag,
	}
}

func (n craneNode) dir() string { return n.home }

func (n craneNode) pull(ctx context.Context) error {
	_, err := run(ctx, n.env, n.program, "pull", "--format", "oci", "--platform", "linux/"+runtime.GOARCH, n.ref, n.home+"/image")
	return err
}

// check reads the OCI layout crane wrote.
func (n craneNode) check(t *testing.T, img image) {
	t.Helper()
	checkFiles(t, n.home+"/image/blobs/sha256", append(img.blobs(), img.manifest))
}
