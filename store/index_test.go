package store

import (
	"encoding/json"
	"io/fs"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// eachBlob calls f with the digest of every file below blobs/.
func eachBlob(dir string, f func(digest.Digest)) error {
	root := filepath.Join(dir, "blobs")
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if dgst, ok := digestOf(rel); ok {
			f(dgst)
		}
		return nil
	})
}

// tagDigest is what a tag's entry points to.
func tagDigest(value []byte) digest.Digest {
	var v tagValue
	if json.Unmarshal(value, &v) != nil {
		return ""
	}
	return v.Digest
}
