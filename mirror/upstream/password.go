package upstream

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// maxSecretFile bounds a file that holds a secret, in bytes; Google's
	// keys take 2.4 KiB.
	maxSecretFile = 64 << 10
	// fileLogin is how long what was read from a file is used before the
	// file is read again: it may have been replaced.
	fileLogin = time.Minute
)

// password is the source of an entry with a username and a password.
type password struct {
	whole
	username, secret string
	file             string // holds the password instead
	now              func() time.Time
}

func (p password) login(context.Context, string) (login, error) {
	l := login{Credential: auth.Credential{Username: p.username, Password: p.secret}}
	if p.file == "" {
		return l, nil
	}
	content, err := readSecret(p.file)
	if err != nil {
		return login{}, err
	}
	// A line's end after the password does not belong to it.
	l.Password = strings.TrimRight(string(content), "\r\n")
	if l.Password == "" {
		return login{}, fmt.Errorf("read %s: the file is empty", p.file)
	}
	l.renew = p.now().Add(fileLogin)
	return l, nil
}

// readSecret reads a small regular file: a wrong path, to a device or a pipe,
// neither blocks nor fills memory.
func readSecret(file string) ([]byte, error) { return readBounded(file, maxSecretFile) }

func readBounded(file string, most int64) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("read %s: not a regular file of at most %d bytes", file, most)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}
