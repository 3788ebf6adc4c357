package nodeconfig

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	remote "github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	ctdlog "github.com/containerd/log"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/sirupsen/logrus"
)

// readHosts reads a registry's directory with containerd's own parser, and
// returns whom it asks for pulls of registry, in order. Since containerd reports
// a hosts.toml it cannot read in its log only, what it would log is returned as
// an error.
//
// Certificates are files of the node, by absolute paths or links perhaps. Where
// the node's file system is seen elsewhere than at /, a failure is looked at
// again without them.
func (n *Node) readHosts(dir, registry string) ([]remote.RegistryHost, error) {
	real, err := n.resolve(dir)
	if err != nil {
		return nil, err
	}
	hosts, err := configuredHosts(filepath.Join(n.Root, real), registry)
	if err == nil || filepath.Clean(n.Root) == "/" {
		return hosts, err
	}
	content, err := n.read(path.Join(real, "hosts.toml"))
	if err != nil {
		return nil, err
	}
	copied, err := tempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(copied)
	if err := os.WriteFile(filepath.Join(copied, "hosts.toml"), withoutCertificates(content), 0o600); err != nil {
		return nil, err
	}
	return configuredHosts(copied, registry)
}

// tempDir makes a directory to be removed by the caller. An image has no /tmp, and
// a container whose root is read-only has nothing but shared memory to write to
// that is not the node's.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "larder-")
	if err == nil {
		return dir, nil
	}
	if shared, another := os.MkdirTemp("/dev/shm", "larder-"); another == nil {
		return shared, nil
	}
	return "", err
}

// configuredHosts is containerd's answer for a directory of this process's own
// file system.
func configuredHosts(dir, registry string) ([]remote.RegistryHost, error) {
	complaint := &keepErrors{}
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.AddHook(complaint)
	ctx := ctdlog.WithLogger(context.Background(), logrus.NewEntry(log))
	hosts, err := config.ConfigureHosts(ctx, config.HostOptions{
		HostDir: func(string) (string, error) { return dir, nil },
	})(registry)
	if err == nil && complaint.text != "" {
		err = fmt.Errorf("containerd ignores it: %s", complaint.text)
	}
	return hosts, err
}

// withoutCertificates cuts the keys that name certificates out of a hosts.toml.
func withoutCertificates(content []byte) []byte {
	p := unstable.Parser{}
	p.Reset(content)
	var rest []byte
	end := 0
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.KeyValue {
			continue
		}
		it := e.Key()
		it.Next()
		if key := string(it.Node().Data); (key == "ca" || key == "client") && it.IsLast() {
			rest = append(rest, content[end:e.Raw.Offset]...)
			end = int(e.Raw.Offset + e.Raw.Length)
		}
	}
	return append(rest, content[end:]...)
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
