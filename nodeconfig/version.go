package nodeconfig

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// askPatience is how long a running containerd may take to say its version.
const askPatience = 3 * time.Second

// release is a version of containerd. The zero value is an unknown one.
type release struct {
	major, minor int
	text         string
}

// parseRelease reads "1.7.27", "v2.1.5-k3s1", "2.2.4+bottlerocket" or
// "1.6.20~ds1".
func parseRelease(text string) (release, bool) {
	m := regexp.MustCompile(`^v?(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?(?:[-+~].*)?$`).FindStringSubmatch(text)
	if m == nil {
		return release{}, false
	}
	r := release{text: text}
	r.major, _ = strconv.Atoi(m[1]) // digits, by the expression
	r.minor, _ = strconv.Atoi(m[2])
	return r, true
}

func (r release) known() bool { return r.text != "" }

// atLeast reports whether r is known and of this line or a newer one.
func (r release) atLeast(major, minor int) bool {
	return r.known() && (r.major > major || r.major == major && r.minor >= minor)
}

// loaders are the ways in which this release, or when it is unknown any
// release, may put its configuration together.
func (r release) loaders() []loader {
	switch {
	case !r.known():
		return []loader{loader1, loader16, loader20, loader23}
	case r.major < 2 && r.minor < 7:
		return []loader{loader1, loader16} // which of the two came with a patch
	case r.major < 2:
		return []loader{loader1}
	case r.atLeast(2, 3):
		return []loader{loader23}
	default:
		return []loader{loader20}
	}
}

func (r release) String() string {
	if !r.known() {
		return "of unknown version"
	}
	return r.text
}

// containerdRelease finds out what containerd the node runs, and how that was
// seen: the running daemon is asked at socket, else the program is run, else
// read. running reports whether the daemon answered.
func (n *Node) containerdRelease(ctx context.Context, socket string) (r release, source string, running bool) {
	text, err := n.askContainerd(ctx, socket)
	running = err == nil
	if n.ContainerdVersion != "" {
		r, _ := parseRelease(n.ContainerdVersion)
		return r, "as told", running
	}
	if r, ok := parseRelease(text); ok && running {
		return r, "it says so at " + socket, true
	}
	if n.containerdSocket != "" {
		return release{}, "", running
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	if out, err := n.run(ctx, "containerd", "--version"); err == nil {
		// "containerd github.com/containerd/containerd/v2 v2.1.5 fcd43222…"
		for field := range strings.FieldsSeq(out) {
			if r, ok := parseRelease(field); ok {
				return r, "containerd --version", running
			}
		}
	}
	for _, name := range []string{"/usr/bin/containerd", "/usr/local/bin/containerd"} {
		host, err := n.host(name)
		if err != nil {
			continue
		}
		info, err := buildinfo.ReadFile(host)
		if err != nil {
			continue
		}
		if r, ok := parseRelease(info.Main.Version); ok {
			return r, name, running
		}
	}
	return release{}, "", running
}

// askContainerd asks the daemon at socket for its version: the gRPC call
// containerd.services.version.v1.Version/Version, which is one HTTP/2 request
// with an empty message (github.com/containerd/containerd/api, version.proto).
func (n *Node) askContainerd(ctx context.Context, socket string) (string, error) {
	real, err := n.resolve(socket)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(n.Root, real))
		},
		Protocols: new(http.Protocols),
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	call, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://containerd/containerd.services.version.v1.Version/Version", bytes.NewReader(make([]byte, 5)))
	if err != nil {
		return "", err
	}
	call.Header.Set("Content-Type", "application/grpc")
	call.Header.Set("TE", "trailers")
	answer, err := (&http.Client{Transport: transport}).Do(call)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", socket, err)
	}
	defer answer.Body.Close()
	message, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", socket, err)
	}
	text, err := versionMessage(message)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", socket, err)
	}
	return text, nil
}

// versionMessage is the first field, a string, of a gRPC message.
func versionMessage(message []byte) (string, error) {
	bad := errors.New("the answer is no version")
	if len(message) < 5 || message[0] != 0 {
		return "", bad
	}
	body := message[5:]
	if int(binary.BigEndian.Uint32(message[1:5])) != len(body) || len(body) < 2 || body[0] != 1<<3|2 {
		return "", bad
	}
	size, width := binary.Uvarint(body[1:])
	if width <= 0 || size > uint64(len(body)-1-width) {
		return "", bad
	}
	return string(body[1+width : 1+width+int(size)]), nil
}

// ValidVersion reports whether text can be Node.ContainerdVersion.
func ValidVersion(text string) bool {
	_, ok := parseRelease(text)
	return ok
}
