// Command image builds Larder's image for all architectures, without Docker:
//
//	image -root . -version v0.1.0 -revision COMMIT -epoch SECONDS -out dist
//
// writes dist/larder-image.tar, an OCI archive of both architectures, and
// dist/larder-image-<arch>.tar for docker load. make image calls it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/larder-registry/larder/test/release/compile"
	"github.com/larder-registry/larder/test/release/image"
	"github.com/larder-registry/larder/test/release/rootfs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var stamp image.Stamp
	root := flag.String("root", ".", "the project's `directory`")
	out := flag.String("out", "dist", "`directory` to write to")
	repository := flag.String("repository", "ghcr.io/larder-registry/larder", "the image's `name`, without a tag")
	epoch := flag.Int64("epoch", -1, "the time of everything in the image, in `seconds` since 1970")
	flag.StringVar(&stamp.Version, "version", "", "the `version`, and the image's tag")
	flag.StringVar(&stamp.Revision, "revision", "", "the `commit`")
	flag.Parse()
	if stamp.Version == "" || *epoch < 0 {
		return errors.New("-version and -epoch are needed")
	}
	stamp.Created = time.Unix(*epoch, 0).UTC()
	ref, err := name.NewTag(*repository+":"+stamp.Version, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("name image: %w", err)
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	licence, err := os.ReadFile(filepath.Join(*root, "LICENSE"))
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "larder-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)

	var images []v1.Image
	for _, arch := range compile.Arches() {
		binary := filepath.Join(work, arch)
		if err := compile.Binary(ctx, *root, arch, stamp.Version, binary); err != nil {
			return err
		}
		content, err := os.ReadFile(binary)
		if err != nil {
			return err
		}
		tree := rootfs.Tree(content, map[string][]byte{"LICENSE": licence})
		img, err := image.New(arch, tree, stamp)
		if err != nil {
			return err
		}
		if err := image.DockerArchive(filepath.Join(*out, "larder-image-"+arch+".tar"), img, ref); err != nil {
			return err
		}
		if err := report(arch, img); err != nil {
			return err
		}
		images = append(images, img)
	}
	index, err := image.Index(images, stamp)
	if err != nil {
		return err
	}
	if err := image.Archive(filepath.Join(*out, "larder-image.tar"), index, ref, stamp.Created); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s@%s\n", ref, digest)
	return nil
}

// report says how large an image is for those who pull it.
func report(arch string, img v1.Image) error {
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	size := manifest.Config.Size
	for _, l := range manifest.Layers {
		size += l.Size
	}
	fmt.Printf("linux/%s %s %.1f MiB compressed\n", arch, digest, float64(size)/(1<<20))
	return nil
}
