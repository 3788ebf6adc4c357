package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/store"
)

func TestAnEmptyFileMeansTheDefaults(t *testing.T) {
	for _, content := range []string{"", "\n", "# nothing\n", "---\n", "registry_proxies:\n", "{}"} {
		cfg, warnings, err := Parse("larder.yaml", []byte(content))
		if err != nil || len(warnings) != 0 {
			t.Errorf("%q: %v, %v", content, warnings, err)
			continue
		}
		if !reflect.DeepEqual(cfg, Default()) {
			t.Errorf("%q: got %+v", content, cfg)
		}
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	dir := t.TempDir()
	pair(t, dir)
	write(t, dir, "password", "pässword\n")
	write(t, dir, "config.json", "{}")
	cfg, warnings, err := Parse(filepath.Join(dir, "larder.yaml"), []byte(`
registry_proxies:
  offline: true
  max_size: 100GiB
  min_free: 10GB
  lock_wait: 1s
  pin: ["registry.k8s.io/pause:*"]
  revalidate_after: 1m
  revalidate_timeout: 250ms
  stale_if_error: 24h
  stall_timeout: 3s
  finish_timeout: 2m
  blob_streams: 4
  fill_rate: 100MiB
  client_rate: 50MB
  warm: ["docker.io/library/nginx:1.27"]
  warm_every: 30m
  prefetch_wait: 3s
  private_images: bypass
  proof_ttl: 5m
  proof_grace: 1h
  allow: local, 10.0.0.0/8, ::1
  cloud_credentials: false
  docker_config: config.json
  default_registry: Quay.io
  registries:
    - host: index.docker.io
      path_prefix: /team-a/
      username: u
      password: p
      insecure: true
      endpoints: [https://mirror.example/v2/hub, "http://127.0.0.1:5000"]
      access: node
      token_server: Auth.example
    - host: "[::1]:5000"
      username: u
      password_file: password
      ca_file: cert.pem
      client_cert_file: cert.pem
      client_key_file: key.pem
    - host: ghcr.io
      username: u
      password: file://`+filepath.Join(dir, "password")+`
    - host: registry.example
      aws: {region: eu-west-1, role_arn: "arn:aws:iam::123456789012:role/pull"}
    - host: other.example
      credential_provider:
        command: sh
        args: [-c, "exit 0"]
        env: [A=b]
        api_version: credentialprovider.kubelet.k8s.io/v1beta1
        timeout: 2s
        cache_duration: 1h
`))
	if err != nil || len(warnings) != 0 {
		t.Fatal(warnings, err)
	}
	want := &Config{RegistryProxies: RegistryProxies{
		Offline:           true,
		MaxSize:           Limit{store.Bytes(100 << 30)},
		MinFree:           Limit{store.Bytes(10e9)},
		LockWait:          Duration(time.Second),
		Pin:               []string{"registry.k8s.io/pause:*"},
		RevalidateAfter:   Duration(time.Minute),
		RevalidateTimeout: Duration(250 * time.Millisecond),
		StaleIfError:      Duration(24 * time.Hour),
		StallTimeout:      Duration(3 * time.Second),
		FinishTimeout:     Duration(2 * time.Minute),
		BlobStreams:       4,
		FillRate:          100 << 20,
		ClientRate:        50e6,
		Warm:              []string{"docker.io/library/nginx:1.27"},
		WarmEvery:         Duration(30 * time.Minute),
		PrefetchWait:      Duration(3 * time.Second),
		PrivateImages:     "bypass",
		ProofTTL:          Duration(5 * time.Minute),
		ProofGrace:        Duration(time.Hour),
		Allow:             "local, 10.0.0.0/8, ::1",
		DockerConfig:      filepath.Join(dir, "config.json"),
		DefaultRegistry:   "quay.io",
		Registries: []Registry{
			{
				Host: "docker.io", PathPrefix: "team-a", Username: "u", Password: "p", Insecure: true, Access: "node", TokenServer: "auth.example",
				Endpoints: []string{"https://mirror.example/v2/hub", "http://127.0.0.1:5000"},
			},
			{
				Host: "[::1]:5000", Username: "u", PasswordFile: filepath.Join(dir, "password"),
				CAFile:         filepath.Join(dir, "cert.pem"),
				ClientCertFile: filepath.Join(dir, "cert.pem"), ClientKeyFile: filepath.Join(dir, "key.pem"),
			},
			{Host: "ghcr.io", Username: "u", PasswordFile: filepath.Join(dir, "password")},
			{Host: "registry.example", AWS: &AWS{Region: "eu-west-1", RoleARN: "arn:aws:iam::123456789012:role/pull"}},
			{Host: "other.example", CredentialProvider: &CredentialProvider{
				Command: "sh", Args: []string{"-c", "exit 0"}, Env: []Secret{"A=b"},
				APIVersion: "credentialprovider.kubelet.k8s.io/v1beta1", Timeout: Duration(2 * time.Second), CacheDuration: Duration(time.Hour),
			}},
		},
	}, Webhook: defaultWebhook(), Central: defaultCentral(), Tracing: Default().Tracing}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %#v\nwant %#v", cfg, want)
	}
	for _, r := range cfg.RegistryProxies.Registries[1:3] {
		if got, err := r.ReadPassword(); err != nil || got != "pässword" {
			t.Errorf("%s: password %q, %v", r.Host, string(got), err)
		}
	}
}

// TestMistakes holds each mistake to its line, its key and its fix.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	pair(t, dir)
	write(t, dir, "empty", "\n")
	// one wraps lines that belong to the first entry of registries.
	one := func(lines ...string) string {
		return "registry_proxies:\n  registries:\n    - host: docker.io\n      " + strings.Join(lines, "\n      ")
	}
	proxies := func(line string) string { return "registry_proxies:\n  " + line }
	for _, c := range []struct {
		name, content string
		want          string // a line of the error, without the file's name
	}{
		{"not yaml", "a:\n\tb", ":2:1: not YAML: found character that cannot start any token"},
		{"not yaml, no line", "\x00", ": not YAML: control characters are not allowed"},
		{"two documents", "{}\n---\n{}", ":2:1: not YAML: a second document starts here; one file is one document"},
		{"a list", "- a", ":1:1: keys and values are wanted, not a list; known keys are registry_proxies"},
		{"unknown section", "registry_proxy: {}", `:1:1: registry_proxy: unknown key; did you mean "registry_proxies"?`},
		{"key at the top", "offline: true", ":1:1: offline: unknown key; it belongs to registry_proxies"},
		{"misspelt key", proxies("max_sise: 1GiB"), `:2:3: registry_proxies.max_sise: unknown key; did you mean "max_size"?`},
		{"key of an entry", proxies("password_file: x"), ":2:3: registry_proxies.password_file: unknown key; it belongs to registry_proxies.registries[]"},
		{"nothing alike", one("zzzzzzzzzz: 1"), ":4:7: registry_proxies.registries[0].zzzzzzzzzz: unknown key; known keys are host, path_prefix, username, password, password_file, token_server, credential_provider, aws, insecure, ca_file, client_cert_file, client_key_file, endpoints, access"},
		{"merge key", "x: &x {}\nregistry_proxies:\n  <<: *x", ":3:3: registry_proxies.<<: unknown key"},
		{"key twice", proxies("offline: true\n  offline: false"), ":3:3: registry_proxies.offline: the key is there twice, first in line 2; keep one of them"},
		{"bool as text", proxies(`offline: "yes"`), `:2:12: registry_proxies.offline: "yes" is not a boolean; write true or false`},
		{"value as list", proxies("min_free: [1]"), ":2:13: registry_proxies.min_free: a single value is wanted, not a list"},
		{"list as value", proxies("registries: docker.io"), ":2:15: registry_proxies.registries: a list is wanted, not a single value; start each entry with '- '"},
		{"list as mapping", proxies("registries: {host: x}"), ":2:15: registry_proxies.registries: a list is wanted, not keys and values"},
		{"no value", proxies("stale_if_error:"), ":2:18: registry_proxies.stale_if_error: a value is wanted; remove the key to use the default"},
		{"duration", proxies("stall_timeout: 15"), `:2:18: registry_proxies.stall_timeout: bad duration "15"; write a number and a unit`},
		{"days", proxies("stale_if_error: 7d"), `:2:19: registry_proxies.stale_if_error: bad duration "7d"; there is no unit for days: write "168h"`},
		{"negative duration", proxies("lock_wait: -1s"), `:2:14: registry_proxies.lock_wait: bad duration "-1s"; it cannot be negative`},
		{"no patience", proxies("stall_timeout: 0s"), ":2:18: registry_proxies.stall_timeout: the time must be longer than nothing"},
		{"size", proxies("max_size: 50 gigs"), `:2:13: registry_proxies.max_size: parse size "50 gigs": unknown unit "gigs"`},
		{"negative size", proxies("max_size: -1"), `:2:13: registry_proxies.max_size: parse size "-1": want a number with a unit, as 50GiB or 20%`},
		{"huge size", proxies("max_size: 9999999999TiB"), `:2:13: registry_proxies.max_size: parse size "9999999999TiB": too large`},
		{"percentage", proxies("min_free: 120%"), `:2:13: registry_proxies.min_free: parse size "120%": more than 100 %`},
		{"not a number", proxies("min_free: NaN%"), `:2:13: registry_proxies.min_free: parse size "NaN%"`},
		{"private images", proxies("private_images: x"), `:2:19: registry_proxies.private_images: unknown value "x"; write one of challenge, bypass, shared`},
		{"private images empty", proxies(`private_images: ""`), `:2:19: registry_proxies.private_images: unknown value ""; write one of challenge, bypass, shared`},
		{"proofs of no time", proxies("proof_ttl: 0s"), `:2:14: registry_proxies.proof_ttl: the time must be from 1s to 24h`},
		{"proofs for ever", proxies("proof_ttl: 240h"), `:2:14: registry_proxies.proof_ttl: the time must be from 1s to 24h`},
		{"warm without a pause", proxies("warm_every: 1ns"), `:2:15: registry_proxies.warm_every: 1ns is too often; write 1s or more`},
		{"gc without a pause", "central:\n  gc: {every: 1s}\n", `:2:15: central.gc.every: 1s is too often; write 1m or more`},
		{"grace for ever", proxies("proof_grace: 9999h"), `:2:16: registry_proxies.proof_grace: the time must be at most 720h; write "0s" to let nobody in while the upstream cannot be asked`},
		{"pattern", proxies(`pin: ["a["]`), `:2:9: registry_proxies.pin[0]: bad pattern "a["`},
		{"default registry", proxies("default_registry: https://docker.io"), ":2:21: registry_proxies.default_registry: a host's name is wanted, not a URL"},

		{"no host", "registry_proxies:\n  registries:\n    - username: x", ":3:7: registry_proxies.registries[0]: host is missing; name the registry: host: docker.io"},
		{"empty entry", "registry_proxies:\n  registries:\n    -", ":3:6: registry_proxies.registries[0]: host is missing"},
		{"host with scheme", "registry_proxies:\n  registries:\n  - host: http://r.example/", `:3:11: registry_proxies.registries[0].host: a host's name is wanted, not a URL; write "r.example" and insecure: true`},
		{"host with path", "registry_proxies:\n  registries:\n  - host: docker.io/team-a", ":3:11: registry_proxies.registries[0].host: a host's name is wanted, without a path; write host: docker.io and path_prefix: team-a"},
		{"host twice", one() + "\n    - host: registry-1.docker.io", ":5:7: registry_proxies.registries[1]: docker.io is there twice, first in line 3; merge the entries, or tell them apart by path_prefix"},
		{"prefix twice", one("path_prefix: a/") + "\n    - {host: docker.io, path_prefix: a}", ":5:7: registry_proxies.registries[1]: docker.io/a is there twice, first in line 3"},
		{"prefix", one("path_prefix: Team"), `:4:20: registry_proxies.registries[0].path_prefix: "Team" is not the start of a repository's name`},
		{"no password", one("username: u"), ":4:17: registry_proxies.registries[0].username: username has no password; add password_file"},
		{"no username", one("password: u"), ":3:7: registry_proxies.registries[0]: password has no username; add username"},
		{"colon in username", one("username: a:b", "password: x"), ":4:17: registry_proxies.registries[0].username: a username cannot hold a colon"},
		{"two passwords", one("username: u", "password: x", "password_file: y"), ":5:17: registry_proxies.registries[0].password: password and password_file are both given; keep one of them"},
		{"password file missing", one("username: u", "password_file: missing"), ":5:22: registry_proxies.registries[0].password_file: stat " + dir + "/missing: no such file"},
		{"password url missing", one("username: u", "password: file:///missing"), ":5:17: registry_proxies.registries[0].password_file: stat /missing: no such file"},
		{"password file empty", one("username: u", "password_file: empty"), ":5:22: registry_proxies.registries[0].password_file: read " + dir + "/empty: the file is empty"},
		{"password file is a directory", one("username: u", "password_file: /"), ":5:22: registry_proxies.registries[0].password_file: read /: not a regular file"},
		{"ca missing", one("ca_file: missing"), ":4:16: registry_proxies.registries[0].ca_file: stat " + dir + "/missing: no such file"},
		{"ca without certificate", one("ca_file: key.pem"), ":4:16: registry_proxies.registries[0].ca_file: " + dir + "/key.pem holds no PEM certificate"},
		{"ca never used", one("ca_file: cert.pem", "insecure: true"), ":4:16: registry_proxies.registries[0].ca_file: ca_file is never used"},
		{"half a pair", one("client_cert_file: cert.pem"), ":3:7: registry_proxies.registries[0]: client_cert_file and client_key_file belong together; give both"},
		{"pair mixed up", one("client_cert_file: key.pem", "client_key_file: cert.pem"), ":4:25: registry_proxies.registries[0].client_cert_file: tls: "},
		{"key missing", one("client_cert_file: cert.pem", "client_key_file: missing"), ":5:24: registry_proxies.registries[0].client_key_file: stat "},
		{"endpoint without scheme", one("endpoints: [mirror.example/v2]"), ":4:19: registry_proxies.registries[0].endpoints[0]: the URL has no scheme; write https://mirror.example/v2"},
		{"endpoint scheme", one("endpoints: ['ftp://a']"), `:4:19: registry_proxies.registries[0].endpoints[0]: unknown scheme "ftp"; write http or https`},
		{"endpoint without host", one("endpoints: ['https:///v2']"), ":4:19: registry_proxies.registries[0].endpoints[0]: the URL has no host"},
		{"endpoint with credentials", one("endpoints: ['https://u:hunter2@a']"), ":4:19: registry_proxies.registries[0].endpoints[0]: a URL cannot carry credentials; use username and password_file"},
		{"endpoint with query", one("endpoints: ['https://a?b']"), ":4:19: registry_proxies.registries[0].endpoints[0]: a URL of an endpoint has no query and no fragment"},
		{"endpoint not a URL", one("endpoints: ['https://a:b:c']"), ":4:19: registry_proxies.registries[0].endpoints[0]: not a URL"},
		{"access", one("access: all"), `:4:15: registry_proxies.registries[0].access: unknown value "all"; write one of node, caller`},
		{"access empty", one(`access: ""`), `:4:15: registry_proxies.registries[0].access: unknown value ""; write one of node, caller`},
		{"aws without a region", one("aws: {role_arn: 'arn:aws:iam::123456789012:role/pull'}"), ":4:12: registry_proxies.registries[0].aws: the host's name does not say which region it is in; add region"},
		{"aws role", one("aws: {region: eu-west-1, role_arn: pull}"), `:4:42: registry_proxies.registries[0].aws.role_arn: "pull" is not a role's ARN`},
		{"two ways in", one("username: u", "password: p", "aws: {region: eu-west-1}"), ":6:12: registry_proxies.registries[0].aws: username and aws are both given; keep one of them"},
		{"provider without command", one("credential_provider: {args: [get]}"), ":4:28: registry_proxies.registries[0].credential_provider: command is missing"},
		{"provider missing", one("credential_provider: {command: ./missing}"), ":4:38: registry_proxies.registries[0].credential_provider.command: " + dir + "/missing cannot be run: stat " + dir + "/missing: no such file"},
		{"provider not in the path", one("credential_provider: {command: larder-no-such-program}"), ":4:38: registry_proxies.registries[0].credential_provider.command: larder-no-such-program cannot be run: executable file not found in $PATH"},
		{"provider not a program", one("credential_provider: {command: ./key.pem}"), ":4:38: registry_proxies.registries[0].credential_provider.command: " + dir + "/key.pem cannot be run: permission denied"},
		{"provider's environment", one("credential_provider: {command: sh, env: [hunter2]}"), ":4:48: registry_proxies.registries[0].credential_provider.env[0]: not an environment variable; write NAME=value"},
		{"token server", one("token_server: 'https://auth.example'"), ":4:21: registry_proxies.registries[0].token_server: a host's name is wanted, not a URL"},
		{"docker config missing", proxies("docker_config: missing"), ":2:18: registry_proxies.docker_config: stat " + dir + "/missing: no such file"},
		{"docker config not JSON", proxies("docker_config: key.pem"), ":2:18: registry_proxies.docker_config: " + dir + "/key.pem is not JSON"},
		{"allow", proxies("allow: everybody"), `:2:10: registry_proxies.allow: "everybody" is no address and no CIDR prefix; write any, local, or addresses and prefixes such as 10.0.0.0/8`},
		{"allow any and more", proxies("allow: 'any,10.0.0.0/8'"), `:2:10: registry_proxies.allow: "any" is no address and no CIDR prefix`},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(dir, "larder.yaml")
			cfg, _, err := Parse(file, []byte(c.content))
			var problems Problems
			if !errors.As(err, &problems) || cfg != nil {
				t.Fatalf("got %v, error %v", cfg, err)
			}
			if got := problems.Error(); !hasLine(got, file+c.want) {
				t.Errorf("got\n%s\nwant a line that starts with\n%s", got, file+c.want)
			}
		})
	}
}

func hasLine(text, prefix string) bool {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

func TestAllMistakesAreReportedAtOnceInTheFilesOrder(t *testing.T) {
	_, _, err := Parse("f", []byte("registry_proxies:\n  registries:\n  - host: https://a.example\n  offline: 7\n  min_fre: 1\nzzz: 1\n"))
	var lines []int
	if problems, ok := errors.AsType[Problems](err); ok {
		for _, p := range problems {
			lines = append(lines, p.Line)
		}
	}
	if want := []int{3, 4, 5, 6}; !reflect.DeepEqual(lines, want) {
		t.Errorf("problems in lines %v, want %v:\n%v", lines, want, err)
	}
}

func TestSecretsDoNotReachErrors(t *testing.T) {
	for _, content := range []string{
		"registry_proxies: {registries: [{host: 'https://u:hunter2@a.example'}]}",
		"registry_proxies: {registries: [{host: 'u:hunter2@a.example/x'}]}",
		"registry_proxies: {registries: [{host: a.example, endpoints: ['https://u:hunter2@a']}]}",
		"registry_proxies: {registries: [{host: a.example, endpoints: ['u:hunter2@a']}]}",
		"registry_proxies: {registries: [{host: a.example, endpoints: ['//u:hunter2@a']}]}",
		"registry_proxies: {registries: [{host: a.example, password: hunter2}]}",
	} {
		_, _, err := Parse("f", []byte(content))
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", content, err)
		}
	}
	for _, s := range []string{
		fmt.Sprint(Secret("hunter2")), fmt.Sprintf("%#v", Secret("hunter2")), fmt.Sprintf("%q", Secret("hunter2")),
		fmt.Sprintf("%+v", Registry{Password: "hunter2"}), fmt.Sprintf("%#v", Registry{Password: "hunter2"}),
	} {
		if strings.Contains(s, "hunter2") {
			t.Error(s)
		}
	}
}

func TestPrintIsReadBack(t *testing.T) {
	for _, content := range []string{
		"",
		"registry_proxies: {max_size: 1025, min_free: 0.5%, registries: [{host: a.example, insecure: true, endpoints: [https://b.example/x]}]}",
	} {
		cfg, _, err := Parse("f", []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := cfg.Print(&out); err != nil {
			t.Fatal(err)
		}
		again, _, err := Parse("f", out.Bytes())
		if err != nil || !reflect.DeepEqual(cfg, again) {
			t.Errorf("%v\n%s\ngot  %+v\nwant %+v", err, &out, again, cfg)
		}
	}
}

func TestPrintMasksSecrets(t *testing.T) {
	cfg, _, err := Parse("f", []byte("registry_proxies: {registries: [{host: a.example, username: u, password: hunter2}]}"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := cfg.Print(&out); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Contains(s, "hunter2") || !strings.Contains(s, "password: '"+mask+"'") {
		t.Error(s)
	}
}

func TestLoadNamesAFileThatCannotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none.yaml")
	_, _, err := Load(file)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
	if _, _, err := Load("/dev/zero"); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Error(err)
	}
}

func TestDurationsPrintShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Minute: "1m", 168 * time.Hour: "168h", 90 * time.Minute: "1h30m",
		800 * time.Millisecond: "800ms", 10*time.Minute + 10*time.Second: "10m10s", 10 * time.Second: "10s",
	} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v prints %q, want %q", d, got, want)
		}
	}
}

// FuzzParse holds that no content panics, and that what is accepted prints to
// something that is accepted as the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte("registry_proxies: {offline: true, max_size: 50GiB, min_free: 1kB, pin: [a], stale_if_error: 168h}"))
	f.Add([]byte("registry_proxies:\n  registries:\n  - &a {host: docker.io}\n  - *a\n"))
	f.Add([]byte("webhook:\n---\nx: y"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? [a]\n: b"))
	f.Fuzz(func(t *testing.T, content []byte) {
		cfg, _, err := Parse("f", content)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("error %v is not a list of problems", err)
			}
			return
		}
		var out bytes.Buffer
		if err := cfg.Print(&out); err != nil {
			t.Fatal(err)
		}
		again, _, err := Parse("f", out.Bytes())
		if err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		for i := range cfg.RegistryProxies.Registries {
			// Printing masks it, so it cannot come back.
			cfg.RegistryProxies.Registries[i].Password = Secret(cfg.RegistryProxies.Registries[i].Password.String())
		}
		if !reflect.DeepEqual(cfg, again) {
			t.Fatalf("got  %+v\nwant %+v\n%s", again, cfg, &out)
		}
	})
}

// write puts content into dir/name.
func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
