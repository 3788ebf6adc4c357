package release

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// checkVersion refuses what is not a version as Go, git and registries all take
// it: v and Semantic Versioning 2.0.0, without build metadata, since a tag of an
// image may not have a plus sign.
func checkVersion(version string) error {
	switch {
	case version == "":
		return errors.New("a version is needed, as in make release VERSION=v0.1.0")
	case !semver.IsValid(version):
		return fmt.Errorf("%q is no version; one is v0.1.0 or v0.1.0-rc.1", version)
	case semver.Build(version) != "":
		return fmt.Errorf("version %q has build metadata, which an image's tag cannot have", version)
	case semver.Canonical(version) != version:
		return fmt.Errorf("version %q is short for %s: write that", version, semver.Canonical(version))
	}
	return nil
}

// source is the commit that is released.
type source struct {
	revision string
	time     time.Time
}

// commit returns the commit that is checked out at root, and refuses to if there
// is anything else there, or if the version is already another commit.
func commit(ctx context.Context, root, version string) (source, error) {
	status, err := git(ctx, root, "status", "--porcelain")
	if err != nil {
		return source{}, err
	}
	if status != "" {
		changed := strings.Split(status, "\n")
		if more := len(changed) - 5; more > 0 {
			changed = append(changed[:5], fmt.Sprintf("and %d more", more))
		}
		return source{}, fmt.Errorf("the working tree has changes that are in no commit; commit or remove them:\n%s", strings.Join(changed, "\n"))
	}
	revision, err := git(ctx, root, "rev-parse", "HEAD")
	if err != nil {
		return source{}, err
	}
	seconds, err := git(ctx, root, "log", "-1", "--format=%ct")
	if err != nil {
		return source{}, err
	}
	epoch, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return source{}, fmt.Errorf("read time of commit: %w", err)
	}
	tagged, err := git(ctx, root, "for-each-ref", "--format=%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)", "refs/tags/"+version)
	if err != nil {
		return source{}, err
	}
	if tagged != "" && tagged != revision {
		return source{}, fmt.Errorf("%s is already the tag of another commit, %s; checked out is %s", version, tagged, revision)
	}
	return source{revision: revision, time: time.Unix(epoch, 0).UTC()}, nil
}

func git(ctx context.Context, root string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("git %s: %s", args[0], strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimRight(string(out), "\n"), nil
}
