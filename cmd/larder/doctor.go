package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/nodeconfig"
)

// doctorPatience bounds larder doctor without --pull.
const doctorPatience = time.Minute

// errNotUsed makes larder doctor end with exit code 1.
var errNotUsed = errors.New("this node does not use the mirror")

// doctorFlags is what larder doctor is told.
type doctorFlags struct {
	port              uint16
	address           string
	admin             string
	root              string
	target            string
	registry          []string
	pull              string
	pullTimeout       time.Duration
	config            string
	containerdConfig  string
	containerdVersion string
	output            string
}

func newDoctor() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out whether this node really pulls through the mirror",
		Long: `Finds out whether the node's container runtime really pulls through the mirror,
and tells of every check what was seen and what to do about it. Changes nothing.

Most of what keeps a runtime from using a mirror is silent: a file it ignores, a
directory that hides another, a proxy in between. Here the runtime's configuration
is followed the way that runtime follows it, in the version that is running.

--pull IMAGE is proof: the runtime is asked to pull the image as it does for a
kubelet, and the mirror's own counters tell what of it came through the mirror.
Name an image the node does not have. It stays on the node.

Run it as root on the node, or in a container that has the node's / mounted at
--root and uses the host's network.

Exit codes: 0 the node uses the mirror, warnings or not; 1 it does not; 2 usage.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd, f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Uint16Var(&f.port, "port", 8000, "`PORT` the mirror listens on")
	flags.StringVar(&f.address, "address", "auto", "`ADDRESS` of the mirror: an IP, or auto for any of this node's own")
	flags.StringVar(&f.admin, "admin", "127.0.0.1:8001", "`ADDRESS` of the mirror's port for operators, host:port; empty for none")
	flags.StringVar(&f.root, "root", "/", "`DIR` where the node's file system is seen")
	flags.StringVar(&f.target, "target", "auto", "what the node is (`KIND`): auto, containerd, bottlerocket, k3s, rke2, crio or docker")
	flags.StringArrayVar(&f.registry, "registry", nil, "`HOST` of a registry that has to be mirrored; may be repeated")
	flags.StringVar(&f.pull, "pull", "", "`IMAGE` that the runtime pulls as proof")
	flags.DurationVar(&f.pullTimeout, "pull-timeout", 5*time.Minute, "how long the pull may take")
	flags.StringVar(&f.config, "config", "", "the mirror's configuration `FILE`, for what it leaves free of the disk; none means the defaults")
	flags.StringVar(&f.containerdConfig, "containerd-config", "", "containerd's configuration `FILE` on the node, when it is not /etc/containerd/config.toml")
	flags.StringVar(&f.containerdVersion, "containerd-version", "", "containerd's `VERSION`, when it can neither be asked nor run")
	flags.StringVarP(&f.output, "output", "o", "text", "`FORMAT` of what is told: text or json")
	return cmd
}

// check finds mistakes in how larder doctor was called, and makes of the flags
// what is looked for.
func (f doctorFlags) check() (cfg nodeconfig.DoctorConfig, err error) {
	cfg = nodeconfig.DoctorConfig{
		Port: f.port, Admin: f.admin, Registries: f.registry, Pull: f.pull, PullTimeout: f.pullTimeout,
	}
	if f.port == 0 {
		return cfg, usageErrorf("--port 0: name the port the mirror listens on")
	}
	if f.address != "auto" {
		addr, err := netip.ParseAddr(f.address)
		if err != nil {
			return cfg, usageErrorf("--address %q: write auto or an IP address", f.address)
		}
		cfg.Address = addr.Unmap()
	}
	if f.admin != "" {
		if err := checkAddress("admin", f.admin); err != nil {
			return cfg, err
		}
	}
	for _, registry := range f.registry {
		if err := nodeconfig.CheckRegistry(registry); err != nil {
			return cfg, usageErrorf("--registry %v", err)
		}
	}
	if strings.ContainsAny(f.pull, " \t\n") || strings.HasPrefix(f.pull, "/") || strings.HasSuffix(f.pull, "/") {
		return cfg, usageErrorf("--pull %q: write an image as in a pod", f.pull)
	}
	if f.pullTimeout <= 0 {
		return cfg, usageErrorf("--pull-timeout %s: it has to be more than nothing", f.pullTimeout)
	}
	if f.containerdVersion != "" && !nodeconfig.ValidVersion(f.containerdVersion) {
		return cfg, usageErrorf("--containerd-version %q: write it as 1.7.27", f.containerdVersion)
	}
	if f.output != "text" && f.output != "json" {
		return cfg, usageErrorf("--output %q: write text or json", f.output)
	}
	mirror, _, err := loadConfig(f.config)
	if err != nil {
		return cfg, err
	}
	if percent, ok := strings.CutSuffix(mirror.RegistryProxies.MinFree.String(), "%"); ok {
		if n, err := strconv.ParseFloat(percent, 64); err == nil {
			cfg.MinFree = n / 100
		}
	}
	return cfg, nil
}

func runDoctor(cmd *cobra.Command, f doctorFlags) error {
	cfg, err := f.check()
	if err != nil {
		return err
	}
	log, err := newLogger(cmd.ErrOrStderr(), "warn", "text")
	if err != nil {
		return err
	}
	node := &nodeconfig.Node{Root: f.root, ContainerdConfig: f.containerdConfig, ContainerdVersion: f.containerdVersion, Log: log}
	if err := node.Check(); err != nil {
		return usageErrorf("--root: %v", err)
	}
	stop, _, release := signals(cmd.Context())
	defer release()
	ctx, cancel := context.WithTimeout(stop, doctorPatience+f.pullTimeout)
	defer cancel()
	target, evidence, err := doctorTarget(ctx, node, f.target)
	if err != nil {
		return err
	}
	diagnosis := nodeconfig.Diagnose(ctx, node, target, evidence, cfg)
	if stop.Err() != nil {
		return errInterrupted
	}
	if err := writeDiagnosis(cmd.OutOrStdout(), diagnosis, f.output); err != nil {
		return err
	}
	if !diagnosis.Uses {
		return errNotUsed
	}
	return nil
}

// doctorTarget is the kind of node that was named, or that it is.
func doctorTarget(ctx context.Context, node *nodeconfig.Node, name string) (target nodeconfig.Target, evidence string, err error) {
	if name == "auto" {
		return nodeconfig.Detect(ctx, node)
	}
	target, err = nodeconfig.Named(node, name)
	if err != nil {
		return nil, "", usageErrorf("--target: %v", err)
	}
	return target, "as told", nil
}

// writeDiagnosis tells what was found: a line for each check, and one below it
// for what to do.
func writeDiagnosis(w io.Writer, d nodeconfig.Diagnosis, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(d)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "node: %s (%s)\n", d.Kind, d.Evidence)
	count := map[nodeconfig.Verdict]int{}
	for _, f := range d.Findings {
		count[f.Verdict]++
		fmt.Fprintf(&b, "%-7s %-15s %s\n", f.Verdict, f.Check, f.Evidence)
		if f.Remedy != "" {
			fmt.Fprintf(&b, "%-7s %-15s -> %s\n", "", "", f.Remedy)
		}
	}
	verdict := "this node uses the mirror"
	if !d.Uses {
		verdict = "this node does not use the mirror"
	}
	fmt.Fprintf(&b, "%s: %d ok, %d warn, %d fail, %d unknown\n", verdict,
		count[nodeconfig.Good], count[nodeconfig.Doubtful], count[nodeconfig.Bad], count[nodeconfig.Unknown])
	_, err := io.WriteString(w, b.String())
	return err
}
