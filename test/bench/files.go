package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
)

// serveFiles is the bare Go file server: net/http and a directory, no more.
func serveFiles(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench files", flag.ContinueOnError)
	addr := flags.String("listen", "", "address to listen on")
	dir := flags.String("dir", "", "directory to serve")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	srv := &http.Server{Addr: *addr, Handler: http.FileServer(http.Dir(*dir))}
	context.AfterFunc(ctx, func() { srv.Close() })
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		return fmt.Errorf("serve files: %w", err)
	}
	return nil
}
