package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// size is what a test does in the quick suite, and with -full.
func size(quick, full int) int {
	if *fullFlag {
		return full
	}
	return quick
}

// TestCentralLargeLayer pushes one layer of 5 GiB (quick: 64 MiB) with oras, and
// reads it back whole and in part.
func TestCentralLargeLayer(t *testing.T) {
	c := startCentral(t, "")
	k := newKit(t, c)
	length := int64(size(64<<20, 5<<30)) + 1 // a size that is no multiple of anything
	layer := write(t, k.dir, "layer", "")
	// Sparse, but for a mark at its start and its end.
	f, err := os.OpenFile(layer, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, length - 4} {
		if _, err := f.WriteAt([]byte("mark"), at); err != nil {
			t.Fatal(err)
		}
	}
	want, err := sum(layer)
	if err != nil {
		t.Fatal(err)
	}
	oras := bin(t, "oras")
	k.run(oras, "login", "-u", alice, "-p", alicePassword, c.addr)
	k.run(oras, "push", "--disable-path-validation", c.addr+"/team-a/large:v1", layer+":application/vnd.oci.image.layer.v1.tar")
	_, raw := c.must(t, 200, "GET", "/v2/team-a/large/manifests/v1", nil, "Accept", acceptManifests)
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil || len(m.Layers) != 1 || m.Layers[0].Digest != want || m.Layers[0].Size != length {
		t.Fatalf("%s, %v", raw, err)
	}
	header, part := c.must(t, 206, "GET", "/v2/team-a/large/blobs/"+want, nil, "Range", fmt.Sprintf("bytes=%d-", length-4))
	if string(part) != "mark" || header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", length-4, length-1, length) {
		t.Errorf("its end is %q, %s", part, header.Get("Content-Range"))
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+c.addr+"/v2/team-a/large/blobs/"+want, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(bob, bobPassword)
	res, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	h := sha256.New()
	n, err := io.Copy(h, res.Body)
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); err != nil || n != length || got != want {
		t.Errorf("read back %d bytes of %s, %v, want %d of %s", n, got, err, length, want)
	}
}

// TestCentralManyTags lists a repository of 2,000 tags (quick: 200) with the
// clients that list.
func TestCentralManyTags(t *testing.T) {
	c := startCentral(t, "")
	k := newKit(t, c)
	image := c.smallImage(t, "team-a/many")
	var want []string
	for i := range size(200, 2000) {
		want = append(want, fmt.Sprintf("v1.%d", i))
	}
	c.each(t, len(want), func(i int) {
		c.must(t, 201, "PUT", "/v2/team-a/many/manifests/"+want[i], strings.NewReader(image), "Content-Type", imageType)
	})
	slices.Sort(want)
	repository := c.addr + "/team-a/many"
	// Not crane: it takes a registry on loopback for one without TLS, and then
	// does not follow a list to its next page.
	k.run(bin(t, "oras"), "login", "-u", alice, "-p", alicePassword, c.addr)
	if got := strings.Fields(k.run(bin(t, "oras"), "repo", "tags", repository)); !slices.Equal(got, want) {
		t.Errorf("oras lists %d tags, want %d: %.200v", len(got), len(want), got)
	}
	var listed struct{ Tags []string }
	if err := json.Unmarshal([]byte(k.run("/usr/bin/skopeo", "list-tags", "--authfile", k.dir+"/docker/config.json", "docker://"+repository)), &listed); err != nil || !slices.Equal(listed.Tags, want) {
		t.Errorf("skopeo lists %d tags, want %d, %v", len(listed.Tags), len(want), err)
	}
	k.run(bin(t, "regctl"), "registry", "login", "-u", alice, "-p", alicePassword, c.addr)
	if got := strings.Fields(k.run(bin(t, "regctl"), "tag", "ls", repository)); !slices.Equal(got, want) {
		t.Errorf("regctl lists %d tags, want %d", len(got), len(want))
	}
	var paged []string
	pages := 0
	for next := "/v2/team-a/many/tags/list?n=150"; next != ""; pages++ {
		header, body := c.must(t, 200, "GET", next, nil)
		var page struct{ Tags []string }
		if err := json.Unmarshal(body, &page); err != nil || len(page.Tags) > 150 {
			t.Fatalf("a page of %d tags, %v", len(page.Tags), err)
		}
		paged = append(paged, page.Tags...)
		next, _, _ = strings.Cut(strings.TrimPrefix(header.Get("Link"), "<"), ">")
	}
	if !slices.Equal(paged, want) || pages < len(want)/150 {
		t.Errorf("%d pages have %d tags, want %d", pages, len(paged), len(want))
	}
}

// TestCentralManyRepositories lists 10,000 repositories (quick: 300), of which
// who asks may see some.
func TestCentralManyRepositories(t *testing.T) {
	c := startCentral(t, "")
	k := newKit(t, c)
	config := "{}"
	image := imageOfConfig(config)
	var want []string
	for i := range size(300, 10_000) {
		name := fmt.Sprintf("team-a/r%d", i)
		if i%10 == 0 {
			name = fmt.Sprintf("charts/r%d", i) // which bob does not see
		}
		want = append(want, name)
	}
	c.each(t, len(want), func(i int) {
		c.pushBlob(t, want[i], []byte(config))
		c.must(t, 201, "PUT", "/v2/"+want[i]+"/manifests/v1", strings.NewReader(image), "Content-Type", imageType)
	})
	slices.Sort(want)
	oras := bin(t, "oras")
	k.run(oras, "login", "-u", alice, "-p", alicePassword, c.addr)
	if got := strings.Fields(k.run(oras, "repo", "ls", c.addr)); !slices.Equal(got, want) {
		t.Errorf("alice sees %d repositories, want %d", len(got), len(want))
	}
	want = slices.DeleteFunc(want, func(name string) bool { return strings.HasPrefix(name, "charts/") })
	k.run(oras, "login", "-u", bob, "-p", bobPassword, c.addr)
	if got := strings.Fields(k.run(oras, "repo", "ls", c.addr)); !slices.Equal(got, want) {
		t.Errorf("bob sees %d repositories, want %d", len(got), len(want))
	}
	c.Stop(t)
	c.start(t)
	if got := strings.Fields(k.run(oras, "repo", "ls", c.addr)); !slices.Equal(got, want) {
		t.Errorf("after a restart bob sees %d repositories, want %d", len(got), len(want))
	}
}

const imageType = "application/vnd.oci.image.manifest.v1+json"

// imageOfConfig is an image manifest without layers.
func imageOfConfig(config string) string {
	sum := sha256.Sum256([]byte(config))
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%x","size":%d},"layers":[]}`,
		imageType, sum, len(config))
}

// smallImage pushes what an image manifest needs and returns that.
func (c *central) smallImage(t *testing.T, repository string) string {
	t.Helper()
	c.pushBlob(t, repository, []byte("{}"))
	return imageOfConfig("{}")
}

// each does n things, sixteen at a time.
func (c *central) each(t *testing.T, n int, do func(i int)) {
	t.Helper()
	next := make(chan int)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for i := range next {
				if !t.Failed() {
					do(i)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
