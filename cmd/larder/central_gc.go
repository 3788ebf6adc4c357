package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	registry "github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/store"
)

// adminFlags is what the commands beside a running registry have in common.
type adminFlags struct {
	config  string
	dataDir string
}

func (f *adminFlags) add(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&f.config, "config", "", "configuration `FILE`, for a registry that does not run")
	cmd.Flags().StringVar(&f.dataDir, "data-dir", "./data", "`DIR` of the registry's content")
}

func newCentralGC() *cobra.Command {
	var f adminFlags
	var dry bool
	var output string
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Collect garbage of the registry now",
		Long: `Collects garbage in the registry's data directory: by the registry that runs
there, without a pause for anybody, or by itself when none runs.

Removed are uploads nobody goes on with, what the rules of retention name
(central.gc.retention), blobs that no image manifest refers to since
central.gc.grace, and content on disk that no repository holds. A blob is first
marked, and goes an hour later at the earliest: so a run may find none, and the
next does.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return usageErrorf("--output %q: write text or json", output)
			}
			got, err := collect(cmd, f, dry)
			if err != nil {
				return err
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(got)
			}
			return printCollected(cmd.OutOrStdout(), got)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "list what would go, and change nothing")
	cmd.Flags().StringVar(&output, "output", "text", "`FORMAT`: text or json")
	return cmd
}

// collect has the running registry collect garbage, or does it.
func collect(cmd *cobra.Command, f adminFlags, dry bool) (got registry.Collected, err error) {
	path := "/gc"
	if dry {
		path += "?dry_run=1"
	}
	err = atRegistry(cmd.Context(), f.dataDir, http.MethodPost, path, func(answer io.Reader) error {
		return json.NewDecoder(answer).Decode(&got)
	})
	if !errors.Is(err, errNotRunning) {
		return got, err
	}
	err = withDepository(cmd, f, func(ctx context.Context, d *depository) error {
		got, err = d.Collect(ctx, dry)
		return err
	})
	return got, err
}

func printCollected(w io.Writer, got registry.Collected) error {
	verb := "removed"
	if got.DryRun {
		verb = "would remove"
	}
	for _, part := range []struct {
		what string
		list []string
	}{{"upload", got.Uploads}, {"tag", got.Tags}, {"manifest", got.Manifests}, {"blob", got.Blobs}, {"content", got.Content}} {
		for _, item := range part.list {
			fmt.Fprintf(w, "%s %s %s\n", verb, part.what, item)
		}
	}
	_, err := fmt.Fprintf(w, "%s %d uploads, %d tags, %d manifests, %d blobs, and from disk %d files of %d bytes; %d blobs wait\n",
		verb, len(got.Uploads), len(got.Tags), len(got.Manifests), len(got.Blobs), len(got.Content), got.Bytes, got.Waiting)
	return err
}

// errNotRunning means that no registry runs on a data directory.
var errNotRunning = errors.New("no registry runs there")

// atRegistry asks the registry that runs on a data directory, and hands its
// answer to take. It fails with errNotRunning when there is none.
func atRegistry(ctx context.Context, dir, method, path string, take func(io.Reader) error) error {
	socket, done, err := socketPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errNotRunning
	}
	if err != nil {
		return fmt.Errorf("open data directory: %w", err)
	}
	defer done()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://registry"+path, nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return errNotRunning
	}
	if err != nil {
		return fmt.Errorf("ask registry: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) //nolint:errcheck // what there is of a reason
		return fmt.Errorf("registry: %s", text)
	}
	if err := take(res.Body); err != nil {
		return fmt.Errorf("read registry's answer: %w", err)
	}
	if failed := res.Trailer.Get(failedTrailer); failed != "" {
		return fmt.Errorf("registry: %s", failed)
	}
	return nil
}

// withDepository opens a data directory that no registry runs on, for f.
func withDepository(cmd *cobra.Command, f adminFlags, do func(context.Context, *depository) error) error {
	if _, err := os.Stat(filepath.Join(f.dataDir, "index")); err != nil {
		return usageErrorf("--data-dir %s: there is no registry's content in it: %v", f.dataDir, err)
	}
	cfg, warnings, err := loadConfig(f.config)
	warn(cmd.ErrOrStderr(), warnings)
	if err != nil {
		return err
	}
	log, err := newLogger(cmd.ErrOrStderr(), "warn", "text")
	if err != nil {
		return err
	}
	ctx, _, release := signals(cmd.Context())
	defer release()
	d, err := openDepository(ctx, f.dataDir, cfg.Central, 0, log, nil)
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("%w; it does not answer at %s", err, filepath.Join(f.dataDir, controlSocket))
	}
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, d), d.close())
}

// failedTrailer says at the end of an answer why it is not whole.
const failedTrailer = "Larder-Failed"

// controlHandler answers larder central gc and backup in the registry that runs.
func controlHandler(c *registry.Central) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /gc", func(w http.ResponseWriter, r *http.Request) {
		got, err := c.Collect(r.Context(), r.URL.Query().Get("dry_run") != "")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(got) // whoever asked may have gone
	})
	mux.HandleFunc("GET /backup", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", failedTrailer)
		if _, err := c.Backup(r.Context(), w); err != nil {
			w.Header().Set(failedTrailer, err.Error())
		}
	})
	return mux
}
