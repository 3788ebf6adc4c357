package mirror

import (
	"cmp"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/status"
	"github.com/larder-registry/larder/store"
)

// maxListedImages bounds the images that Images looks at.
const maxListedImages = 20_000

// maxPeek bounds the image manifests and configs read for what platforms an
// image has, in bytes. Those of real images have a few thousand.
const maxPeek = 512 << 10

// Fills tells of the blobs being brought in, the largest first, and of at most n
// of them.
func (m *Mirror) Fills(n int) *status.List[status.Fill] {
	m.fills.mu.Lock()
	running := make([]*fill, 0, len(m.fills.of))
	for _, f := range m.fills.of {
		running = append(running, f)
	}
	m.fills.mu.Unlock()
	all := make([]status.Fill, len(running))
	for i, f := range running {
		all[i] = f.status()
	}
	slices.SortFunc(all, func(a, b status.Fill) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Digest, b.Digest))
	})
	return status.First(all, n)
}

// status tells how far the fill has come.
func (f *fill) status() status.Fill {
	s := status.Fill{
		Registry: f.name.Registry, Repository: f.name.Repository, Digest: f.dgst.String(), Size: -1, Began: f.began,
		Private: f.m.gate.standing(f.name).exposure != public,
	}
	var had int64
	select {
	case <-f.opened:
		s.Size, had = f.size, f.had
	default:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.Size >= 0 {
		for _, span := range f.held {
			s.Bytes += span.Len()
		}
	}
	s.Followers, s.Streams, s.Ahead = f.followers, len(f.fetchers), f.lead != nil
	if took := f.m.now().Sub(f.began).Seconds(); took > 0 {
		s.Rate = int64(float64(max(s.Bytes-had, 0)) / took)
	}
	return s
}

// Images tells of the images that are held, in no order, of at most 20,000, and
// counts all. It says nothing of their platforms: see Platforms.
func (m *Mirror) Images() (images []status.Image, total int) {
	total = m.store.Holdings(func(h *store.Holding) {
		if len(images) < maxListedImages {
			images = append(images, imageOf(h))
		}
	})
	return images, total
}

func imageOf(h *store.Holding) status.Image {
	i := status.Image{
		Registry: h.Registry, Repository: h.Repository, Tag: h.Tag, Digest: h.Root.String(),
		Kind: h.MediaType, Size: h.Size, Used: h.Used, Confirmed: h.Confirmed,
		Pinned: h.Pinned, Partial: h.Partial, Private: h.Exposure != string(public),
	}
	switch {
	case oci.IsIndexType(h.MediaType):
		i.Kind = "index"
	case oci.IsManifestType(h.MediaType):
		i.Kind = "image"
	}
	return i
}

// Platforms tells for which platforms an image is held, of how many it has. What
// cannot be read has none.
func (m *Mirror) Platforms(image *status.Image) (held []string, listed int) {
	root, err := oci.ParseDigest(image.Digest)
	if err != nil {
		return nil, 0
	}
	read := func(dgst digest.Digest) []byte {
		content, err := m.store.Peek(dgst, maxPeek)
		if err != nil {
			return nil
		}
		return content
	}
	holds := func(dgst digest.Digest) bool {
		_, err := m.store.Stat(dgst)
		return err == nil
	}
	return status.Platforms(root, image.Kind == "index", read, holds)
}
