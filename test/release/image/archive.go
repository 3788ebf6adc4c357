package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Archive writes the index and everything in it as an OCI layout in a tar archive
// at path: what ctr images import, podman load, skopeo and crane read. It is
// imported under the name ref. The same image gives the same archive.
//
// What refers to the image is not in it: podman load wants a layout of one image,
// and ctr images import --digests takes an artifact for one and fails.
func (s *Set) Archive(path string, ref name.Tag) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".layout-")
	if err != nil {
		return fmt.Errorf("make layout: %w", err)
	}
	defer os.RemoveAll(dir)
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("make layout: %w", err)
	}
	// containerd goes by the first name, everybody else by the second.
	named := layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          ref.Name(),
		"org.opencontainers.image.ref.name": ref.Name(),
	})
	if err := l.AppendIndex(s.Index, named); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	var packed bytes.Buffer
	if err := tarDir(&packed, dir, s.Stamp.Created); err != nil {
		return err
	}
	return replace(path, &packed)
}

// DockerArchive writes one image as docker save does, for docker load, which
// does not read OCI layouts everywhere.
func DockerArchive(path string, img v1.Image, ref name.Tag) error {
	var packed bytes.Buffer
	if err := tarball.Write(ref, img, &packed); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return replace(path, &packed)
}

// tarDir packs a directory, in the order of names, as nobody's files of one time.
func tarDir(w io.Writer, dir string, created time.Time) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: filepath.ToSlash(rel) + "/", Mode: 0o755, ModTime: created, Format: tar.FormatPAX})
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(rel), Mode: 0o644, Size: int64(len(content)), ModTime: created, Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err = t.Write(content)
		return err
	})
	if err != nil {
		return fmt.Errorf("pack layout: %w", err)
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("pack layout: %w", err)
	}
	return nil
}

// replace writes a file whole or not at all.
func replace(path string, content io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	defer os.Remove(f.Name()) // gone by then, if all went well
	_, err = io.Copy(f, content)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
