package auth

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"
)

// User is somebody with a password.
type User struct {
	// Name is the user's, without a colon (RFC 7617 section 2); rules call it
	// "user:<name>".
	Name string
	// PasswordHash is bcrypt's: "$2y$10$…", as htpasswd -nB prints it.
	PasswordHash string
}

const (
	// maxUserName bounds a user's name, in bytes.
	maxUserName = 255
	// maxCost bounds what a login may cost: bcrypt at 14 takes about a
	// second, and doubles with each step.
	maxCost = 14
)

// CheckUser says what is wrong with u, if anything. The hash is not repeated.
func CheckUser(u User) error {
	switch {
	case u.Name == "" || len(u.Name) > maxUserName:
		return fmt.Errorf("a user's name has 1 to %d bytes", maxUserName)
	case strings.ContainsRune(u.Name, ':'):
		return fmt.Errorf("user %q: a name cannot hold a colon (RFC 7617 section 2)", u.Name)
	case !utf8.ValidString(u.Name) || strings.ContainsFunc(u.Name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("user %q: a name holds no control characters", u.Name)
	}
	cost, err := bcrypt.Cost([]byte(u.PasswordHash))
	if err != nil || len(u.PasswordHash) != 60 {
		return fmt.Errorf("user %q: the password is no bcrypt hash; make one with htpasswd -nB %s", u.Name, u.Name)
	}
	if cost > maxCost {
		return fmt.Errorf("user %q: a bcrypt cost of %d takes too long at each login; use at most %d", u.Name, cost, maxCost)
	}
	return nil
}

// NewUser hashes a password, for those who have it in a file. The password has
// at most 72 bytes, which is all that bcrypt looks at.
func NewUser(name, password string) (User, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if errors.Is(err, bcrypt.ErrPasswordTooLong) {
		return User{}, fmt.Errorf("user %q: the password has more than 72 bytes", name)
	}
	if err != nil {
		return User{}, fmt.Errorf("hash password: %w", err)
	}
	u := User{Name: name, PasswordHash: string(hash)}
	return u, CheckUser(u)
}

// userTable finds users by name: those of the configuration before those of
// the htpasswd file.
type userTable struct {
	fixed    passwords
	htpasswd *watched[passwords] // nil without a file
}

// passwords are bcrypt hashes by user, and the users in a fixed order.
type passwords struct {
	hashes map[string]string
	names  []string
}

func newPasswords(hashes map[string]string) passwords {
	return passwords{hashes, slices.Sorted(maps.Keys(hashes))}
}

func newUserTable(s Settings, log *logrus.Entry, now func() time.Time) (*userTable, error) {
	hashes := map[string]string{}
	for _, u := range s.Users {
		if err := CheckUser(u); err != nil {
			return nil, err
		}
		if _, twice := hashes[u.Name]; twice {
			return nil, fmt.Errorf("user %q is there twice", u.Name)
		}
		hashes[u.Name] = u.PasswordHash
	}
	t := &userTable{fixed: newPasswords(hashes)}
	if s.HtpasswdFile == "" {
		return t, nil
	}
	var err error
	t.htpasswd, err = watch(log, now, func(contents [][]byte) (passwords, error) { return parseHtpasswd(contents[0]) }, s.HtpasswdFile)
	return t, err
}

// parseHtpasswd reads lines of name:hash. Empty lines and those that start with
// # are passed over; hashes other than bcrypt's are refused, as are two lines
// for one user, since it would not be clear which counts.
func parseHtpasswd(content []byte) (passwords, error) {
	hashes := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if !ok {
			return passwords{}, fmt.Errorf("line %d: write name:hash", n)
		}
		if err := CheckUser(User{Name: name, PasswordHash: hash}); err != nil {
			return passwords{}, fmt.Errorf("line %d: %w", n, err)
		}
		if _, twice := hashes[name]; twice {
			return passwords{}, fmt.Errorf("line %d: user %q is there twice", n, name)
		}
		hashes[name] = hash
	}
	if err := lines.Err(); err != nil {
		return passwords{}, fmt.Errorf("read lines: %w", err)
	}
	return newPasswords(hashes), nil
}

// CheckHtpasswd says what is wrong with the content of an htpasswd file, if
// anything.
func CheckHtpasswd(content []byte) error {
	_, err := parseHtpasswd(content)
	return err
}

// hash finds a user's hash. For a name nobody has, it gives the hash of some
// user and false: it is compared all the same, so that an unknown name takes as
// long to be refused as a known one. Which user that is depends on the name and
// the secret, so that asking twice tells nothing.
func (t *userTable) hash(name string, secret []byte) (hash string, known bool) {
	if hash, known = t.fixed.hashes[name]; known {
		return hash, true
	}
	decoys := t.fixed
	if t.htpasswd != nil {
		more := t.htpasswd.get()
		if hash, known = more.hashes[name]; known {
			return hash, true
		}
		if len(decoys.names) == 0 {
			decoys = more
		}
	}
	if len(decoys.names) == 0 {
		return "", false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(name))
	i := binary.BigEndian.Uint64(mac.Sum(nil)) % uint64(len(decoys.names))
	return decoys.hashes[decoys.names[i]], false
}
