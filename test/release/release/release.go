// Package release makes what is published of a version: binaries, the image, the
// Helm chart, what is rendered from it, lists of components, the changelog's
// section, and the checksums of all of them.
//
// It starts from a commit and nothing else: a working tree with changes is
// refused, as is a version that is none. The same commit gives the same bytes with
// the same Go, wherever it is built, so that anybody can check what was published.
// Nothing is signed or published here; docs/release.md tells what comes after.
package release

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/larder-registry/larder/test/release/image"
)

// Config says what is released.
type Config struct {
	Root    string // of the project, a git working tree
	Version string // v1.2.3 or v1.2.3-rc.1
	// Out is the directory to make; what was there before is replaced.
	Out string
}

// Make makes the release. It appears at c.Out when all of it is done. ctx ends
// compilers and helm.
func Make(ctx context.Context, c Config) error {
	if err := checkVersion(c.Version); err != nil {
		return err
	}
	from, err := commit(ctx, c.Root, c.Version)
	if err != nil {
		return err
	}
	changes, err := section(filepath.Join(c.Root, "CHANGELOG.md"), c.Version)
	if err != nil {
		return err
	}
	stamp := image.Stamp{Version: c.Version, Revision: from.revision, Created: from.time}
	set, err := image.Make(ctx, c.Root, stamp)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.Out), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(c.Out), ".release-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(work)
	out := filepath.Join(work, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}

	if err := images(set, out); err != nil {
		return err
	}
	if err := binaries(c.Root, set, out); err != nil {
		return err
	}
	charts := charts{root: c.Root, work: work, stamp: stamp, helm: filepath.Join(work, "helm"), larder: filepath.Join(work, "larder")}
	for _, p := range set.Platforms {
		if p.Arch == runtime.GOARCH {
			if err := os.WriteFile(charts.larder, p.Binary, 0o755); err != nil {
				return fmt.Errorf("write binary: %w", err)
			}
		}
	}
	if err := charts.make(ctx, out); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "CHANGELOG.md"), changes, 0o644); err != nil {
		return fmt.Errorf("write changes: %w", err)
	}
	if err := sums(out); err != nil {
		return err
	}
	if err := os.RemoveAll(c.Out); err != nil {
		return fmt.Errorf("replace release: %w", err)
	}
	if err := os.Rename(out, c.Out); err != nil {
		return fmt.Errorf("replace release: %w", err)
	}
	return nil
}

// images writes the OCI archive, whose image is called as it is published.
func images(set *image.Set, out string) error {
	ref, err := name.NewTag(image.Repository + ":" + set.Stamp.Version)
	if err != nil {
		return fmt.Errorf("name image: %w", err)
	}
	return set.Archive(filepath.Join(out, "larder-"+set.Stamp.Version+"-image.tar"), ref)
}

// binaries writes for each architecture an archive to unpack, and beside it the
// list of what is in the binary.
func binaries(root string, set *image.Set, out string) error {
	base := "larder-" + set.Stamp.Version + "-linux-"
	for _, p := range set.Platforms {
		files := []entry{{"THIRD_PARTY_LICENSES", 0o644, set.Licences}, {"larder", 0o755, p.Binary}}
		for _, name := range []string{"LICENSE", "README.md"} {
			content, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				return fmt.Errorf("read what goes with the binary: %w", err)
			}
			files = append(files, entry{name, 0o644, content})
		}
		packed, err := pack(base+p.Arch, files, set.Stamp.Created)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, base+p.Arch+".tar.gz"), packed, 0o644); err != nil {
			return fmt.Errorf("write binary: %w", err)
		}
		if err := os.WriteFile(filepath.Join(out, base+p.Arch+".cdx.json"), p.SBOM, 0o644); err != nil {
			return fmt.Errorf("write list of components: %w", err)
		}
	}
	return nil
}

// section returns what CHANGELOG.md says of a version, under "## [1.2.3] - date",
// with or without the brackets, the v and the date. A version that is not there yet
// gets what is under "Unreleased".
func section(file, version string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read changelog: %w", err)
	}
	sections := map[string][]byte{}
	var heading string
	for line := range bytes.Lines(content) {
		if title, ok := bytes.CutPrefix(line, []byte("## ")); ok {
			heading, _, _ = strings.Cut(string(bytes.TrimSpace(title)), " ")
			heading = "v" + strings.TrimPrefix(strings.Trim(heading, "[]"), "v")
			if _, twice := sections[heading]; twice {
				return nil, fmt.Errorf("read changelog: %q is there twice", heading)
			}
			sections[heading] = nil
			continue
		}
		sections[heading] = append(sections[heading], line...)
	}
	for _, heading := range []string{version, "vUnreleased"} {
		if text := bytes.TrimSpace(sections[heading]); len(text) > 0 {
			return append([]byte("# Larder "+version+"\n\n"), append(text, '\n')...), nil
		}
	}
	return nil, fmt.Errorf("read changelog: it says nothing of %s, nor what is unreleased", version)
}
