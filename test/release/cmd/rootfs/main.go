// Command rootfs writes the files of Larder's image to a directory; the
// Dockerfile's build stage calls it.
//
//	rootfs -root . -arch arm64 -version v0.1.0 -epoch SECONDS -out DIR
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/larder-registry/larder/test/release/licences"
	"github.com/larder-registry/larder/test/release/rootfs"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "rootfs: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := flag.String("root", ".", "the project's `directory`")
	arch := flag.String("arch", "", "`architecture`: amd64 or arm64")
	version := flag.String("version", "", "the `version`")
	epoch := flag.Int64("epoch", 0, "the time of every file, in `seconds` since 1970")
	out := flag.String("out", "", "`directory` to make")
	flag.Parse()
	if *arch == "" || *version == "" || *out == "" {
		return errors.New("-arch, -version and -out are needed")
	}
	known, err := licences.Of(ctx, *root)
	if err != nil {
		return err
	}
	tree, err := rootfs.Build(ctx, *root, *arch, *version, known)
	if err != nil {
		return err
	}
	return rootfs.Write(*out, tree, time.Unix(*epoch, 0))
}
