package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/internal/oci"
)

// pullFlags is what larder pull is told.
type pullFlags struct {
	mirror   string
	platform string
	parallel int
}

func newPull() *cobra.Command {
	var f pullFlags
	cmd := &cobra.Command{
		Use:   "pull IMAGE …",
		Short: "Have the mirror bring images in before they are needed",
		Long: `Asks the mirror for images as a client's pull does, checks every byte, and keeps
nothing itself: afterwards the mirror has them, and the next pull comes from its
disk. Images that only callers' credentials fetch cannot be warmed.

  larder pull docker.io/library/nginx:1.27 ghcr.io/org/app@sha256:…

Exit codes: 0 all images are warm; 1 one is not; 2 usage.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, images []string) error { return runPull(cmd, f, images) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.mirror, "mirror", "http://127.0.0.1:8000", "`URL` of the mirror")
	flags.StringVar(&f.platform, "platform", "linux/"+runtime.GOARCH, "`OS/ARCH` or OS/ARCH/VARIANT to choose from an index")
	flags.IntVar(&f.parallel, "parallel", 3, "how many blobs to ask for at a time")
	return cmd
}

func runPull(cmd *cobra.Command, f pullFlags, images []string) error {
	base, err := url.Parse(f.mirror)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || strings.Trim(base.Path, "/") != "" {
		return usageErrorf("--mirror %s: write a URL such as http://127.0.0.1:8000", f.mirror)
	}
	if f.parallel < 1 || f.parallel > 64 {
		return usageErrorf("--parallel %d: write a number from 1 to 64", f.parallel)
	}
	if os, arch, ok := strings.Cut(f.platform, "/"); !ok || os == "" || arch == "" {
		return usageErrorf("--platform %s: write an operating system and an architecture, as linux/arm64", f.platform)
	}
	refs := make([]oci.Reference, len(images))
	for i, image := range images {
		if refs[i], err = oci.ParseReference(image); err != nil {
			return usageErrorf("%s: %v", image, err)
		}
	}
	stop, _, release := signals(cmd.Context())
	defer release()
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		ResponseHeaderTimeout: time.Minute, MaxIdleConnsPerHost: f.parallel,
	}
	defer transport.CloseIdleConnections()
	failed := 0
	for _, ref := range refs {
		p := &puller{
			http: &http.Client{Transport: transport}, base: base, ref: ref, platform: f.platform, parallel: f.parallel,
			progress: newProgress(cmd.OutOrStdout(), ref.String()),
		}
		if err := p.pull(stop); err != nil {
			failed++
			p.progress.failed(err)
			if stop.Err() != nil {
				return errInterrupted
			}
			continue
		}
		p.progress.done()
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d images are not warm", failed, len(refs))
	}
	return nil
}

// puller asks the mirror for one image.
type puller struct {
	http     *http.Client
	base     *url.URL
	ref      oci.Reference
	platform string
	parallel int
	progress *progress
}

// pulledManifest is what an index or image manifest lists.
type pulledManifest struct {
	Manifests []struct {
		Digest   digest.Digest
		Platform struct{ OS, Architecture, Variant string }
	}
	Config oci.Descriptor
	Layers []struct {
		oci.Descriptor
		URLs []string
	}
}

func (p *puller) pull(ctx context.Context) error {
	m, err := p.manifest(ctx, p.ref.Target())
	if err != nil {
		return err
	}
	if len(m.Manifests) > 0 {
		child, err := p.choose(m)
		if err != nil {
			return err
		}
		if m, err = p.manifest(ctx, child.String()); err != nil {
			return err
		}
	}
	blobs := []oci.Descriptor{m.Config}
	for _, layer := range m.Layers {
		if len(layer.URLs) == 0 {
			blobs = append(blobs, layer.Descriptor)
		}
	}
	p.progress.expect(blobs)
	return p.blobs(ctx, blobs)
}

// choose finds the image for the platform asked for.
func (p *puller) choose(m pulledManifest) (digest.Digest, error) {
	var others []string
	for _, child := range m.Manifests {
		is := child.Platform.OS + "/" + child.Platform.Architecture
		full := strings.TrimRight(is+"/"+child.Platform.Variant, "/")
		if p.platform == is || p.platform == full {
			return child.Digest, nil
		}
		others = append(others, full)
	}
	return "", fmt.Errorf("no image for %s, only for %s", p.platform, strings.Join(others, ", "))
}

// blobs asks for some at a time; the first failure ends the others. The
// goroutines end with their blob.
func (p *puller) blobs(ctx context.Context, blobs []oci.Descriptor) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, p.parallel)
	var group sync.WaitGroup
	for _, b := range blobs {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := p.blob(ctx, b); err != nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// manifest fetches an image manifest by tag or digest.
func (p *puller) manifest(ctx context.Context, target string) (m pulledManifest, err error) {
	resp, err := p.get(ctx, "manifests/"+target)
	if err != nil {
		return m, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, oci.MaxManifestSize+1))
	if err != nil {
		return m, fmt.Errorf("read image manifest %s: %w", target, err)
	}
	if dgst, err := oci.ParseDigest(target); err == nil && dgst.Algorithm().FromBytes(raw) != dgst {
		return m, fmt.Errorf("image manifest %s came with other bytes", target)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("read image manifest %s: %w", target, err)
	}
	return m, nil
}

// blob has the mirror bring one blob in, and checks it.
func (p *puller) blob(ctx context.Context, b oci.Descriptor) error {
	if err := b.Digest.Validate(); err != nil {
		return fmt.Errorf("image manifest lists a blob %q: %w", b.Digest, err)
	}
	resp, err := p.get(ctx, "blobs/"+b.Digest.String())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	verifier := b.Digest.Verifier()
	if _, err := io.Copy(io.MultiWriter(verifier, p.progress), resp.Body); err != nil {
		return fmt.Errorf("read blob %s: %w", b.Digest, err)
	}
	if !verifier.Verified() {
		return fmt.Errorf("blob %s came with other bytes", b.Digest)
	}
	return nil
}

// get asks the mirror as containerd does. Its errors say what the mirror said.
func (p *puller) get(ctx context.Context, what string) (*http.Response, error) {
	u := *p.base
	u.Path = "/v2/" + p.ref.Repository + "/" + what
	u.RawQuery = url.Values{"ns": {p.ref.Registry}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("User-Agent", "larder/"+versionText()+" (pull)")
	req.Header.Set("Accept", strings.Join([]string{
		oci.MediaTypeIndex, oci.MediaTypeManifest, oci.MediaTypeDockerList, oci.MediaTypeDockerManifest, "*/*",
	}, ", "))
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the mirror at %s: %w", p.base.Host, errors.Unwrap(err))
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var said struct {
		Errors []struct{ Code, Message string }
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && json.Unmarshal(raw, &said) == nil && len(said.Errors) > 0 {
		return nil, fmt.Errorf("%s: the mirror says %s: %s: %s", what, resp.Status, said.Errors[0].Code, said.Errors[0].Message)
	}
	return nil, fmt.Errorf("%s: the mirror says %s", what, resp.Status)
}
