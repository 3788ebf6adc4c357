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

// The headers of a session (EC2 User Guide, "How Instance Metadata Service
// Version 2 works").
const (
	imdsTokenHeader = "X-Aws-Ec2-Metadata-Token" //nolint:gosec // a header's name
	imdsTTLHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
)

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
// or a trap.
func askEndpoint(ctx context.Context, endpoint string, f Family) (addr netip.Addr, item string, err error) {
	transport := imdsTransport()
	defer transport.CloseIdleConnections()
	items := []string{"local-ipv4", "ipv6"}
	switch f {
	case IPv4:
		items = items[:1]
	case IPv6:
		items = items[1:]
	default:
	}
	token := ""
	for _, item = range items {
		// A token may expire between two requests; then one more try.
		for range 2 {
			if token == "" {
				if token, err = imdsToken(ctx, transport, endpoint); err != nil {
					return addr, item, err
				}
			}
			if addr, err = imdsAddress(ctx, transport, endpoint, item, token); !errors.Is(err, errIMDSToken) {
				break
			}
			token = ""
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

// errIMDSToken: the service does not take the token (any more).
var errIMDSToken = errors.New("it does not take its own token")

func imdsToken(ctx context.Context, by *http.Transport, endpoint string) (string, error) {
	token, header, err := imdsCall(ctx, by, http.MethodPut, endpoint, "/latest/api/token", http.Header{imdsTTLHeader: {"60"}})
	if err == nil && (token == "" || header.Get(imdsTTLHeader) == "") {
		err = errors.New("what it gives is no token")
	}
	return token, err
}

func imdsAddress(ctx context.Context, by *http.Transport, endpoint, item, token string) (netip.Addr, error) {
	text, _, err := imdsCall(ctx, by, http.MethodGet, endpoint, "/latest/meta-data/"+item, http.Header{imdsTokenHeader: {token}})
	if err != nil {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("its %s is no address", item)
	}
	return addr.Unmap(), nil
}

// imdsCall asks for a short text. Redirects are not followed. The error is a few
// words without the URL.
func imdsCall(ctx context.Context, by *http.Transport, method, endpoint, path string, header http.Header) (string, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(endpoint, "/")+path, http.NoBody)
	if err != nil {
		return "", nil, errors.New("it is no URL")
	}
	req.Header = header
	resp, err := by.RoundTrip(req)
	if err != nil {
		return "", nil, imdsFailure(ctx, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return "", nil, errIMDSToken
	case resp.StatusCode == http.StatusNotFound && method == http.MethodGet:
		return "", nil, errors.New("it has none")
	case resp.StatusCode != http.StatusOK:
		return "", nil, fmt.Errorf("it answers %s", resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 256))
	if err != nil {
		return "", nil, imdsFailure(ctx, err)
	}
	return strings.TrimSpace(string(text)), resp.Header, nil
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
