package central

import (
	"encoding"
	"encoding/json"
	"fmt"
	"hash"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// uploadRecord is how far an upload has come. It says everything that whoever
// goes on with it has to know, so that any replica can.
type uploadRecord struct {
	Repository string           `json:"r"`
	Algorithm  digest.Algorithm `json:"g"`
	// Done was acknowledged: its bytes are on disk.
	Done progress `json:"d"`
	// Ahead is further, and was not: after a crash its bytes have to be looked
	// at before they count. Its Size is 0 when there is nothing ahead.
	Ahead progress `json:"h"`
	// At is the Unix time, in seconds, of the last change.
	At int64 `json:"a"`
}

// progress is a number of bytes and the state of their hash.
type progress struct {
	Size int64  `json:"s"`
	Sum  []byte `json:"m"`
}

// maxSum bounds the state of a hash: Go's sha512 takes 204 bytes, sha256 108.
const maxSum = 512

// parseUpload reads an uploadRecord and refuses what cannot be true.
func parseUpload(text []byte) (uploadRecord, error) {
	var u uploadRecord
	if err := json.Unmarshal(text, &u); err != nil {
		return u, fmt.Errorf("read upload: %w", err)
	}
	if u.Algorithm != digest.SHA256 && u.Algorithm != digest.SHA512 {
		return u, fmt.Errorf("read upload: algorithm %q is not known", u.Algorithm)
	}
	for _, p := range []progress{u.Done, u.Ahead} {
		if p.Size < 0 || len(p.Sum) > maxSum {
			return u, fmt.Errorf("read upload: a progress of %d bytes is not possible", p.Size)
		}
	}
	if _, err := u.Done.hash(u.Algorithm); err != nil {
		return u, err
	}
	if _, err := u.Ahead.hash(u.Algorithm); u.Ahead.Size > 0 && err != nil {
		return u, err
	}
	return u, nil
}

// progressOf notes how far a hash has come.
func progressOf(h hash.Hash, size int64) (progress, error) {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return progress{}, fmt.Errorf("save hash: %T cannot be saved", h)
	}
	sum, err := m.MarshalBinary()
	if err != nil {
		return progress{}, fmt.Errorf("save hash: %w", err)
	}
	return progress{Size: size, Sum: sum}, nil
}

// hash takes the hash up again.
func (p progress) hash(algorithm digest.Algorithm) (hash.Hash, error) {
	h := algorithm.Hash()
	if p.Size == 0 {
		return h, nil
	}
	m, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return nil, fmt.Errorf("restore hash: %T cannot be restored", h)
	}
	if err := m.UnmarshalBinary(p.Sum); err != nil {
		return nil, fmt.Errorf("restore hash: %w", err)
	}
	return h, nil
}

// algorithmOr gives the algorithm an upload announced, or the usual one.
func algorithmOr(algorithm digest.Algorithm) digest.Algorithm {
	if algorithm == "" {
		return digest.Canonical
	}
	return algorithm
}

// errBusy is what the second of two who add to an upload at once is told.
func errBusy() error {
	return oci.Errorf(oci.ErrRangeInvalid, "another request is adding to this upload; ask for its status")
}
