package mirror

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// bypassedAfter is how long after its manifest was taken an image whose
	// layers nobody asked for counts as bypassed, and bypassedFor how long it
	// does. A client asks for layers within a second; it may be slow.
	bypassedAfter = 2 * time.Minute
	bypassedFor   = time.Hour
	// maxBypassed bounds the images that are watched, and maxAskedFor the
	// blobs that are known to have been asked for.
	maxBypassed = 1024
	maxAskedFor = 16384
)

// bypassed watches for images whose manifest was taken here and whose layers
// were not: some snapshotters fetch those past every mirror, and so does a
// client that is let down halfway. It is a hint and no proof, because a client
// asks for no layer it has already. Only what is asked for counts, whatever
// became of it.
type bypassed struct {
	mu     sync.Mutex
	images map[content]watched
	layers map[digest.Digest][]content // the images watched, by layer
	asked  map[digest.Digest]struct{}
	looked looks
}

// watched is an image whose manifest was taken, and no layer yet.
type watched struct {
	since  time.Time
	layers []digest.Digest
}

// taken notes that a client took an image manifest.
func (b *bypassed) taken(name oci.Name, manifest oci.Manifest, now time.Time) {
	if oci.IsIndexType(manifest.MediaType) {
		return
	}
	c := content{name, manifest.Digest}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.images[c]; ok || !b.looked.due(c, now) {
		return
	}
	var l listed
	if json.Unmarshal(manifest.Bytes, &l) != nil {
		return
	}
	var layers []digest.Digest
	for _, layer := range l.Layers {
		if _, ok := b.asked[layer.Digest]; ok {
			return
		}
		if len(layer.URLs) == 0 && layer.Digest.Validate() == nil {
			layers = append(layers, layer.Digest)
		}
	}
	if len(b.images) >= maxBypassed {
		b.expire(now)
	}
	if len(layers) == 0 || len(b.images) >= maxBypassed {
		return
	}
	if b.images == nil {
		b.images, b.layers = map[content]watched{}, map[digest.Digest][]content{}
	}
	b.images[c] = watched{now, layers}
	for _, layer := range layers {
		b.layers[layer] = append(b.layers[layer], c)
	}
}

// wanted notes that a client asked for a blob.
func (b *bypassed) wanted(dgst digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked == nil || len(b.asked) >= maxAskedFor {
		b.asked = map[digest.Digest]struct{}{}
	}
	b.asked[dgst] = struct{}{}
	for _, c := range slices.Clone(b.layers[dgst]) {
		b.drop(c)
	}
}

// drop watches an image no longer. The caller holds mu.
func (b *bypassed) drop(c content) {
	for _, layer := range b.images[c].layers {
		b.layers[layer] = slices.DeleteFunc(b.layers[layer], func(other content) bool { return other == c })
		if len(b.layers[layer]) == 0 {
			delete(b.layers, layer)
		}
	}
	delete(b.images, c)
}

// expire drops what was taken long ago. The caller holds mu.
func (b *bypassed) expire(now time.Time) {
	for c, w := range b.images {
		if now.Sub(w.since) > bypassedFor {
			b.drop(c)
		}
	}
}

// count is how many images of each registry are bypassed.
func (b *bypassed) count(now time.Time) map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire(now)
	counts := map[string]int{}
	for c, w := range b.images {
		if now.Sub(w.since) >= bypassedAfter {
			counts[c.Registry]++
		}
	}
	return counts
}
