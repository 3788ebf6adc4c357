package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// serveFiles is the bare Go file server: net/http and a directory, no more.
func serveFiles(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench files", flag.ContinueOnError)
	addr := flags.String("listen", "", "address to listen on")
	dir := flags.String("dir", "", "directory to serve")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(*dir)))
	mux.Handle("/memory/", http.StripPrefix("/memory/", &fromMemory{dir: *dir}))
	srv := &http.Server{Addr: *addr, Handler: mux}
	context.AfterFunc(ctx, func() { srv.Close() })
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		return fmt.Errorf("serve files: %w", err)
	}
	return nil
}

// fromMemory serves the files of a directory from memory: the least that a Go
// server can do for an image manifest.
type fromMemory struct {
	dir   string
	files sync.Map // name → []byte
}

func (m *fromMemory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	held, ok := m.files.Load(r.URL.Path)
	if !ok {
		content, err := os.ReadFile(filepath.Join(m.dir, filepath.Base(r.URL.Path)))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		held = content
		m.files.Store(r.URL.Path, held)
	}
	content, _ := held.([]byte)
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	if r.Method != http.MethodHead {
		w.Write(content) // what fails is the client's
	}
}
