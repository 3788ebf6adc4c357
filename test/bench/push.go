package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/process"
)

// diskLimit is what a push is compared with: the same bytes hashed, written and
// synced by a program that does nothing else.
const diskLimit = "sha256, write, fsync"

const (
	pushUser, pushPassword = "bench", "bench"
	pushSize               = 1 << 30
	pushers                = 16
	pushLayers             = 4
	pushLayer              = 1 << 20
	manyTags               = 2000
)

// pushed is a registry that is pushed to.
type pushed struct {
	name, url string
	client    *http.Client
	proc      *process.Process
}

// pushes measures larder central and docker-registry as registries to push to.
// Both begin empty, and are asked the same in turns.
func (b *bench) pushes(ctx context.Context) error {
	registries, err := b.startPushed(ctx)
	defer func() {
		for _, p := range registries {
			p.client.CloseIdleConnections()
			p.proc.End(syscall.SIGTERM)
		}
	}()
	if err != nil {
		return err
	}
	limit := &row{what: "push of a blob of 1 GiB", unit: "MiB/s", ref: diskLimit, how: ratioAtLeast, limit: 0.8}
	large := &row{what: "push of a blob of 1 GiB", unit: "s", ref: dockerRegistry, how: ratioAtMost, limit: 1}
	pull := &row{what: "pull of it", unit: "s", ref: dockerRegistry, how: ratioAtMost, limit: 1}
	many := &row{what: "16 pushers, an image of 4 × 1 MiB each", unit: "s", ref: dockerRegistry, how: ratioAtMost, limit: 1}
	manifest := &row{what: "image manifest by tag, median of 500", unit: "ms", ref: dockerRegistry, how: ratioAtMost, limit: 1}
	tags := &row{what: "list of 2,000 tags, median of 20", unit: "ms", how: atMost, limit: 5}
	against := &row{what: "list of 2,000 tags, median of 20", unit: "ms", ref: dockerRegistry, how: ratioAtMost, limit: 1}
	b.table.rows = append(b.table.rows, limit, large, pull, many, manifest, tags, against)

	content := make([]byte, pushSize)
	source := rand.NewChaCha8([32]byte{1})
	for rep := range b.reps {
		_, _ = source.Read(content) // never fails
		dgst := digest.FromBytes(content)
		took, err := hashWriteSync(filepath.Join(b.dir, "limit"), content)
		if err != nil {
			return err
		}
		limit.add(diskLimit, pushSize/took.Seconds()/(1<<20))
		for i := range registries {
			p := registries[(i+rep)%len(registries)]
			if took, err = p.timed(func() error { return p.blob(ctx, "large", dgst, content) }); err != nil {
				return fmt.Errorf("push 1 GiB to %s: %w", p.name, err)
			}
			large.add(p.name, took.Seconds())
			if p.name == larder {
				limit.add(larder, pushSize/took.Seconds()/(1<<20))
			}
			if took, err = p.timed(func() error { return p.get(ctx, "/v2/large/blobs/"+string(dgst), pushSize) }); err != nil {
				return fmt.Errorf("pull 1 GiB from %s: %w", p.name, err)
			}
			pull.add(p.name, took.Seconds())
			if err := p.do(ctx, http.MethodDelete, "/v2/large/blobs/"+string(dgst), nil, 202); err != nil {
				return err
			}
			if took, err = p.timed(func() error { return p.crowd(ctx, rep) }); err != nil {
				return fmt.Errorf("16 pushers to %s: %w", p.name, err)
			}
			many.add(p.name, took.Seconds())
			if rep == 0 {
				if err := p.tags(ctx); err != nil {
					return fmt.Errorf("push tags to %s: %w", p.name, err)
				}
			}
			if took, err = p.median(500, func() error { return p.get(ctx, "/v2/many/manifests/t0000", -1) }); err != nil {
				return err
			}
			manifest.add(p.name, milliseconds(took))
			if took, err = p.median(20, func() error { return p.get(ctx, "/v2/many/tags/list", -1) }); err != nil {
				return err
			}
			against.add(p.name, milliseconds(took))
			tags.add(p.name, milliseconds(took))
		}
		b.say("push %d of %d", rep+1, b.reps)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// startPushed starts the registries.
func (b *bench) startPushed(ctx context.Context) (all []*pushed, err error) {
	password := filepath.Join(b.dir, "password")
	if err := os.WriteFile(password, []byte(pushPassword), 0o600); err != nil {
		return nil, err
	}
	for _, name := range []string{larder, dockerRegistry} {
		addr, err := process.FreeAddr()
		if err != nil {
			return all, err
		}
		p := &pushed{name: name, url: "http://" + addr, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * pushers}}}
		switch name {
		case larder:
			p.proc, err = process.Start(b.dir, "larder-central", b.options.larder, "central", "--plain-http", "--user", pushUser, "--password-file", password,
				"--listen", addr, "--admin-listen", "", "--data-dir", filepath.Join(b.dir, "central"), "--log-format", "json")
		default:
			config := filepath.Join(b.dir, "push-registry.yml")
			if err := os.WriteFile(config, fmt.Appendf(nil, `version: 0.1
log: {accesslog: {disabled: true}, level: error}
storage:
  filesystem: {rootdirectory: %q}
  cache: {blobdescriptor: inmemory}
  delete: {enabled: true}
http: {addr: %q}
`, filepath.Join(b.dir, "push-registry"), addr), 0o600); err != nil {
				return all, err
			}
			p.proc, err = process.Start(b.dir, "docker-registry-push", b.options.registry, "serve", config)
		}
		if err != nil {
			return all, err
		}
		all = append(all, p)
		ready := "/readyz"
		if name == dockerRegistry {
			ready = "/v2/"
		}
		if err := p.proc.Ready(ctx, p.url+ready); err != nil {
			return all, err
		}
	}
	return all, nil
}

// hashWriteSync does to a file what has to be done to a push.
func hashWriteSync(name string, content []byte) (time.Duration, error) {
	defer os.Remove(name)
	started := time.Now()
	f, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := sha256.New()
	for part := content; len(part) > 0; {
		n := min(len(part), 1<<20)
		h.Write(part[:n])
		if _, err := f.Write(part[:n]); err != nil {
			return 0, err
		}
		part = part[n:]
	}
	err = f.Sync()
	return time.Since(started), err
}

func (p *pushed) timed(f func() error) (time.Duration, error) {
	started := time.Now()
	err := f()
	return time.Since(started), err
}

// median of how long f takes.
func (p *pushed) median(n int, f func() error) (time.Duration, error) {
	all := make([]float64, n)
	for i := range all {
		took, err := p.timed(f)
		if err != nil {
			return 0, err
		}
		all[i] = float64(took)
	}
	return time.Duration(median(all)), nil
}

// send sends a request; the caller closes the body.
func (p *pushed) send(ctx context.Context, method, target string, body io.Reader, length int64, want int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.url+target, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = length
	req.SetBasicAuth(pushUser, pushPassword)
	req.Header.Set("Accept", oci.MediaTypeManifest)
	if method == http.MethodPut {
		req.Header.Set("Content-Type", oci.MediaTypeManifest)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) //nolint:errcheck // what there is of a reason
		res.Body.Close()
		return nil, fmt.Errorf("%s %s: %s %s", method, target, res.Status, text)
	}
	return res, nil
}

func (p *pushed) do(ctx context.Context, method, target string, body []byte, want int) error {
	res, err := p.send(ctx, method, target, bytes.NewReader(body), int64(len(body)), want)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close())
}

// get takes something in, and checks its length when size is not -1.
func (p *pushed) get(ctx context.Context, target string, size int64) error {
	res, err := p.send(ctx, http.MethodGet, target, nil, 0, http.StatusOK)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && size >= 0 && n != size {
		err = fmt.Errorf("%s has %d bytes", target, n)
	}
	return errors.Join(err, res.Body.Close())
}

// blob pushes a blob as docker does: POST, PATCH with all of it, PUT.
func (p *pushed) blob(ctx context.Context, repository string, dgst digest.Digest, content []byte) error {
	res, err := p.send(ctx, http.MethodPost, "/v2/"+repository+"/blobs/uploads/", nil, 0, http.StatusAccepted)
	if err != nil {
		return err
	}
	res.Body.Close()
	location, err := res.Location()
	if err != nil {
		return err
	}
	if res, err = p.send(ctx, http.MethodPatch, location.RequestURI(), bytes.NewReader(content), int64(len(content)), http.StatusAccepted); err != nil {
		return err
	}
	res.Body.Close()
	if location, err = res.Location(); err != nil {
		return err
	}
	query := location.Query()
	query.Set("digest", string(dgst))
	location.RawQuery = query.Encode()
	return p.do(ctx, http.MethodPut, location.RequestURI(), nil, http.StatusCreated)
}

// image pushes an image of its own.
func (p *pushed) image(ctx context.Context, repository, tag string, seed uint64, layers, size int) error {
	source := rand.New(rand.NewPCG(seed, uint64(len(repository))))
	list := ""
	for n := range layers + 1 {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(source.Uint32())
		}
		dgst := digest.FromBytes(content)
		if err := p.blob(ctx, repository, dgst, content); err != nil {
			return err
		}
		descriptor := fmt.Sprintf(`{"mediaType":"application/octet-stream","digest":%q,"size":%d}`, dgst, len(content))
		switch n {
		case 0:
			list = descriptor + `,"layers":[`
		case 1:
			list += descriptor
		default:
			list += "," + descriptor
		}
	}
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s]}`, oci.MediaTypeManifest, list)
	return p.do(ctx, http.MethodPut, "/v2/"+repository+"/manifests/"+tag, body, http.StatusCreated)
}

// crowd pushes from many sides at once.
func (p *pushed) crowd(ctx context.Context, rep int) error {
	errs := make([]error, pushers)
	var pushing sync.WaitGroup
	for n := range pushers {
		pushing.Go(func() {
			errs[n] = p.image(ctx, fmt.Sprintf("crowd-%d", n), fmt.Sprintf("v%d", rep), uint64(rep*pushers+n), pushLayers, pushLayer)
		})
	}
	pushing.Wait()
	return errors.Join(errs...)
}

// tags pushes an image under many tags.
func (p *pushed) tags(ctx context.Context) error {
	if err := p.image(ctx, "many", "t0000", 1, 1, 1000); err != nil {
		return err
	}
	res, err := p.send(ctx, http.MethodGet, "/v2/many/manifests/t0000", nil, 0, http.StatusOK)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	for n := 1; n < manyTags; n++ {
		if err := p.do(ctx, http.MethodPut, fmt.Sprintf("/v2/many/manifests/t%04d", n), body, http.StatusCreated); err != nil {
			return err
		}
	}
	return nil
}
