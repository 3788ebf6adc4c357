package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	registry "github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/store"
)

func newCentralBackup() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Back the registry up into one file",
		Long: `Writes everything the registry holds into FILE, a tar archive, as it is at one
moment: by the registry that runs on the data directory, while pushes and pulls
go on, or by itself when none runs. Every digest is checked on the way. FILE
appears when it is whole and on disk; - is standard output, of which restore tells
whether it is whole. Unfinished uploads, and the key that tokens are signed with,
are not in it.

Copying the data directory of a registry that does not run is a backup, too.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// However it ends, nothing partial is left.
			ctx, _, release := signals(cmd.Context())
			defer release()
			cmd.SetContext(ctx)
			if args[0] == "-" {
				return backUp(cmd, f, cmd.OutOrStdout())
			}
			err := writeWhole(args[0], func(w io.Writer) error { return backUp(cmd, f, w) })
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: backed up\n", args[0])
			return err
		},
	}
	f.add(cmd)
	return cmd
}

// backUp has the running registry back up, or does it.
func backUp(cmd *cobra.Command, f adminFlags, w io.Writer) error {
	err := atRegistry(cmd.Context(), f.dataDir, http.MethodGet, "/backup", func(answer io.Reader) error {
		_, err := io.Copy(w, answer)
		return err
	})
	if !errors.Is(err, errNotRunning) {
		return err
	}
	return withDepository(cmd, f, func(ctx context.Context, d *depository) error {
		_, err := d.Backup(ctx, w)
		return err
	})
}

// writeWhole makes a file that is there only once it is whole and on disk. It
// takes the place of a file, and of nothing else: not of a device.
func writeWhole(name string, write func(io.Writer) error) (err error) {
	if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return usageErrorf("%s: it is no regular file: name a new one, or - for standard output", name)
	}
	partial := name + ".partial"
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return usageErrorf("%v", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(partial))
		}
	}()
	buffered := bufio.NewWriterSize(f, 1<<20)
	if err := write(buffered); err != nil {
		return err
	}
	if err := errors.Join(buffered.Flush(), f.Sync()); err != nil {
		return err
	}
	if err := os.Rename(partial, name); err != nil {
		return err
	}
	return errors.Join(f.Close(), syncDirectory(filepath.Dir(name)))
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newCentralRestore() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Restore the registry from a backup, into a new data directory",
		Long: `Makes a data directory from FILE, which larder central backup wrote; - is standard
input. Every digest is checked, and everything that a tag, an image manifest or a
repository refers to has to be there. The directory appears when all of that is
done and on disk; one that is there already, as where a volume is mounted, must be
empty, and stays so until then.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := restore(cmd, args[0], filepath.Clean(dataDir))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: restored %d records and %d blobs of %d bytes\n", dataDir, done.Records, done.Blobs, done.Bytes)
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "./data", "`DIR` to make")
	return cmd
}

// restore fills a directory beside the one that is wanted, or within it if that is
// there, and then has it take that one's place.
func restore(cmd *cobra.Command, file, dir string) (done registry.BackedUp, err error) {
	from := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return done, usageErrorf("%v", err)
		}
		defer f.Close()
		from = f
	}
	partial := dir + ".restoring"
	list, err := os.ReadDir(dir)
	if err == nil {
		partial = filepath.Join(dir, ".restoring")
	}
	for _, entry := range list {
		// Killed, it leaves the former behind; the latter is in every new volume.
		if name := entry.Name(); name != ".restoring" && name != "lost+found" {
			return done, usageErrorf("--data-dir %s: it is not empty", dir)
		}
	}
	log, err := newLogger(cmd.ErrOrStderr(), "warn", "text")
	if err != nil {
		return done, err
	}
	ctx, _, release := signals(cmd.Context())
	defer release()
	if err := os.RemoveAll(partial); err != nil {
		return done, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	depot, err := store.OpenDepot(store.DepotConfig{Dir: partial, MinFree: store.Bytes(0)})
	if err != nil {
		return done, err
	}
	ledger, err := store.OpenLedger(filepath.Join(partial, "index"), log)
	if err != nil {
		return done, err
	}
	done, err = registry.Restore(ctx, bufio.NewReaderSize(from, 1<<20), registry.Config{Ledger: ledger, Content: depot, Drafts: depot, Log: log})
	if err = errors.Join(err, ledger.Close()); err != nil {
		return done, err
	}
	if partial == dir+".restoring" {
		err = os.Rename(partial, dir)
	} else {
		err = moveUp(partial)
	}
	return done, errors.Join(err, syncDirectory(filepath.Dir(partial)))
}

// moveUp puts what is in a directory beside it, the index last: without that there
// is no registry yet.
func moveUp(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var names []string
	for _, entry := range list {
		if entry.Name() != "index" {
			names = append(names, entry.Name())
		}
	}
	for _, name := range append(names, "index") {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(filepath.Dir(dir), name)); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}
