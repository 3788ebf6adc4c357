package nodeconfig

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"strings"

	remote "github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	ctdlog "github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// readHosts reads a registry's directory with containerd's own parser, and
// returns whom it asks for pulls of registry, in order. Since containerd reports
// a hosts.toml it cannot read in its log only, what it would log is returned as
// an error.
func (n *Node) readHosts(dir, registry string) ([]remote.RegistryHost, error) {
	real, err := n.resolve(dir)
	if err != nil {
		return nil, err
	}
	complaint := &keepErrors{}
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.AddHook(complaint)
	ctx := ctdlog.WithLogger(context.Background(), logrus.NewEntry(log))
	hosts, err := config.ConfigureHosts(ctx, config.HostOptions{
		HostDir: func(string) (string, error) { return filepath.Join(n.Root, real), nil },
	})(registry)
	if err == nil && complaint.text != "" {
		err = fmt.Errorf("containerd ignores %s: %s", path.Join(dir, "hosts.toml"), complaint.text)
	}
	return hosts, err
}

// keepErrors remembers the first error that is logged.
type keepErrors struct{ text string }

// Levels implements logrus.Hook.
func (*keepErrors) Levels() []logrus.Level { return []logrus.Level{logrus.ErrorLevel} }

// Fire implements logrus.Hook.
func (k *keepErrors) Fire(entry *logrus.Entry) error {
	if k.text == "" {
		k.text = fmt.Sprintf("%s: %v", entry.Message, entry.Data[logrus.ErrorKey])
	}
	return nil
}

// checkHosts returns an error unless containerd, asked for an image, goes to
// each of want in order, then wherever it went without us.
func (n *Node) checkHosts(dir string, want []string) error {
	const registry = "registry.example"
	hosts, err := n.readHosts(dir, registry)
	if err != nil {
		return fmt.Errorf("read back %s: %w", dir, err)
	}
	var got []string
	for _, host := range hosts {
		got = append(got, (&url.URL{Scheme: host.Scheme, Host: host.Host, Path: host.Path}).String())
	}
	for i, base := range want {
		if i >= len(got) || got[i] != strings.TrimSuffix(base, "/v2")+"/v2" {
			return fmt.Errorf("read back %s: containerd asks %v, and not %s as number %d", dir, got, base, i+1)
		}
		if may := hosts[i].Capabilities; !may.Has(remote.HostCapabilityPull|remote.HostCapabilityResolve) || may.Has(remote.HostCapabilityPush) {
			return fmt.Errorf("read back %s: %s is not for pulls only", dir, base)
		}
	}
	if len(got) <= len(want) {
		return fmt.Errorf("read back %s: the registry itself is not asked any more", dir)
	}
	return nil
}
