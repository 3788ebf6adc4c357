package nodeconfig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// The instance metadata service's addresses (EC2 User Guide, "Access instance
// metadata"). The IPv6 one answers only where it was enabled.
const (
	IMDSv4 = "http://169.254.169.254"
	IMDSv6 = "http://[fd00:ec2::254]"
)

// imdsPatience bounds all that is asked of the service, which answers in
// milliseconds. On a machine that is no EC2 instance nobody answers, or what is
// sent is dropped, and the node must boot all the same.
const imdsPatience = time.Second

// askIMDS asks all endpoints at once for the instance's address, and takes the
// answer of the first in order that has one. The error is one line.
func askIMDS(ctx context.Context, cfg AddressConfig) (netip.Addr, string, error) {
	if len(cfg.Endpoints) == 0 {
		return netip.Addr{}, "", fmt.Errorf("%w: the instance metadata service is not to be asked", ErrNoAddress)
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(cfg.Patience, imdsPatience))
	defer cancel()
	type answer struct {
		addr netip.Addr
		item string
		err  error
	}
	answers := make([]chan answer, len(cfg.Endpoints))
	for i, endpoint := range cfg.Endpoints {
		answers[i] = make(chan answer, 1)
		// Ends with what it hears, or soon after ctx.
		go func() {
			addr, item, err := askEndpoint(ctx, endpoint, cfg.Family)
			answers[i] <- answer{addr, item, err}
		}()
	}
	var failures []string
	for i := range answers {
		a := <-answers[i]
		if a.err == nil {
			return a.addr, "the instance metadata service (" + a.item + ")", nil
		}
		failures = append(failures, fmt.Sprintf("%s (%v)", hostOf(cfg.Endpoints[i]), a.err))
	}
	return netip.Addr{}, "", fmt.Errorf("%w from the instance metadata service at %s", ErrNoAddress, strings.Join(failures, ", "))
}

// askEndpoint asks within a session only (IMDSv2): a service that gives no token
// is not asked without (IMDSv1), because whoever answers that way may be a proxy
// or a trap. Redirects are not followed.
func askEndpoint(ctx context.Context, endpoint string, f Family) (addr netip.Addr, item string, err error) {
	if u, err := url.Parse(endpoint); err != nil || u.Host == "" {
		return netip.Addr{}, "", errors.New("it is no URL")
	}
	ctx, gone := context.WithCancel(ctx)
	defer gone()
	wire := &imdsWire{transport: imdsTransport(), gone: gone}
	defer wire.transport.CloseIdleConnections()
	client := imds.New(imds.Options{
		Endpoint:       endpoint,
		EnableFallback: aws.FalseTernary,
		HTTPClient: &http.Client{
			Transport:     wire,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		// A token may expire between two requests, and the service may be busy
		// for a moment; then one more try.
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = 2
			o.MaxBackoff = 50 * time.Millisecond
		}),
	})
	items := []string{"local-ipv4", "ipv6"}
	switch f {
	case IPv4:
		items = items[:1]
	case IPv6:
		items = items[1:]
	default:
	}
	for _, item = range items {
		if addr, err = imdsAddress(ctx, client, item); wire.said != nil && err != nil {
			err = wire.said
		}
		if err == nil && !f.fits(addr) {
			err = fmt.Errorf("%s is %s", item, addr)
		}
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return addr, item, err
}

// imdsTransport bypasses proxies, since the address means this machine.
func imdsTransport() *http.Transport { return &http.Transport{Proxy: nil} }

// imdsWire remembers what went wrong last, in a few words, since the client's own
// are many and leave the cause out.
type imdsWire struct {
	transport *http.Transport
	gone      context.CancelFunc // who is not there is not asked again
	said      error
}

// RoundTrip implements http.RoundTripper. The client's requests follow each other.
func (w *imdsWire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.said = nil
	resp, err := w.transport.RoundTrip(req)
	switch {
	case err != nil:
		w.said = imdsFailure(req.Context(), err)
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
			w.gone()
		}
	case resp.StatusCode == http.StatusNotFound && req.Method == http.MethodGet:
		w.said = errors.New("it has none")
	case resp.StatusCode != http.StatusOK:
		w.said = fmt.Errorf("it answers %s", resp.Status)
	}
	return resp, err
}

// imdsAddress asks for one address.
func imdsAddress(ctx context.Context, client *imds.Client, item string) (netip.Addr, error) {
	out, err := client.GetMetadata(ctx, &imds.GetMetadataInput{Path: item})
	if err != nil {
		return netip.Addr{}, err
	}
	defer out.Content.Close()
	text, err := io.ReadAll(io.LimitReader(out.Content, 256))
	if err != nil {
		return netip.Addr{}, imdsFailure(ctx, err)
	}
	addr, err := netip.ParseAddr(strings.TrimSpace(string(text)))
	if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("its %s is no address", item)
	}
	return addr.Unmap(), nil
}

// imdsFailure says in a few words why there was no answer.
func imdsFailure(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return errors.New("no answer")
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	return err
}

// hostOf is an endpoint as it is told; what is no URL is not repeated.
func hostOf(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		return u.Host
	}
	return "what should be its URL"
}
