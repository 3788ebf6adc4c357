package auth

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Keys are the secrets that tokens are signed with. The first signs, all
// verify, so that a new one can be put before an old one and the old one be
// taken away once its tokens have expired.
type Keys []Key

// Key is one of them.
type Key struct {
	// id names the key in a token's header; it says nothing about the secret.
	id     string
	secret []byte
}

const (
	// minSecret is the least a key line holds, in bytes: those of a random
	// text of 192 bits in base64.
	minSecret = 32
	maxKeys   = 8
)

// parseKeys reads a key file: a secret of at least 32 characters in each line.
// What is signed with is derived from it (RFC 5869), so that any text will do
// and a file that other programs use, too, gives nothing away.
func parseKeys(contents [][]byte) (Keys, error) {
	var keys Keys
	for line := range bytes.Lines(contents[0]) {
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0:
			continue
		case len(line) < minSecret:
			return nil, fmt.Errorf("a key has at least %d characters; make one with openssl rand -base64 32", minSecret)
		case len(keys) == maxKeys:
			return nil, fmt.Errorf("there are more than %d keys", maxKeys)
		}
		secret, err := hkdf.Key(sha256.New, line, nil, "larder registry token", 32)
		if err != nil {
			return nil, fmt.Errorf("derive key: %w", err)
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte("id"))
		keys = append(keys, Key{id: hex.EncodeToString(mac.Sum(nil)[:8]), secret: secret})
	}
	if len(keys) == 0 {
		return nil, errors.New("the file holds no key; make one with openssl rand -base64 32")
	}
	return keys, nil
}

// CheckKeys says what is wrong with the content of a key file, if anything.
func CheckKeys(content []byte) error {
	_, err := parseKeys([][]byte{content})
	return err
}

// EnsureKey makes a key file with a random secret unless there is one already,
// readable by its owner only. Of several processes that do so at once one wins,
// and all use its key.
func EnsureKey(file string) error {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	dir := filepath.Dir(file)
	temporary, err := os.CreateTemp(dir, ".key-*")
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.WriteString(base64.StdEncoding.EncodeToString(secret) + "\n")
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	// A link, since a rename would replace what another process just made.
	if err := os.Link(temporary.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep key: %w", err)
	}
	return syncDir(dir)
}

// syncDir makes a new name in a directory outlast a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("keep key: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("keep key: %w", err)
	}
	return nil
}
