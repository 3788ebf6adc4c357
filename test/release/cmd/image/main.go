// Command image builds Larder's image for all architectures, without Docker:
//
//	image -root . -version v0.1.0 -revision COMMIT -epoch SECONDS -out dist
//
// writes dist/larder-image.tar, an OCI archive of both architectures, and for each
// larder-image-<arch>.tar for docker load and larder-image-<arch>.cdx.json, the
// list of what is in it. With -push it pushes the image, and the lists attached to
// it. make image calls it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/larder-registry/larder/test/release/image"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var stamp image.Stamp
	root := flag.String("root", ".", "the project's `directory`")
	out := flag.String("out", "dist", "`directory` to write to")
	repository := flag.String("repository", image.Repository, "the image's `name`, without a tag")
	push := flag.String("push", "", "where to push to, as `host/repository:tag`")
	epoch := flag.String("epoch", "", "the time of everything in the image, in `seconds` since 1970")
	flag.StringVar(&stamp.Version, "version", "", "the `version`, and the image's tag")
	flag.StringVar(&stamp.Revision, "revision", "", "the `commit`")
	flag.Parse()
	if stamp.Version == "" || *epoch == "" {
		return errors.New("a version and a time are needed; where git does not tell: make image VERSION=v0.1.0 SOURCE_DATE_EPOCH=1700000000")
	}
	seconds, err := strconv.ParseInt(*epoch, 10, 64)
	if err != nil || seconds < 0 {
		return fmt.Errorf("%q is no time in seconds since 1970", *epoch)
	}
	stamp.Created = time.Unix(seconds, 0).UTC()
	ref, err := name.NewTag(*repository+":"+stamp.Version, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("name image: %w", err)
	}
	var to name.Tag
	if *push != "" {
		// Wrong names are reported before minutes of building.
		if to, err = name.NewTag(*push, name.StrictValidation); err != nil {
			return fmt.Errorf("name to push to: %w", err)
		}
	}
	set, err := image.Make(ctx, *root, stamp)
	if err != nil {
		return err
	}
	if err := set.Save(*out, ref); err != nil {
		return err
	}
	for _, p := range set.Platforms {
		digest, err := p.Image.Digest()
		if err != nil {
			return err
		}
		size, err := image.Size(p.Image)
		if err != nil {
			return err
		}
		fmt.Printf("linux/%s %s %.1f MiB to pull\n", p.Arch, digest, float64(size)/(1<<20))
	}
	digest, err := set.Index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s@%s\n", ref, digest)
	if *push == "" {
		return nil
	}
	if err := set.Push(ctx, to); err != nil {
		return err
	}
	fmt.Printf("pushed %s@%s\n", to, digest)
	return nil
}
