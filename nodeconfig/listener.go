package nodeconfig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// ErrTaken is returned by CheckListener, wrapped, when somebody else listens
// where the mirror would be looked for. A stranger there can keep a node from
// pulling anything: containerd waits long for an answer that never comes.
var ErrTaken = errors.New("somebody else listens there")

// Patience with who listens where the mirror should be.
const (
	dialPatience   = time.Second
	answerPatience = 5 * time.Second
)

// CheckListener asks whatever listens at addr who it is. It returns nil when
// that is a mirror, or nobody: a mirror is often started after its node is
// configured. ctx bounds it, and it takes 6 s at most.
func CheckListener(ctx context.Context, addr netip.AddrPort) error {
	dialer := &net.Dialer{Timeout: dialPatience}
	connection, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return nil // nobody, or nobody who can be reached from here
	}
	defer connection.Close()
	transport := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return connection, nil },
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr.String()+"/v2/", http.NoBody)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	switch {
	case err != nil && context.Cause(ctx) == context.DeadlineExceeded: //nolint:errorlint // the cause itself, not an error
		return fmt.Errorf("%s: %w: it accepts connections and does not answer", addr, ErrTaken)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: %w: it closes connections without an answer", addr, ErrTaken)
	case err != nil:
		return fmt.Errorf("%s: %w: its answer is no HTTP", addr, ErrTaken)
	}
	defer answer.Body.Close()
	server := answer.Header.Get("Server")
	if name, _, _ := strings.Cut(server, "/"); name != "larder" {
		return fmt.Errorf("%s: %w: it answers %s, server %q", addr, ErrTaken, answer.Status, server)
	}
	return nil
}
