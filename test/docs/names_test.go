package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// others are words that look like ours and are somebody else's; each is on some
// page.
func others() map[string]string {
	return map[string]string{
		"--cors": "Trow's", "--config-file": "Trow's", "--host": "Trow's", "--tls": "Trow's",
		"--insecure": "crane's", "--profile": "kubectl's", "--service-account-issuer": "the API server's",
		"--kube-version": "helm's", "--reset-then-reuse-values": "helm's", "--reuse-values": "helm's",
		"config_path": "containerd's", "concurrent_layer_fetch_buffer": "containerd's", "dial_timeout": "containerd's",
		"discard_unpacked_layers": "containerd's", "use_local_image_pull": "containerd's",
		"control_t": "SELinux's", "super_t": "SELinux's", "proxy_cache": "nginx's", "proxy_cache_lock": "nginx's",
		"read_registry": "GitLab's", "apiserver_admission_webhook_fail_open_count": "the API server's",
	}
}

// TestNames looks up what sentences and tables name without a command around it:
// metrics, flags, keys of the configuration, files and directories.
func TestNames(t *testing.T) {
	var (
		metric = regexp.MustCompile(`\blarder_[a-z_]+`)
		key    = regexp.MustCompile(`^[a-z]+(?:_[a-z]+)+$`)
		file   = regexp.MustCompile(`^(?:\.ci|bottlerocket|central|cmd|docs|internal|manifests|mirror|nodeconfig|store|test)/[\w./-]+$`)
		row    = regexp.MustCompile("(?m)^\\| `(larder_[a-z_]+)`")
		word   = regexp.MustCompile("`(?:[a-z_]+(?:\\[])?\\.)*([a-z]+(?:_[a-z]+)+)`")
		parts  = regexp.MustCompile(`_(?:bucket|sum|count)$`)
	)
	// The table of metrics is held to running processes by test/monitoring, the
	// reference of keys to the program by internal/config.
	metrics := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(read(t, "docs/monitoring.md"), -1) {
		metrics[m[1]] = true
	}
	words := map[string]bool{}
	for _, page := range []string{"docs/configuration.md", "docs/operations.md", "docs/status.md", "docs/monitoring.md", "docs/admission.md"} {
		for line := range strings.Lines(read(t, page)) {
			if strings.HasPrefix(line, "| ") {
				for _, m := range word.FindAllStringSubmatch(line, -1) {
					words[m[1]] = true
				}
			}
		}
	}
	flags := allFlags(t)
	foreign, named := others(), map[string]bool{}
	looked := 0
	for _, p := range pages(t) {
		if record(p) {
			continue
		}
		report := func(line int, what, name string, known bool) {
			looked++
			named[name] = true
			if !known && foreign[name] == "" {
				t.Errorf("%s:%d: there is no %s %s", p.Name, line, what, name)
			}
		}
		for i, line := range strings.Split(read(t, p.Name), "\n") {
			for _, name := range metric.FindAllString(line, -1) {
				report(i+1, "metric", name, metrics[name] || metrics[parts.ReplaceAllString(name, "")])
			}
		}
		for _, s := range p.Spans {
			name, _, _ := strings.Cut(s.Text, "=")
			name, _, _ = strings.Cut(name, " ")
			switch {
			case strings.HasPrefix(name, "--") && len(name) > 2:
				report(s.Line, "flag", name, flags[name])
			case key.MatchString(s.Text) && !metric.MatchString(s.Text):
				report(s.Line, "key", s.Text, words[s.Text])
			case file.MatchString(s.Text):
				_, err := os.Stat(filepath.Join(root, s.Text))
				report(s.Line, "file", s.Text, err == nil)
			}
		}
	}
	if looked < 300 || len(metrics) < 30 || len(flags) < 40 {
		t.Errorf("only %d names, %d metrics and %d flags were found", looked, len(metrics), len(flags))
	}
	for name, whose := range foreign {
		if !named[name] {
			t.Errorf("no page names %s, %s", name, whose)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// allFlags are those of every command of the binary.
func allFlags(t *testing.T) map[string]bool {
	t.Helper()
	l := lookup{binary: binary(t), help: map[string]string{}}
	flags := map[string]bool{}
	command := regexp.MustCompile(`(?m)^  ([a-z]+) +[A-Z]`)
	flag := regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+)`)
	for todo := []string{""}; len(todo) > 0; {
		path := todo[0]
		help := l.helpOf(path)
		todo = slices.Delete(todo, 0, 1)
		for _, m := range flag.FindAllStringSubmatch(help, -1) {
			flags[m[1]] = true
		}
		if strings.Contains(help, "Available Commands:") {
			for _, m := range command.FindAllStringSubmatch(help, -1) {
				if m[1] != "help" && m[1] != "completion" {
					todo = append(todo, strings.TrimSpace(path+" "+m[1]))
				}
			}
		}
	}
	return flags
}
