package auth

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
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
	// Password is the password itself, of at most 72 bytes, which is all that
	// bcrypt looks at; for who has it in a file. It is hashed and forgotten.
	Password string
}

const (
	// maxUserName bounds a user's name, in bytes.
	maxUserName = 255
	// maxPlain is what bcrypt looks at of a password, in bytes.
	maxPlain = 72
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
	if u.Password != "" {
		if len(u.Password) > maxPlain || u.PasswordHash != "" {
			return fmt.Errorf("user %q: give a hash, or a password of at most %d bytes", u.Name, maxPlain)
		}
		return nil
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

// userTable finds users by name: those of the configuration before those of
// the htpasswd file.
type userTable struct {
	fixed    passwords
	htpasswd *watched[passwords] // nil without a file
}

// passwords are what users are checked by, and the users in a fixed order.
type passwords struct {
	entries map[string]entry
	names   []string
}

// entry is one user's.
type entry struct {
	hash string // bcrypt's
	// proof stands for the password in what tokens are tied to. It is the
	// same in every process that has the same password, which a hash made
	// here is not.
	proof string
}

func newPasswords(entries map[string]entry) passwords {
	return passwords{entries, slices.Sorted(maps.Keys(entries))}
}

// entryOf checks a user and makes its entry, or takes the one from before for a
// password that is the same, since hashing takes a while.
func entryOf(u User, before passwords) (entry, error) {
	if err := CheckUser(u); err != nil {
		return entry{}, err
	}
	if u.Password == "" {
		return entry{u.PasswordHash, u.PasswordHash}, nil
	}
	sum := sha256.Sum256([]byte(u.Name + ":" + u.Password))
	proof := hex.EncodeToString(sum[:])
	if e, ok := before.entries[u.Name]; ok && e.proof == proof {
		return e, nil
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(u.Password), bcrypt.DefaultCost)
	if err != nil {
		return entry{}, fmt.Errorf("hash password: %w", err)
	}
	return entry{string(hash), proof}, nil
}

func newUserTable(s Settings, before passwords, log *logrus.Entry, now func() time.Time) (*userTable, error) {
	entries := map[string]entry{}
	for _, u := range s.Users {
		e, err := entryOf(u, before)
		if err != nil {
			return nil, err
		}
		if _, twice := entries[u.Name]; twice {
			return nil, fmt.Errorf("user %q is there twice", u.Name)
		}
		entries[u.Name] = e
	}
	t := &userTable{fixed: newPasswords(entries)}
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
	entries := map[string]entry{}
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
		e, err := entryOf(User{Name: name, PasswordHash: hash}, passwords{})
		if err != nil {
			return passwords{}, fmt.Errorf("line %d: %w", n, err)
		}
		if _, twice := entries[name]; twice {
			return passwords{}, fmt.Errorf("line %d: user %q is there twice", n, name)
		}
		entries[name] = e
	}
	if err := lines.Err(); err != nil {
		return passwords{}, fmt.Errorf("read lines: %w", err)
	}
	return newPasswords(entries), nil
}

// CheckHtpasswd says what is wrong with the content of an htpasswd file, if
// anything.
func CheckHtpasswd(content []byte) error {
	_, err := parseHtpasswd(content)
	return err
}

// find finds a user. For a name nobody has, it gives the entry of some user and
// false: its hash is compared all the same, so that an unknown name takes as
// long to be refused as a known one. Which user that is depends on the name and
// the secret, so that asking twice tells nothing. Without any users the entry is
// empty.
func (t *userTable) find(name string, secret []byte) (e entry, known bool) {
	if e, known = t.fixed.entries[name]; known {
		return e, true
	}
	decoys := t.fixed
	if t.htpasswd != nil {
		more := t.htpasswd.get()
		if e, known = more.entries[name]; known {
			return e, true
		}
		if len(decoys.names) == 0 {
			decoys = more
		}
	}
	if len(decoys.names) == 0 {
		return entry{}, false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(name))
	i := binary.BigEndian.Uint64(mac.Sum(nil)) % uint64(len(decoys.names))
	return decoys.entries[decoys.names[i]], false
}
