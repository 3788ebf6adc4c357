package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

func TestWireFailure(t *testing.T) {
	wrap := func(err error) error {
		return &url.Error{Op: "Get", URL: "https://registry.test/?sig=MARKER", Err: err}
	}
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for _, test := range []struct {
		name   string
		err    error
		kind   *oci.Error
		reason string
		weight int
		again  bool
	}{
		{"refused", dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), oci.ErrUnavailable, "refused", 1, true},
		{"no route", dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), oci.ErrUnavailable, "unreachable", 1, true},
		{"reset", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, oci.ErrUnavailable, "cut", 1, true},
		{"closed", io.EOF, oci.ErrUnavailable, "cut", 1, true},
		{"dial timeout", dial(os.ErrDeadlineExceeded), oci.ErrUnavailable, "timeout", breakerThreshold, false},
		{"header timeout", os.ErrDeadlineExceeded, oci.ErrUnavailable, "timeout", 1, false},
		{"no such name", dial(&net.DNSError{IsNotFound: true}), oci.ErrUnavailable, "dns", 1, false},
		{"name server fails", dial(&net.DNSError{IsTemporary: true}), oci.ErrUnavailable, "dns", 1, true},
		{"alert", &net.OpError{Op: "remote error", Err: tls.AlertError(40)}, oci.ErrUnavailable, "tls", 1, false},
		{"no TLS", tls.RecordHeaderError{Msg: "MARKER"}, oci.ErrUnavailable, "tls", 1, false},
		{"plain HTTP", http.ErrSchemeMismatch, oci.ErrUnavailable, "tls", 1, false},
		{"unknown", errors.New("MARKER"), oci.ErrUnavailable, "protocol", 1, true},
		{"refused here", dial(&blockedError{addr: "127.0.0.1"}), oci.ErrDenied, "error", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := wireFailure(t.Context(), "registry.test", wrap(test.err))
			if !errors.Is(f, test.kind) || f.reason() != test.reason || f.weight != test.weight || f.again != test.again {
				t.Errorf("got %v: reason %s, weight %d, again %t; want %s, %d, %t",
					f, f.reason(), f.weight, f.again, test.reason, test.weight, test.again)
			}
		})
	}
}

func TestContextFailure(t *testing.T) {
	if f := contextFailure(t.Context(), "registry.test"); f != nil {
		t.Errorf("of a context that lives: %v", f)
	}
	for _, test := range []struct {
		name   string
		cause  error
		is     error
		not    error
		reason string
	}{
		{"the caller left", nil, context.Canceled, oci.ErrUnavailable, "cancelled"},
		{"the caller left with a cause", errors.New("x"), context.Canceled, oci.ErrUnavailable, "cancelled"},
		{"stalled", errStalled, io.ErrUnexpectedEOF, context.Canceled, "stall"},
		{"no answer", fmt.Errorf("wrapped: %w", errAnswerTimeout), oci.ErrUnavailable, context.Canceled, "timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(test.cause)
			f := contextFailure(ctx, "registry.test")
			if !errors.Is(f, test.is) || errors.Is(f, test.not) || f.reason() != test.reason {
				t.Errorf("got %v (%s)", f, f.reason())
			}
		})
	}
}
