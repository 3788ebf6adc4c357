package central

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/status"
)

// platformed pushes an image for a platform and gives its manifest.
func (f *fixture) platformed(repository, platform, layer string) []byte {
	f.t.Helper()
	text := fmt.Appendf(nil, `{"os":"linux","architecture":%q}`, platform)
	config, blob := f.push(repository, text), f.push(repository, []byte(layer))
	return fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"digest":%q,"size":%d}]}`, config, len(text), blob, len(layer))
}

func TestSurvey(t *testing.T) {
	f := newFixture(t, Config{})
	amd, arm := f.platformed("a", "amd64", "layer of amd64"), f.platformed("a", "arm64", "layer of arm64, longer")
	first, second := f.mustPut("a", amd), f.mustPut("a", arm)
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":"amd64"}},{"mediaType":%[2]q,"digest":%[5]q,"size":%[6]d,"platform":{"os":"linux","architecture":"arm64"}}]}`,
		oci.MediaTypeIndex, oci.MediaTypeManifest, first, len(amd), second, len(arm))
	root := f.mustPut("a", index, "v1", "latest")
	config, payload := f.push("a", []byte("{}")), f.push("a", []byte("signature"))
	referrer := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.test.signature","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"digest":%q,"size":9}],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		oci.MediaTypeManifest, config, payload, oci.MediaTypeIndex, root, len(index))
	f.mustPut("a", referrer, "sig")
	other := f.mustPut("b/c", f.platformed("b/c", "amd64", "layer of amd64"), "x")

	s, err := f.Survey(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	const configSize = int64(len(`{"os":"linux","architecture":"amd64"}`))
	whole := int64(len(amd)+len(arm)+len(index)+len("layer of amd64")+len("layer of arm64, longer")) + 2*configSize
	repository := func(name string) status.Repository {
		i := slices.IndexFunc(s.Repositories, func(r status.Repository) bool { return r.Name == name })
		if i < 0 {
			t.Fatalf("no repository %s in %+v", name, s.Repositories)
		}
		return s.Repositories[i]
	}
	if r := repository("a"); r.Tags != 3 || r.Manifests != 4 || r.Referrers != 1 || r.Size != whole+int64(len(referrer))+2+9 || r.Pushed.Unix() != f.clock.Unix() {
		t.Errorf("%+v", r)
	}
	if r := repository("b/c"); r.Tags != 1 || r.Manifests != 1 || r.Referrers != 0 {
		t.Errorf("%+v", r)
	}
	image := func(s *Survey, name, tag string) status.Image {
		i := slices.IndexFunc(s.Images, func(i status.Image) bool { return i.Repository == name && i.Tag == tag })
		if i < 0 {
			t.Fatalf("no image %s:%s in %+v", name, tag, s.Images)
		}
		return s.Images[i]
	}
	if i := image(s, "a", "latest"); i.Digest != root.String() || i.Kind != "index" || i.Size != whole || !slices.Equal(i.Platforms, []string{"linux/amd64", "linux/arm64"}) || i.Listed != 2 || i.Referrers != 1 || !i.Pushed.Equal(f.clock) {
		t.Errorf("%+v", i)
	}
	if i := image(s, "a", "sig"); i.Kind != "application/vnd.test.signature" || i.Size != int64(len(referrer))+2+9 || i.Platforms != nil {
		t.Errorf("%+v", i)
	}
	if i := image(s, "b/c", "x"); i.Digest != other.String() || i.Kind != "image" || !slices.Equal(i.Platforms, []string{"linux/amd64"}) || i.Referrers != 0 {
		t.Errorf("%+v", i)
	}
	if len(s.Repositories) != 2 || len(s.Images) != 4 || s.Total != 4 || s.Blobs != 10 {
		t.Errorf("%d repositories, %d images of %d, %d pieces of content", len(s.Repositories), len(s.Images), s.Total, s.Blobs)
	}

	// What was looked into before is not looked into again.
	known := s.known[root]
	known.size++
	s.known[root] = known
	again, err := f.Survey(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if i := image(again, "a", "v1"); i.Size != whole+1 {
		t.Errorf("%d bytes, want %d", i.Size, whole+1)
	}
	if again.Bytes != s.Bytes {
		t.Errorf("%d bytes, before %d", again.Bytes, s.Bytes)
	}
}

// BenchmarkSurvey looks at 10,000 tags.
func BenchmarkSurvey(b *testing.B) {
	f := newFixture(b, Config{})
	for i := range 10_000 {
		name := fmt.Sprintf("team/%d", i%100)
		key, value := manifestKey(name, digest.FromString(fmt.Sprint(i))), manifestRecord{MediaType: oci.MediaTypeManifest, Size: 500, At: 1}
		for k, v := range map[string]any{key: value, tagKey(name, fmt.Sprint(i)): tagRecord{Digest: digest.FromString(fmt.Sprint(i)), At: 1}} {
			text, err := json.Marshal(v)
			if err != nil {
				b.Fatal(err)
			}
			if err := f.ledger.Create(b.Context(), k, text); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if s, err := f.Survey(b.Context(), nil); err != nil || len(s.Images) != 10_000 {
			b.Fatal(err)
		}
	}
}
