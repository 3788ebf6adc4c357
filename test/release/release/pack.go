package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// entry is a file to pack.
type entry struct {
	path    string // with slashes
	mode    fs.FileMode
	content []byte
}

// pack makes a tar.gz of files below one directory, all of one time and nobody's.
func pack(dir string, files []entry, created time.Time) ([]byte, error) {
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", dir, err)
	}
	t := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: dir + "/" + f.path, Mode: int64(f.mode.Perm()), Size: int64(len(f.content)), ModTime: created, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", dir, err)
		}
		if _, err := t.Write(f.content); err != nil {
			return nil, fmt.Errorf("pack %s: %w", dir, err)
		}
	}
	if err := t.Close(); err != nil {
		return nil, fmt.Errorf("pack %s: %w", dir, err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("pack %s: %w", dir, err)
	}
	return packed.Bytes(), nil
}

// readDir reads a directory's files, in the order of their paths.
func readDir(dir string) ([]entry, error) {
	var files []entry
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, entry{filepath.ToSlash(rel), 0o644, content})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	return files, nil
}

// sums writes SHA256SUMS, as sha256sum -c reads it, over all that is in dir.
func sums(dir string) error {
	files, err := readDir(dir)
	if err != nil {
		return err
	}
	var list bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&list, "%x  %s\n", sha256.Sum256(f.content), f.path)
	}
	if err := os.WriteFile(filepath.Join(dir, "SHA256SUMS"), list.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write checksums: %w", err)
	}
	return nil
}
