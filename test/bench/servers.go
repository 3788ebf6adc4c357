package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/larder-registry/larder/test/client"
	"github.com/larder-registry/larder/test/process"
)

// servers are the processes that are compared.
type servers struct {
	files      string // directory that the static servers serve
	contenders []contender

	larderProc, nginxProc, registryProc, filesProc *process.Process
	larderArgs                                     []string
	larderData                                     string
	larderStarts                                   int
}

// startServers starts everything on free ports.
func (b *bench) startServers(ctx context.Context) error {
	addrs := make([]string, 8)
	for i := range addrs {
		var err error
		if addrs[i], err = process.FreeAddr(); err != nil {
			return err
		}
	}
	up, control, mirror, admin, cache, static, proxy, files := addrs[0], addrs[1], addrs[2], addrs[3], addrs[4], addrs[5], addrs[6], addrs[7]
	contend := func(name, addr string, form client.Form) {
		b.contenders = append(b.contenders, contender{name, addr, "http://" + addr, form})
	}
	contend(direct, up, client.Plain)
	contend(larder, mirror, client.NS)
	contend(nginxCache, cache, client.Plain)
	contend(nginxStatic, static, client.Plain)
	contend(dockerRegistry, proxy, client.Plain)
	contend(goFiles, files, client.Plain)
	contend(goMemory, files, client.Plain)

	var err error
	b.up = upstream{addr: up, control: "http://" + control}
	if b.up.proc, err = process.Start(b.dir, "upstream", b.exe, "upstream", "-listen", up, "-control", control); err != nil {
		return err
	}
	if err := b.up.proc.Ready(ctx, b.up.control); err != nil {
		return err
	}
	b.files = filepath.Join(b.dir, "files")
	if err := os.Mkdir(b.files, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(b.files, "small"), []byte("."), 0o644); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if b.filesProc, err = process.Start(b.dir, "files", b.exe, "files", "-listen", files, "-dir", b.files); err != nil {
		return err
	}
	if err := b.filesProc.Ready(ctx, "http://"+files+"/"); err != nil {
		return err
	}
	if err := b.startNginx(ctx, cache, static); err != nil {
		return err
	}
	if err := b.startRegistry(ctx, proxy); err != nil {
		return err
	}

	config := filepath.Join(b.dir, "larder.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `registry_proxies:
  max_size: 20GiB
  min_free: 1GiB
  registries:
    - host: %q
      insecure: true
`, up), 0o600); err != nil {
		return fmt.Errorf("write larder's configuration: %w", err)
	}
	b.larderArgs = []string{
		"mirror", "--config", config, "--listen", mirror, "--admin-listen", admin,
		"--log-format", "json", "--data-dir",
	}
	return b.restartLarder(ctx, true)
}

// restartLarder ends the mirror and starts it again, with an empty data
// directory if fresh.
func (b *bench) restartLarder(ctx context.Context, fresh bool) error {
	b.larderProc.End(syscall.SIGTERM)
	if fresh {
		if b.larderData != "" && !b.keep {
			os.RemoveAll(b.larderData)
		}
		b.larderStarts++
		b.larderData = filepath.Join(b.dir, fmt.Sprintf("data-%d", b.larderStarts))
	}
	var err error
	if b.larderProc, err = process.Start(b.dir, "larder", b.options.larder, append(b.larderArgs, b.larderData)...); err != nil {
		return err
	}
	return b.larderProc.Ready(ctx, b.turns(0, larder)[0].url+"/readyz")
}

// startNginx starts nginx as a cache for the upstream and, on another port, as
// a server of files.
func (b *bench) startNginx(ctx context.Context, cache, static string) error {
	dir := filepath.Join(b.dir, "nginx")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	user := ""
	if os.Geteuid() == 0 {
		// Else its workers may not read what is below a private directory.
		user = "user root;"
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `%[1]s
daemon off; worker_processes auto; pid %[2]s/pid; error_log stderr error;
events { worker_connections 1024; }
http {
	access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;
	client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
	proxy_cache_path %[2]s/cache levels=1:2 keys_zone=oci:10m max_size=20g inactive=1d use_temp_path=off;
	upstream origin { server %[3]s; keepalive 64; }
	proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
	proxy_cache_lock on; proxy_cache_lock_timeout 1m; proxy_cache_lock_age 1m;
	proxy_cache_use_stale error timeout http_500 http_502 http_503 http_504;
	server {
		listen %[4]s;
		location ~ ^/v2/.*/blobs/ {
			slice 8m; proxy_cache oci; proxy_cache_key $uri$slice_range;
			proxy_set_header Range $slice_range; proxy_set_header Connection "";
			proxy_cache_valid 200 206 1d; proxy_pass http://origin;
		}
		location ~ ^/v2/.*/manifests/sha256: {
			proxy_cache oci; proxy_cache_key $uri; proxy_cache_valid 200 1d; proxy_pass http://origin;
		}
		location / {
			proxy_cache oci; proxy_cache_key $uri; proxy_cache_valid 200 1s; proxy_pass http://origin;
		}
	}
	server { listen %[5]s; root %[6]s; }
}
`, user, dir, b.up.addr, cache, static, b.files), 0o644); err != nil {
		return fmt.Errorf("write nginx' configuration: %w", err)
	}
	var err error
	if b.nginxProc, err = process.Start(b.dir, "nginx", b.options.nginx, "-p", dir, "-e", "stderr", "-c", config); err != nil {
		return err
	}
	return b.nginxProc.Ready(ctx, "http://"+static+"/small")
}

// startRegistry starts docker-registry as a pull-through proxy.
func (b *bench) startRegistry(ctx context.Context, addr string) error {
	config := filepath.Join(b.dir, "registry.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `version: 0.1
log: {accesslog: {disabled: true}, level: error}
storage:
  filesystem: {rootdirectory: %q}
  cache: {blobdescriptor: inmemory}
http: {addr: %q}
proxy: {remoteurl: "http://%s"}
`, filepath.Join(b.dir, "registry"), addr, b.up.addr), 0o600); err != nil {
		return fmt.Errorf("write docker-registry's configuration: %w", err)
	}
	var err error
	if b.registryProc, err = process.Start(b.dir, "docker-registry", b.options.registry, "serve", config); err != nil {
		return err
	}
	return b.registryProc.Ready(ctx, "http://"+addr+"/v2/")
}

// stopServers ends everything.
func (b *bench) stopServers() {
	for _, p := range []*process.Process{b.larderProc, b.nginxProc, b.registryProc, b.filesProc, b.up.proc} {
		p.End(syscall.SIGTERM)
	}
}
