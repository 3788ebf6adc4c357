package nodeconfig

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ErrUnknownNode is returned by Detect, wrapped, when no runtime was found.
var ErrUnknownNode = errors.New("no container runtime was found on this node")

// Targets lists every kind of node there is a target for, those that are built
// on another's runtime before it: k3s brings a containerd of its own.
func Targets(n *Node) []Target {
	return []Target{
		newBottlerocket(n),
		newRancher(n, "k3s"),
		newRancher(n, "rke2"),
		newDocker(n),
		newCRIO(n),
		newContainerd(n),
	}
}

// Named returns the target that name stands for; the error lists those there
// are.
func Named(n *Node, name string) (Target, error) {
	var names []string
	for _, target := range Targets(n) {
		if target.Name() == name {
			return target, nil
		}
		names = append(names, target.Name())
	}
	return nil, fmt.Errorf("there is no target %q: it is auto, %s", name, strings.Join(names, ", "))
}

// Detect returns the first target whose kind the node is, and how that is seen.
func Detect(ctx context.Context, n *Node) (target Target, evidence string, err error) {
	var names []string
	for _, target := range Targets(n) {
		if evidence, found := target.Detect(ctx); found {
			return target, evidence, nil
		}
		names = append(names, target.Name())
	}
	return nil, "", fmt.Errorf("%w: looked for %s below %s; is the node's / mounted there? Otherwise name the kind by --target", ErrUnknownNode, strings.Join(names, ", "), n.Root)
}
