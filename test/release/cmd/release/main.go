// Command release makes what is published of a version, in dist/<version>:
//
//	release -root . -version v0.1.0
//
// make release calls it. Nothing is published by it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/larder-registry/larder/test/release/release"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := flag.String("root", ".", "the project's `directory`")
	out := flag.String("out", "dist", "`directory` to make the release's directory in")
	version := flag.String("version", "", "the `version`, as v0.1.0")
	flag.Parse()
	made := filepath.Join(*out, *version)
	if err := release.Make(ctx, release.Config{Root: *root, Version: *version, Out: made}); err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(made, "SHA256SUMS"))
	if err != nil {
		return err
	}
	fmt.Printf("%s:\n%s", made, sums)
	return nil
}
