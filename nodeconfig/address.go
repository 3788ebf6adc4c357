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
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// imdsPatience bounds everything that is asked of the instance metadata service,
// over both of its addresses. On a machine that is no EC2 instance nobody
// answers, and the node must boot all the same.
const imdsPatience = 2 * time.Second

// The instance metadata service's addresses (EC2 User Guide, "Access instance
// metadata"). The IPv6 one answers only where it was enabled.
const (
	IMDSv4 = "http://169.254.169.254"
	IMDSv6 = "http://[fd00:ec2::254]"
)

// Family is which kind of address is wanted.
type Family string

// The families.
const (
	AnyFamily Family = "auto" // IPv4 where there is one
	IPv4      Family = "ipv4"
	IPv6      Family = "ipv6"
)

// fits reports whether addr is of the family.
func (f Family) fits(addr netip.Addr) bool {
	switch f {
	case IPv4:
		return addr.Is4()
	case IPv6:
		return addr.Is6()
	default:
		return true
	}
}

// AddressConfig says where the address comes from at which the node's runtime
// reaches the mirror.
type AddressConfig struct {
	// From is "imds", "loopback", an IP address, or "auto": the instance
	// metadata service's word, else HostIP, else loopback.
	From   string
	Family Family
	// HostIP is what the downward API says: one address, or several with
	// commas (status.hostIPs).
	HostIP string
	// Endpoints are the metadata service's, in the order in which they are
	// asked: IMDSv4 and IMDSv6 outside of tests.
	Endpoints []string
}

// ErrNoAddress is returned by FindAddress, wrapped, when the source that was
// named has no address of the family that was named.
var ErrNoAddress = errors.New("no address")

// FindAddress returns the address and, in words, where it is from. It asks the
// metadata service for 2 s at most in all; ctx bounds it further.
func FindAddress(ctx context.Context, cfg AddressConfig) (netip.Addr, string, error) {
	switch cfg.From {
	case "loopback":
		return loopback(cfg.Family), "loopback", nil
	case "imds":
		addr, source, err := askIMDS(ctx, cfg)
		if err != nil {
			return netip.Addr{}, "", fmt.Errorf("ask the instance metadata service: %w", err)
		}
		return addr, source, nil
	case "auto":
		addr, source, err := askIMDS(ctx, cfg)
		if err == nil {
			return addr, source, nil
		}
		if addr, ok := hostIP(cfg.HostIP, cfg.Family); ok {
			return addr, "HOST_IP", nil
		}
		return loopback(cfg.Family), fmt.Sprintf("loopback, for want of another: no HOST_IP, and the instance metadata service: %v", err), nil
	}
	addr, err := netip.ParseAddr(cfg.From)
	if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
		return netip.Addr{}, "", fmt.Errorf("the address %q is none of auto, imds, loopback or one IP address", cfg.From)
	}
	if addr = addr.Unmap(); !cfg.Family.fits(addr) {
		return netip.Addr{}, "", fmt.Errorf("%w: %s is not %s", ErrNoAddress, addr, cfg.Family)
	}
	return addr, "as told", nil
}

func loopback(f Family) netip.Addr {
	if f == IPv6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// hostIP picks an address of the family, IPv4 first, from a list with commas.
func hostIP(list string, f Family) (netip.Addr, bool) {
	var found netip.Addr
	for text := range strings.SplitSeq(list, ",") {
		addr, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || addr.IsUnspecified() || addr.Zone() != "" || !f.fits(addr.Unmap()) {
			continue
		}
		if addr = addr.Unmap(); !found.IsValid() || addr.Is4() && found.Is6() {
			found = addr
		}
	}
	return found, found.IsValid()
}

// askIMDS asks one endpoint after the other for the instance's address. Each but
// the last may take half of what time is left.
func askIMDS(ctx context.Context, cfg AddressConfig) (netip.Addr, string, error) {
	ctx, cancel := context.WithTimeout(ctx, imdsPatience)
	defer cancel()
	var failures []error
	for i, endpoint := range cfg.Endpoints {
		ctx, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok && i < len(cfg.Endpoints)-1 {
			ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		}
		addr, what, err := askEndpoint(ctx, endpoint, cfg.Family)
		cancel()
		if err == nil {
			return addr, "the instance metadata service (" + what + ")", nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", endpoint, err))
	}
	return netip.Addr{}, "", cmp.Or(errors.Join(failures...), ErrNoAddress)
}

// askEndpoint asks with a session token only (IMDSv2): a service that gives none
// is not asked without (IMDSv1), because whoever answers that way may be a proxy
// or a trap. Proxies are bypassed, since the address means this machine.
func askEndpoint(ctx context.Context, endpoint string, f Family) (netip.Addr, string, error) {
	transport := imdsTransport()
	defer transport.CloseIdleConnections()
	client := imds.New(imds.Options{
		Endpoint:       endpoint,
		EnableFallback: aws.FalseTernary,
		HTTPClient: &http.Client{
			Transport: transport,
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		},
		// A token may expire between two requests; then one more try.
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = 2
			o.MaxBackoff = 50 * time.Millisecond
		}),
	})
	paths := []string{"local-ipv4", "ipv6"}
	switch f {
	case IPv4:
		paths = paths[:1]
	case IPv6:
		paths = paths[1:]
	default:
	}
	var failures []error
	for _, path := range paths {
		addr, err := askPath(ctx, client, path)
		if err == nil && !f.fits(addr) {
			err = fmt.Errorf("%w: %s is %s", ErrNoAddress, path, addr)
		}
		if err == nil {
			return addr, path, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return netip.Addr{}, "", errors.Join(failures...)
}

// imdsTransport gives up on a service that is not there or, since answers to
// containers are dropped at a hop limit of 1, is not heard.
func imdsTransport() *http.Transport {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 500 * time.Millisecond}).DialContext,
		ResponseHeaderTimeout: 700 * time.Millisecond,
		DisableKeepAlives:     true,
		Proxy:                 nil, // whatever the environment says
	}
}

// askPath asks for one address.
func askPath(ctx context.Context, client *imds.Client, path string) (netip.Addr, error) {
	out, err := client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s: %w", path, err)
	}
	defer out.Content.Close()
	text, err := io.ReadAll(io.LimitReader(out.Content, 256))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s: %w", path, err)
	}
	addr, err := netip.ParseAddr(strings.TrimSpace(string(text)))
	if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%s: the answer is no address", path)
	}
	return addr.Unmap(), nil
}
