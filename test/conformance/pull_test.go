package conformance

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// TestPull is everything that only reads (end-1, end-2, end-3, end-8, end-12),
// asked of the central registry and of a mirror before it.
func TestPull(t *testing.T) {
	central := startCentral(t)
	const repository = "team/app"
	content, zero := random("pulled", 2048), []byte{}
	blob := string(central.pushBlob(repository, content))
	nothing := string(central.pushBlob(repository, zero))
	image := central.image(repository, "pulled-image")
	central.put(repository, "v1", image).want(201)
	central.put(repository, "v2", image).want(201)
	index := manifest(oci.MediaTypeIndex, map[string]any{"manifests": []descriptor{describe(oci.MediaTypeManifest, image)}})
	central.put(repository, "all", index).want(201)
	large := manifest(oci.MediaTypeManifest, map[string]any{
		"config": describe(typeConfig, content), "layers": []descriptor{}, "annotations": map[string]string{"long": string(random("long", 3_900_000))},
	})
	central.put(repository, "large", large).want(201)
	signature := manifest(oci.MediaTypeManifest, map[string]any{
		"config": describe(typeConfig, content), "layers": []descriptor{}, "subject": describe(oci.MediaTypeManifest, image),
	})
	central.put(repository, string(digest.FromBytes(signature)), signature).want(201)
	mirror := startMirror(t, central)

	for _, target := range []struct {
		name     string
		registry *registry
	}{{"central", central}, {"mirror, cold", mirror}, {"mirror, warm", mirror}} {
		t.Run(target.name, func(t *testing.T) {
			r := target.registry.in(t)
			r.do("GET", "/v2/", nil).want(200)
			blobs, manifests := "/v2/"+repository+"/blobs/", "/v2/"+repository+"/manifests/"

			header := []string{"Docker-Content-Digest", blob, "Content-Length", "2048", "Transfer-Encoding", "", "Content-Encoding", ""}
			r.do("HEAD", blobs+blob, nil, "Accept-Encoding", "gzip").want(200, header...).is(nil)
			r.do("GET", blobs+blob, nil, "Accept-Encoding", "gzip").want(200, header...).is(content)
			r.do("HEAD", blobs+nothing, nil).want(200, "Content-Length", "0")
			r.do("GET", blobs+nothing, nil).want(200, "Content-Length", "0").is(zero)
			for _, tt := range []struct {
				asked, got string
				want       []byte
			}{
				{"500-1499", "500-1499", content[500:1500]},
				{"500-", "500-2047", content[500:]},
				{"-500", "1548-2047", content[1548:]},
				{"2000-5000", "2000-2047", content[2000:]},
				{"0-0", "0-0", content[:1]},
			} {
				r.do("GET", blobs+blob, nil, "Range", "bytes="+tt.asked).
					want(206, "Content-Range", "bytes "+tt.got+"/2048", "Content-Length", strconv.Itoa(len(tt.want))).is(tt.want)
			}
			for _, bad := range []string{"500-0", "5000-10000", "2048-"} {
				r.do("GET", blobs+blob, nil, "Range", "bytes="+bad).refused(416, "RANGE_INVALID")
			}
			missing := string(digest.FromString("missing"))
			r.do("GET", blobs+missing, nil).refused(404, "BLOB_UNKNOWN")
			r.do("HEAD", blobs+missing, nil).want(404)
			r.do("GET", blobs+"sha256:bad", nil).refused(400, "DIGEST_INVALID")

			for tag, body := range map[string][]byte{"v1": image, "v2": image, "all": index, "large": large} {
				mediaType := oci.MediaTypeManifest
				if tag == "all" {
					mediaType = oci.MediaTypeIndex
				}
				dgst := string(digest.FromBytes(body))
				header := []string{"Content-Type", mediaType, "Docker-Content-Digest", dgst, "Content-Length", strconv.Itoa(len(body))}
				for _, reference := range []string{tag, dgst} {
					r.do("HEAD", manifests+reference, nil, "Accept", "*/*").want(200, header...).is(nil)
					r.do("GET", manifests+reference, nil, "Accept", mediaType).want(200, header...).is(body)
				}
			}
			for _, reference := range []string{"missing", missing, ".INVALID_MANIFEST_NAME", "sha256:baddigeststring"} {
				r.do("GET", manifests+reference, nil).want(404, "Content-Type", "application/json")
				r.do("HEAD", manifests+reference, nil).want(404)
			}

			tags := []string{"all", "large", "v1", "v2"}
			if got := r.do("GET", "/v2/"+repository+"/tags/list", nil).list("tags"); target.name == "central" && !slices.Equal(got, tags) {
				t.Errorf("tags %q", got)
			}
			got := r.referrersOf(repository, digest.FromBytes(image), "")
			if len(got) != 1 || got[0].Digest != digest.FromBytes(signature) || got[0].ArtifactType != typeConfig {
				t.Errorf("referrers %+v", got)
			}
			if got := r.referrersOf(repository, digest.FromString("missing"), ""); len(got) != 0 {
				t.Errorf("referrers of nothing: %+v", got)
			}
		})
	}
}

// TestTwoThousandTags is that long lists are whole, and in order.
func TestTwoThousandTags(t *testing.T) {
	r := startCentral(t)
	image := r.image("team/app", "many")
	dgst := string(digest.FromBytes(image))
	var all []string
	for i := range 2000 {
		all = append(all, fmt.Sprintf("v%04d", i))
	}
	for part := range slices.Chunk(all, 25) {
		query := ""
		for _, tag := range part {
			query += "&tag=" + tag
		}
		r.do("PUT", "/v2/team/app/manifests/"+dgst+"?"+query[1:], image, "Content-Type", oci.MediaTypeManifest).want(201)
	}
	if got := r.do("GET", "/v2/team/app/tags/list", nil).list("tags"); !slices.Equal(got, all) {
		t.Errorf("%d tags", len(got))
	}
}
