package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/nodeconfig"
)

// initPatience bounds larder init in all, a restart of the runtime included.
const initPatience = 3 * time.Minute

// noTarget, in the place of a target, is for nodes that are configured by other
// means, such as user data.
const noTarget = "none"

// initFlags is what larder init is told.
type initFlags struct {
	port              uint16
	address           string
	ipFamily          string
	root              string
	target            string
	fallback          []string
	registry          []string
	prepareData       string
	removeData        string
	containerdConfig  string
	containerdVersion string
	image             string
	userData          string
	require           bool
	restart           bool
	dryRun            bool
	undo              bool
	output            string
}

func newInit() *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make this node's container runtime pull through the mirror",
		Long: `Makes the node's container runtime ask the mirror first, and the registries
themselves whenever the mirror does not answer. Shows what it changes, changes it,
and reads it back the way the runtime does. Run again, it changes nothing.

Run it as root on the node, or in a container that has the node's / mounted at
--root. Files are replaced atomically; those of others are kept, and what they
were is noted beside them: --undo restores it to the byte. Nothing is restarted
without --restart.

A node that cannot be configured still works, without the mirror: that is a
warning, and exit code 0. With --require it is exit code 1.

--address auto asks the EC2 instance metadata service (IMDSv2), then takes
HOST_IP from the environment, then loopback. Where the mirror uses the host's
network, loopback is right, and no proxy setting can catch it.

Exit codes: 0 ok, or not configured; 1 interrupted, or not configured, with --require;
2 usage.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runInit(cmd, f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Uint16Var(&f.port, "port", 8000, "`PORT` the mirror listens on")
	flags.StringVar(&f.address, "address", "auto", "`ADDRESS` the runtime reaches it at: auto, imds, loopback or an IP")
	flags.StringVar(&f.ipFamily, "ip-family", "auto", "`FAMILY` of the address: auto, ipv4 or ipv6")
	flags.StringVar(&f.root, "root", "/", "`DIR` where the node's file system is seen")
	flags.StringVar(&f.target, "target", "auto", "what the node is: auto, containerd, bottlerocket, k3s, rke2, crio, docker; none to leave its configuration alone; or `KIND` al2023 to print its user data")
	flags.StringArrayVar(&f.fallback, "fallback", nil, "`URL` of a mirror to ask after this node's, before the registry itself; may be repeated")
	flags.StringArrayVar(&f.registry, "registry", nil, "`HOST` of a registry to mirror although it has settings of its own, or because the runtime has no word for all; may be repeated")
	flags.StringVar(&f.prepareData, "prepare-data", "", "`DIR:UID:GID`: make the mirror's directory on the node, and give it to a user that is not root")
	flags.StringVar(&f.removeData, "remove-data", "", "with --undo: remove the mirror's directory `DIR` from the node as well, with all that is cached")
	flags.BoolVar(&f.require, "require", false, "fail when the node cannot be configured")
	flags.BoolVar(&f.restart, "restart", false, "restart the runtime where it has to read its configuration again")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what would change, and touch nothing")
	flags.BoolVar(&f.undo, "undo", false, "restore what was there before larder")
	flags.StringVarP(&f.output, "output", "o", "text", "`FORMAT` of what is told: text or json")
	flags.StringVar(&f.userData, "print-user-data", "", "print user data for --target bottlerocket (`FORM` static or bootstrap) or al2023 (nodeconfig or ec2nodeclass), and do nothing else")
	flags.Lookup("print-user-data").NoOptDefVal = "default"
	flags.StringVar(&f.image, "image", "", "`IMAGE` of larder, for the user data of a bootstrap container")
	flags.StringVar(&f.containerdConfig, "containerd-config", "", "containerd's configuration `FILE` on the node, when it is not /etc/containerd/config.toml")
	flags.StringVar(&f.containerdVersion, "containerd-version", "", "containerd's `VERSION`, when it can neither be asked nor run")
	return cmd
}

// check finds mistakes in how larder init was called.
func (f initFlags) check() error {
	if f.port == 0 {
		return usageErrorf("--port 0: name the port the mirror listens on")
	}
	if family := nodeconfig.Family(f.ipFamily); family != nodeconfig.AnyFamily && family != nodeconfig.IPv4 && family != nodeconfig.IPv6 {
		return usageErrorf("--ip-family %q: write auto, ipv4 or ipv6", f.ipFamily)
	}
	if f.address != "auto" && f.address != "imds" && f.address != "loopback" {
		if _, err := netip.ParseAddr(f.address); err != nil {
			return usageErrorf("--address %q: write auto, imds, loopback or an IP address", f.address)
		}
	}
	for _, base := range f.fallback {
		if err := nodeconfig.CheckFallback(base); err != nil {
			return usageErrorf("--fallback %v", err)
		}
	}
	for _, registry := range f.registry {
		if err := nodeconfig.CheckRegistry(registry); err != nil {
			return usageErrorf("--registry %v", err)
		}
	}
	if f.removeData != "" && (!f.undo || !path.IsAbs(f.removeData) || path.Clean(f.removeData) == "/") {
		return usageErrorf("--remove-data %q: name the mirror's directory by its absolute path, together with --undo", f.removeData)
	}
	if f.output != "text" && f.output != "json" {
		return usageErrorf("--output %q: write text or json", f.output)
	}
	if f.containerdVersion != "" && !nodeconfig.ValidVersion(f.containerdVersion) {
		return usageErrorf("--containerd-version %q: write it as 1.7.27", f.containerdVersion)
	}
	return nil
}

// runInit checks what it was told, then configures the node or takes it back.
func runInit(cmd *cobra.Command, f initFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	if f.userData != "" {
		return printUserData(cmd, f)
	}
	var data *nodeconfig.DataDir
	if f.prepareData != "" {
		d, err := nodeconfig.ParseDataDir(f.prepareData)
		if err != nil {
			return usageErrorf("--prepare-data %v", err)
		}
		data = &d
	}
	log, err := newLogger(cmd.ErrOrStderr(), "warn", "text")
	if err != nil {
		return err
	}
	node := &nodeconfig.Node{Root: f.root, ContainerdConfig: f.containerdConfig, ContainerdVersion: f.containerdVersion, Log: log}
	if err := node.Check(); err != nil {
		return usageErrorf("--root: %v", err)
	}
	if f.target != "auto" && f.target != noTarget {
		if _, err := nodeconfig.Named(node, f.target); err != nil {
			return usageErrorf("--target: %v; or %s", err, noTarget)
		}
	}
	stop, _, release := signals(cmd.Context())
	defer release()
	ctx, cancel := context.WithTimeout(stop, initPatience)
	defer cancel()

	r := &initReport{Root: f.root, DryRun: f.dryRun}
	failure := initNode(ctx, node, f, data, r)
	if failure != nil {
		r.Status, r.Error = "failed", failure.Error()
	}
	if err := r.write(cmd.OutOrStdout(), f.output); err != nil {
		return err
	}
	if failure != nil && stop.Err() != nil {
		return errInterrupted
	}
	if failure != nil && f.require {
		return fmt.Errorf("configure the node: %w", failure)
	}
	if failure != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: this node does not use the mirror: %v\n", failure)
	}
	return nil
}

// initNode does the work, and notes in r what it does.
func initNode(ctx context.Context, node *nodeconfig.Node, f initFlags, data *nodeconfig.DataDir, r *initReport) error {
	if !f.dryRun {
		unlock, err := node.Lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if err := configure(ctx, node, f, data, r); err != nil || f.removeData == "" {
		return err
	}
	// Last: nobody is sent to the mirror any more.
	removed, err := node.RemoveData(f.removeData, f.dryRun)
	r.Data = &initData{Path: f.removeData, Removed: removed, removal: true}
	return err
}

// configure is all but the end of an undo.
func configure(ctx context.Context, node *nodeconfig.Node, f initFlags, data *nodeconfig.DataDir, r *initReport) error {
	if data != nil && !f.undo {
		changed, err := node.PrepareData(*data, f.dryRun)
		if err != nil {
			return err
		}
		r.Data = &initData{Path: data.Path, Changed: changed}
	}
	if f.target == noTarget {
		r.Target, r.Evidence, r.Status = noTarget, "as told: its configuration is left alone", "unchanged"
		return nil
	}
	target, err := r.find(ctx, node, f.target)
	if err != nil {
		return err
	}
	cfg := nodeconfig.Config{Mirror: f.fixed(), Fallback: f.fallback, Registries: f.registry, Restart: f.restart}
	plan := target.Undo
	if !f.undo {
		if cfg.Mirror, err = r.address(ctx, f); err != nil {
			return err
		}
		plan = target.Plan
	}
	changes, err := plan(ctx, cfg)
	if err != nil {
		return err
	}
	r.plan(changes)
	if !r.changes() {
		r.Status = "unchanged"
		return nil
	}
	if f.dryRun {
		r.Status = "planned"
		return nil
	}
	if err := target.Apply(ctx, changes); err != nil {
		return err
	}
	again, err := plan(ctx, cfg)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if i := slices.IndexFunc(again, func(c nodeconfig.Change) bool { return c.Kind != nodeconfig.Restart && c.Changes() }); i >= 0 {
		return fmt.Errorf("read back: %s is still to be changed (%s)", again[i].Path, again[i].Why)
	}
	r.Status = "changed"
	if f.undo {
		r.Status = "undone"
	}
	return nil
}

// fixed is the mirror's address as far as the flags alone tell: loopback, unless
// one is named.
func (f initFlags) fixed() netip.AddrPort {
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if named, err := netip.ParseAddr(f.address); err == nil {
		addr = named
	}
	return netip.AddrPortFrom(addr, f.port)
}

// address finds where the runtime reaches the mirror, and who is there now.
func (r *initReport) address(ctx context.Context, f initFlags) (netip.AddrPort, error) {
	endpoints := []string{nodeconfig.IMDSv4, nodeconfig.IMDSv6}
	// What the SDKs' users already set, also where the service is elsewhere.
	if endpoint := os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"); endpoint != "" {
		endpoints = []string{endpoint}
	}
	if strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		endpoints = nil
	}
	addr, source, err := nodeconfig.FindAddress(ctx, nodeconfig.AddressConfig{
		From: f.address, Family: nodeconfig.Family(f.ipFamily), HostIP: os.Getenv("HOST_IP"), Endpoints: endpoints,
	})
	if err != nil {
		return netip.AddrPort{}, err
	}
	mirror := netip.AddrPortFrom(addr, f.port)
	r.Mirror, r.AddressSource = mirror.String(), source
	return mirror, nodeconfig.CheckListener(ctx, mirror)
}

// find picks the target.
func (r *initReport) find(ctx context.Context, node *nodeconfig.Node, name string) (nodeconfig.Target, error) {
	if name != "auto" {
		r.Target, r.Evidence = name, "as told"
		target, err := nodeconfig.Named(node, name)
		if err != nil {
			return nil, err
		}
		if _, found := target.Detect(ctx); !found {
			r.Warnings = append(r.Warnings, initNote{Text: absent(ctx, node, name)})
		}
		return target, nil
	}
	target, evidence, err := nodeconfig.Detect(ctx, node)
	if err != nil {
		return nil, err
	}
	r.Target, r.Evidence = target.Name(), evidence
	return target, nil
}

// absent says that a node is not what it is told to be, as far as can be seen.
func absent(ctx context.Context, node *nodeconfig.Node, name string) string {
	text := fmt.Sprintf("there is no sign of %s on this node: it is configured for when %s comes", name, name)
	if other, evidence, err := nodeconfig.Detect(ctx, node); err == nil {
		text += fmt.Sprintf(", and %s, which is there (%s), is not", other.Name(), evidence)
	}
	return text
}

// printUserData prints what makes nodes use the mirror when they are launched.
// The address is the same for all of them, so it is loopback unless one is
// named; a bootstrap container finds out each node's own.
func printUserData(cmd *cobra.Command, f initFlags) error {
	cfg := nodeconfig.Config{Mirror: f.fixed(), Fallback: f.fallback, Registries: f.registry}
	var text string
	switch f.target + " " + f.userData {
	case "bottlerocket default", "bottlerocket static":
		text, _ = nodeconfig.UserData(cfg, "", nil)
	case "bottlerocket bootstrap":
		if f.image == "" {
			return usageErrorf("--print-user-data=bootstrap: name larder's image by --image, as the node pulls it")
		}
		command := []string{"larder", "init", "--target", "bottlerocket", "--root", "/.bottlerocket/rootfs", "--address", f.address, "--ip-family", f.ipFamily, "--port", fmt.Sprint(f.port)}
		for _, base := range f.fallback {
			command = append(command, "--fallback", base)
		}
		for _, registry := range f.registry {
			command = append(command, "--registry", registry)
		}
		if i := slices.IndexFunc(command, func(arg string) bool { return strings.Contains(arg, ",") }); i >= 0 {
			return usageErrorf("--print-user-data=bootstrap: Bottlerocket passes no argument with a comma: %s", command[i])
		}
		_, text = nodeconfig.UserData(cfg, f.image, command)
	case "al2023 default", "al2023 nodeconfig":
		text, _ = nodeconfig.EKSUserData(cfg)
	case "al2023 ec2nodeclass":
		_, text = nodeconfig.EKSUserData(cfg)
	default:
		return usageErrorf("--print-user-data=%s: write --target bottlerocket with static or bootstrap, or --target al2023 with nodeconfig or ec2nodeclass", f.userData)
	}
	_, err := fmt.Fprint(cmd.OutOrStdout(), text)
	return err
}
