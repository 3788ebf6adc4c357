package nodeconfig

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"
)

// checkPull has the runtime pull an image, and reads from the mirror's own
// counters what of it came through the mirror. Pulls that others make on the
// node meanwhile are counted along.
func (d *doctor) checkPull(ctx context.Context, socket string) {
	if socket == "" {
		d.say("pull", Unknown, d.target.Name()+" has no interface for kubelets, so none was made", "pull an image by hand, and look at larder_requests_total at "+d.cfg.Admin+"/metrics")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.cfg.PullTimeout, 5*time.Minute))
	defer cancel()
	host, err := d.node.host(socket)
	if err != nil {
		d.say("pull", Bad, err.Error(), "")
		return
	}
	c := newCRI(host)
	defer c.close()
	image := fullReference(d.cfg.Pull)
	before, err := scrape(ctx, d.cfg.Admin)
	if err != nil {
		d.say("pull", Bad, "nothing was pulled, since nothing could be proved: "+err.Error(), "name the mirror's port for operators by --admin")
		return
	}
	had, err := c.hasImage(ctx, image)
	if err != nil {
		d.say("pull", Bad, fmt.Sprintf("ask the runtime at %s: %v", socket, err), "is it running, and is its CRI plugin loaded?")
		return
	}
	started := d.now()
	if _, err := c.pull(ctx, image); err != nil {
		d.say("pull", Bad, fmt.Sprintf("pull %s: %v", image, err), "")
		return
	}
	took := d.now().Sub(started).Round(time.Millisecond)
	after, err := scrape(ctx, d.cfg.Admin)
	if err != nil {
		d.say("pull", Bad, err.Error(), "")
		return
	}
	d.judgePull(ctx, image, had, took, after.since(before))
}

// judgePull says what the counters prove.
func (d *doctor) judgePull(ctx context.Context, image string, had bool, took time.Duration, counted samples) {
	registry, _, _ := strings.Cut(image, "/")
	manifests, blobs := through(counted, registry, "manifest"), through(counted, registry, "blob")
	text := fmt.Sprintf("pulled %s in %s; the mirror answered %.0f requests for image manifests and %.0f for blobs, %.0f bytes (%s)",
		image, took, manifests, blobs, counted.sum("larder_served_bytes_total", nil), outcomes(counted))
	layers, known := d.layers(ctx, image)
	switch {
	case manifests == 0 && had:
		d.say("pull", Bad, text+"; nothing is proved, because the node had the image already", "name an image the node does not have")
	case manifests == 0:
		d.say("pull", Bad, text+": it came past the mirror", d.initRemedy())
	case had:
		d.say("pull", Doubtful, text+"; the node had the image already, so its layers were not asked for", "name an image the node does not have")
	case blobs == 0, known && layers > 0 && blobs == 1:
		d.say("pull", Bad, text+": the image manifest came through the mirror, and no layer did", "look at snapshotter; if the node had the layers from another image, name one that shares none with it")
	case known && int(blobs) < layers+1:
		d.say("pull", Doubtful, fmt.Sprintf("%s, of %d layers and a config; the others were on the node, or came past the mirror", text, layers), "to be sure, name an image that shares no layer with others")
	default:
		d.say("pull", Good, text, "")
	}
}

// through counts the requests for a kind of content that the mirror answered
// with it. A registry that has no label of its own is among "other".
func through(counted samples, registry, kind string) (n float64) {
	for _, label := range []string{registry, "other"} {
		for _, code := range []string{"200", "206"} {
			n += counted.sum("larder_requests_total", map[string]string{"registry": label, "kind": kind, "code": code})
		}
	}
	return n
}

// outcomes lists how often the mirror answered in which way: "fill 3, hit 2".
func outcomes(counted samples) string {
	counts := map[string]float64{}
	var names []string
	for _, one := range counted {
		if kind := one.labels["kind"]; one.name != "larder_requests_total" || kind != "manifest" && kind != "blob" {
			continue
		}
		name := one.labels["outcome"]
		if code := one.labels["code"]; code != "200" && code != "206" {
			name += " " + code
		}
		if counts[name] == 0 {
			names = append(names, name)
		}
		counts[name] += one.value
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %.0f", name, counts[name])
	}
	return joined(names, "no request")
}

// imageManifest is an image manifest or an index, as far as it counts layers.
type imageManifest struct {
	Layers []struct {
		Digest string `json:"digest"`
	} `json:"layers"`
	Manifests []platformManifest `json:"manifests"`
}

type platformManifest struct {
	Digest   string `json:"digest"`
	Platform struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	} `json:"platform"`
}

// layers asks the mirror, which has the image now, how many layers the node's
// platform has of it.
func (d *doctor) layers(ctx context.Context, image string) (n int, known bool) {
	registry, rest, _ := strings.Cut(image, "/")
	repository, reference, ok := strings.Cut(rest, "@")
	if !ok {
		i := strings.LastIndexByte(rest, ':')
		repository, reference = rest[:i], rest[i+1:]
	}
	for range 2 { // an index, then the platform's
		raw, err := probe(ctx, "http://"+d.mirror.String()+"/v2/"+repository+"/manifests/"+reference+"?ns="+registry, http.StatusOK)
		if err != nil {
			return 0, false
		}
		var manifest imageManifest
		if json.Unmarshal(raw, &manifest) != nil {
			return 0, false
		}
		if len(manifest.Manifests) == 0 {
			var digests []string
			for _, l := range manifest.Layers {
				digests = append(digests, l.Digest)
			}
			slices.Sort(digests)
			return len(slices.Compact(digests)), true
		}
		i := slices.IndexFunc(manifest.Manifests, func(p platformManifest) bool {
			return p.Platform.OS == "linux" && p.Platform.Architecture == runtime.GOARCH
		})
		if i < 0 {
			return 0, false
		}
		reference = manifest.Manifests[i].Digest
	}
	return 0, false
}

// fullReference gives an image its registry, Docker's "library/" and a tag, as
// kubelets do (distribution's reference.ParseNormalizedNamed).
func fullReference(image string) string {
	first, _, slash := strings.Cut(image, "/")
	if !slash || !strings.ContainsAny(first, ".:") && first != "localhost" {
		if !slash {
			image = "library/" + image
		}
		image = "docker.io/" + image
	}
	last := image[strings.LastIndexByte(image, '/')+1:]
	if !strings.ContainsAny(last, ":@") {
		image += ":latest"
	}
	return image
}
