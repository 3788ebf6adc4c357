package nodeconfig

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Verdict is what a check came to.
type Verdict string

// The verdicts.
const (
	// Good: as it should be.
	Good Verdict = "ok"
	// Doubtful: pulls, or some of them, may go past the mirror, or will one day.
	Doubtful Verdict = "warn"
	// Bad: the node does not use the mirror, or the check that was asked for
	// failed.
	Bad Verdict = "fail"
	// Unknown: it could not be found out; the evidence says why.
	Unknown Verdict = "unknown"
)

// Finding is one check's result.
type Finding struct {
	// Check is the check's name, one word.
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	// Evidence is what was seen, and where.
	Evidence string `json:"evidence"`
	// Remedy is what to do; empty when there is nothing to do.
	Remedy string `json:"remedy,omitempty"`
}

// Diagnosis is everything Diagnose found.
type Diagnosis struct {
	// Kind is the target's name, and Evidence how the node was recognised.
	Kind     string `json:"node"`
	Evidence string `json:"recognised_by,omitempty"`
	// Uses reports whether the node's pulls go through the mirror, as far as
	// was found: no finding is bad.
	Uses     bool      `json:"uses_mirror"`
	Findings []Finding `json:"checks"`
}

// DoctorConfig says what Diagnose looks for.
type DoctorConfig struct {
	// Port is the mirror's. Address is where it is looked for; the zero value
	// means any of this machine's own addresses.
	Port    uint16
	Address netip.Addr
	// Admin is host:port of the mirror's port for operators; empty for none.
	Admin string
	// MinFree is the share of its file system that the mirror leaves free, 0 to
	// 1, and zero when it is not known.
	MinFree float64
	// Registries must all be asked for at the mirror.
	Registries []string
	// Pull names an image that the runtime is asked to pull, as proof; empty
	// for none. PullTimeout bounds that; five minutes if zero.
	Pull        string
	PullTimeout time.Duration
}

// doctor is one diagnosis being made.
type doctor struct {
	node   *Node
	target Target
	cfg    DoctorConfig
	local  []netip.Addr // this machine's own addresses
	found  []Finding
	mirror netip.AddrPort // the mirror, once some configuration has named it
	now    func() time.Time
	// synced reports whether the kernel takes its clock for synchronised.
	synced func() (bool, error)
}

// Diagnose finds out whether the node's pulls go through the mirror. It changes
// nothing, except that with cfg.Pull the runtime pulls an image. ctx bounds it;
// what is not found out in time is Unknown.
func Diagnose(ctx context.Context, n *Node, target Target, evidence string, cfg DoctorConfig) Diagnosis {
	d := &doctor{node: n, target: target, cfg: cfg, now: time.Now, synced: kernelSynced}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				d.local = append(d.local, prefix.Addr().Unmap())
			}
		}
	}
	d.run(ctx)
	return Diagnosis{
		Kind: target.Name(), Evidence: evidence, Findings: d.found,
		Uses: !slices.ContainsFunc(d.found, func(f Finding) bool { return f.Verdict == Bad }),
	}
}

// run makes every check, those that explain others first.
func (d *doctor) run(ctx context.Context) {
	var socket string
	switch t := d.target.(type) {
	case *bottlerocketNode:
		d.checkSettings(ctx, t)
		d.node = t.files
		socket = d.checkContainerd(ctx, d.node, "containerd")
	case *rancher:
		files := *d.node
		files.ContainerdConfig, files.containerdSocket = t.config(), rancherSocket
		d.node = &files
		socket = d.checkContainerd(ctx, d.node, cmp.Or(t.unit(), t.name))
	case *crio:
		d.checkContainers(t)
		socket = "/run/crio/crio.sock"
	case *docker:
		d.checkDocker(ctx, t)
	default:
		socket = d.checkContainerd(ctx, d.node, "containerd")
	}
	d.checkListener(ctx)
	metrics := d.checkAdmin(ctx)
	d.checkProxy()
	d.checkDisk(metrics)
	d.checkClock()
	if d.cfg.Pull != "" {
		d.checkPull(ctx, socket)
	}
}

func (d *doctor) say(check string, v Verdict, evidence, remedy string) {
	d.found = append(d.found, Finding{Check: check, Verdict: v, Evidence: evidence, Remedy: remedy})
}

// ours reports whether a base URL is the mirror that is looked for, and
// remembers its address.
func (d *doctor) ours(base string) bool {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" || u.Port() != strconv.Itoa(int(d.cfg.Port)) {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() == "localhost" {
		addr, err = netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	addr = addr.Unmap()
	if err != nil || d.cfg.Address.IsValid() && d.cfg.Address != addr ||
		!d.cfg.Address.IsValid() && !addr.IsLoopback() && !slices.Contains(d.local, addr) {
		return false
	}
	if !d.mirror.IsValid() {
		d.mirror = netip.AddrPortFrom(addr, d.cfg.Port)
	}
	return true
}

// wanted is the mirror as it is called in findings.
func (d *doctor) wanted() string {
	if d.cfg.Address.IsValid() {
		return netip.AddrPortFrom(d.cfg.Address, d.cfg.Port).String()
	}
	return fmt.Sprintf("port %d of this node", d.cfg.Port)
}

// initRemedy is how a node is configured.
func (d *doctor) initRemedy() string {
	remedy := "larder init --target " + d.target.Name()
	if d.cfg.Port != 8000 {
		remedy += " --port " + strconv.Itoa(int(d.cfg.Port))
	}
	return remedy
}

// checkClock: with a clock that is wrong, upstreams' certificates are refused
// and tokens expire at once, which looks like anything but a clock.
func (d *doctor) checkClock() {
	const ahead = time.Minute
	for _, name := range []string{d.node.mainConfig(), dockerConfig, "/etc/os-release", "/etc/hostname"} {
		host, err := d.node.host(name)
		if err != nil {
			continue
		}
		if a, err := attributesOf(host); err == nil && a.modified.After(d.now().Add(ahead)) {
			d.say("clock", Doubtful, fmt.Sprintf("it is %s here, and %s was written at %s", d.now().UTC().Format(time.RFC3339), name, a.modified.UTC().Format(time.RFC3339)), "set the clock: with a wrong one, certificates are refused")
			return
		}
	}
	synced, err := d.synced()
	switch {
	case err != nil:
		d.say("clock", Unknown, "ask the kernel: "+err.Error(), "")
	case !synced:
		d.say("clock", Doubtful, "the kernel's clock is not synchronised; it is "+d.now().UTC().Format(time.RFC3339), "start chrony or systemd-timesyncd: with a wrong clock, certificates are refused")
	default:
		d.say("clock", Good, "synchronised; it is "+d.now().UTC().Format(time.RFC3339), "")
	}
}

// kernelSynced reads the kernel's clock discipline and changes nothing
// (adjtimex(2) with no modes).
func kernelSynced() (bool, error) {
	var state unix.Timex
	if _, err := unix.Adjtimex(&state); err != nil {
		return false, err
	}
	return state.Status&unix.STA_UNSYNC == 0, nil
}

// joined lists words as in a sentence, and says when there are none.
func joined(all []string, none string) string {
	if len(all) == 0 {
		return none
	}
	return strings.Join(all, ", ")
}
