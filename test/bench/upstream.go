package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

// order is what the benchmark tells the upstream's process. Only what is set is
// done.
type order struct {
	// Image adds an image with layers of these sizes in bytes under Repo and
	// Tag, an index of one platform as most images are. Its content is made of
	// Seed.
	Repo, Tag string
	Image     []int64
	Seed      uint64
	// Shape sets latency and bytes a second on one connection.
	Shape   bool
	Latency time.Duration
	Rate    int64
	// Mode is "normal", "refused", "503" or "silent".
	Mode string
	// Forget empties the count.
	Forget bool
}

// news is what the upstream answers.
type news struct {
	// The image, if one was ordered.
	Manifest digest.Digest
	Config   digest.Digest
	Layers   []digest.Digest
	// Size of config and layers together, in bytes.
	Size int64
	// Requests, and what was Sent of blobs, in bytes by digest, since the last Forget.
	Requests int
	Sent     map[digest.Digest]int64
}

// serveUpstream is the upstream's process: a capped registry, and beside it an
// address that takes orders.
func serveUpstream(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench upstream", flag.ContinueOnError)
	addr := flags.String("listen", "", "address of the registry")
	control := flags.String("control", "", "address that takes orders")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	reg, err := registry.New(registry.Options{
		Addr: *addr, Basic: true, Users: map[string]string{privateUser: privateSecret}, Anonymous: []string{publicRepo},
	})
	if err != nil {
		return fmt.Errorf("start registry: %w", err)
	}
	defer reg.Close()
	srv := &http.Server{Addr: *control, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var o order
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil && err != io.EOF {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		n, err := obey(reg, o)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		json.NewEncoder(w).Encode(n)
	})}
	context.AfterFunc(ctx, func() { srv.Close() })
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		return fmt.Errorf("serve control: %w", err)
	}
	return nil
}

// obey does what o orders and reports.
func obey(reg *registry.Server, o order) (news, error) {
	var n news
	if o.Forget {
		reg.Forget()
	}
	if o.Image != nil {
		var layers []registry.Layer
		for i, size := range o.Image {
			layers = append(layers, registry.NewLayer(o.Seed<<16|uint64(i), size))
		}
		img := reg.AddPlatform(o.Repo, "", "amd64", layers...)
		reg.AddIndex(o.Repo, o.Tag, img)
		n.Manifest, n.Config = img.Digest, img.Config.Digest
		n.Size = img.Config.Size()
		for _, l := range img.Layers {
			n.Layers = append(n.Layers, l.Digest)
			n.Size += l.Size()
		}
	}
	if o.Shape {
		reg.Shape(o.Latency, o.Rate)
	}
	switch o.Mode {
	case "normal":
		reg.Set()
		if err := reg.Resume(); err != nil {
			return n, fmt.Errorf("resume registry: %w", err)
		}
	case "refused":
		reg.Stop()
	case "503":
		reg.Set(registry.Fault{Status: http.StatusServiceUnavailable})
	case "silent":
		reg.Silence()
	}
	n.Sent = map[digest.Digest]int64{}
	for _, r := range reg.Requests() {
		n.Requests++
		if d := digest.Digest(r.Target); r.Kind == registry.Blobs && d.Validate() == nil {
			n.Sent[d] += r.Sent
		}
	}
	return n, nil
}

// upstream is the upstream's process as the benchmark sees it.
type upstream struct {
	proc    *process.Process
	addr    string // of the registry, as it stands in references
	control string
	images  uint64
}

// tell gives an order.
func (u *upstream) tell(ctx context.Context, o order) (news, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return news{}, fmt.Errorf("encode order: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.control, bytes.NewReader(b))
	if err != nil {
		return news{}, fmt.Errorf("make request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return news{}, fmt.Errorf("order of upstream: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return news{}, fmt.Errorf("order of upstream: %s: %s", resp.Status, text)
	}
	var n news
	if err := json.NewDecoder(resp.Body).Decode(&n); err != nil {
		return news{}, fmt.Errorf("read upstream's answer: %w", err)
	}
	return n, nil
}

// image is one at the upstream.
type image struct {
	news
	repo, tag string
}

// add puts an image there that nobody has seen, with layers of these sizes in
// MiB, and empties the count.
func (u *upstream) add(ctx context.Context, mib ...int64) (image, error) {
	sizes := make([]int64, len(mib))
	for i, m := range mib {
		sizes[i] = m << 20
	}
	return u.addSizes(ctx, sizes)
}

// addSizes is add with sizes in bytes.
func (u *upstream) addSizes(ctx context.Context, sizes []int64) (image, error) {
	return u.addTo(ctx, publicRepo, sizes)
}

// addTo is addSizes in another repository.
func (u *upstream) addTo(ctx context.Context, repo string, sizes []int64) (image, error) {
	u.images++
	o := order{Repo: repo, Tag: fmt.Sprintf("v%d", u.images), Seed: u.images, Image: sizes, Forget: true}
	n, err := u.tell(ctx, o)
	return image{n, o.Repo, o.Tag}, err
}

// sent is how many bytes of img's config and layers left the upstream since the last Forget.
func (u *upstream) sent(ctx context.Context, img image) (int64, error) {
	n, err := u.tell(ctx, order{})
	sum := n.Sent[img.Config]
	for _, l := range img.Layers {
		sum += n.Sent[l]
	}
	return sum, err
}
