// Package rootfs is everything that is in the image: the binary, the roots of
// trust, a user without rights, and the licences. There is no shell and no other
// program.
//
// Both ways to the image start here. The Dockerfile's build stage has the tree
// written to a directory ([Write]) and copies that; make image packs it ([Tar]).
// What the image is told besides its files is in the package image.
package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/larder-registry/larder/test/release/compile"
	"github.com/larder-registry/larder/test/release/licences"
)

// The user that the image runs as: the number that images without a shell have
// agreed on for "nonroot".
const User = 65532

// Where things are in the image.
const (
	Binary = "usr/local/bin/larder"
	// Home is the working directory, and the only one that the user may write
	// to: ./data, the default of --data-dir, is in it.
	Home = "var/lib/larder"
	// Roots is where Go, and everybody else, looks for certificates.
	Roots = "etc/ssl/certs/ca-certificates.crt"
	// Licences are of what is in the binary and is not ours.
	Licences = "licenses/THIRD_PARTY_LICENSES"
)

// File is a file or, without content, a directory.
type File struct {
	Path    string // relative to the root, with slashes
	Mode    os.FileMode
	User    int // its group, too
	Content []byte
}

// Build compiles the project at root for arch and returns the image's files: each
// directory before what is in it, always in one order. known is what is shipped
// of others. ctx ends the compiler.
func Build(ctx context.Context, root, arch, version string, known []licences.Module) ([]File, error) {
	binary, err := compile.Binary(ctx, root, arch, version)
	if err != nil {
		return nil, err
	}
	licence, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		return nil, fmt.Errorf("read licence: %w", err)
	}
	var others bytes.Buffer
	if err := licences.Write(&others, known); err != nil {
		return nil, err
	}
	return []File{
		dir("etc"),
		file("etc/group", []byte("root:x:0:\nnonroot:x:65532:\n")),
		file("etc/passwd", []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/var/lib/larder:/sbin/nologin\n")),
		dir("etc/ssl"),
		dir("etc/ssl/certs"),
		file(Roots, roots()),
		dir("licenses"),
		file("licenses/LICENSE", licence),
		file(Licences, others.Bytes()),
		dir("usr"),
		dir("usr/local"),
		dir("usr/local/bin"),
		{Path: Binary, Mode: 0o755, Content: binary},
		dir("var"),
		dir("var/lib"),
		{Path: Home, Mode: os.ModeDir | 0o750, User: User},
	}, nil
}

// Content is that of the file at path in a tree, nil if there is none.
func Content(tree []File, path string) []byte {
	for _, f := range tree {
		if f.Path == path {
			return f.Content
		}
	}
	return nil
}

func dir(path string) File { return File{Path: path, Mode: os.ModeDir | 0o755} }

func file(path string, content []byte) File {
	return File{Path: path, Mode: 0o644, Content: content}
}

// roots is Mozilla's bundle as the Go project keeps it, in PEM. It is pinned by
// this module's go.sum, so that it is the same for everybody.
func roots() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		// A buffer takes everything.
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
	}
	return b.Bytes()
}

// Tar writes the tree as an image layer. Every entry is of the time created.
func Tar(w io.Writer, tree []File, created time.Time) error {
	t := tar.NewWriter(w)
	for _, f := range tree {
		header := &tar.Header{
			Name: f.Path, Typeflag: tar.TypeReg, Mode: int64(f.Mode.Perm()), Size: int64(len(f.Content)),
			Uid: f.User, Gid: f.User, ModTime: created.Truncate(time.Second), Format: tar.FormatPAX,
		}
		if f.Mode.IsDir() {
			header.Name, header.Typeflag = f.Path+"/", tar.TypeDir
		}
		if err := t.WriteHeader(header); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
		if _, err := t.Write(f.Content); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("end layer: %w", err)
	}
	return nil
}

// Write writes the tree to the directory at root, which must not exist, with every
// time set to created. To give files to their users it has to run as root.
func Write(root string, tree []File, created time.Time) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	for _, f := range tree {
		name := filepath.Join(root, filepath.FromSlash(f.Path))
		var err error
		if f.Mode.IsDir() {
			err = os.Mkdir(name, 0o700)
		} else {
			err = os.WriteFile(name, f.Content, 0o600)
		}
		if err != nil {
			return fmt.Errorf("write tree: %w", err)
		}
		// What mkdir and open are asked for, the umask takes away from.
		if err := errors.Join(os.Chmod(name, f.Mode.Perm()), os.Lchown(name, f.User, f.User)); err != nil {
			return fmt.Errorf("write tree: %w", err)
		}
	}
	// Last of all and from below: a directory's time is that of its last entry.
	for _, f := range slices.Backward(tree) {
		if err := os.Chtimes(filepath.Join(root, filepath.FromSlash(f.Path)), created, created); err != nil {
			return fmt.Errorf("write tree: %w", err)
		}
	}
	return nil
}
