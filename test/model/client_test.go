package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// errLost is a request of which nobody knows whether it was done.
var errLost = errors.New("the connection was lost")

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// count is what all clients did together.
type count struct{ pushed, pulled, deleted, lost, again, resumed atomic.Int64 }

// client is one of many.
type client struct {
	t       testing.TB
	p       *process
	n       int
	random  *rand.Rand
	count   *count
	images  map[string]*image // by repository@digest
	tags    map[string]*state // by repository:tag
	counter int
}

// state is what a tag may point to: one of these; empty for being absent. One
// entry is certainty.
type state struct{ may []string }

// image is one the client pushed.
type image struct {
	repository string
	body       []byte
	layers     [][]byte
	subject    digest.Digest
	// here: certainly; gone: certainly not. Neither: a kill left it open.
	here, gone bool
}

func (i *image) digest() string { return string(digest.FromBytes(i.body)) }

// do sends one request to the process that runs now.
func (c *client) do(method, target string, body []byte, header ...string) (answer, error) {
	where := c.p.where()
	base, err := url.Parse(where)
	if err != nil {
		return answer{}, err
	}
	u, err := base.Parse(target)
	if err != nil {
		return answer{}, err
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for pair := range slices.Chunk(header, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	res, err := c.p.http.Do(req)
	if err != nil {
		c.count.lost.Add(1)
		return answer{}, errLost
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		c.count.lost.Add(1)
		return answer{}, errLost
	}
	if res.StatusCode >= 500 {
		if !c.p.runs(where) { // it saw its disk go
			c.count.lost.Add(1)
			return answer{}, errLost
		}
		c.t.Errorf("%s %s: %d %s", method, target, res.StatusCode, content)
	}
	return answer{res.StatusCode, res.Header, content}, nil
}

// ask repeats a request that changes nothing until it is answered.
func (c *client) ask(method, target string, header ...string) answer {
	for {
		a, err := c.do(method, target, nil, header...)
		if err == nil {
			return a
		}
		if c.t.Context().Err() != nil {
			return answer{}
		}
	}
}

// pushBlob pushes a blob in one of many ways until it is there.
func (c *client) pushBlob(repository string, content []byte) {
	dgst := digest.FromBytes(content)
	uploads := "/v2/" + repository + "/blobs/uploads/"
	for c.t.Context().Err() == nil {
		if a := c.ask("HEAD", "/v2/"+repository+"/blobs/"+string(dgst)); a.status == 200 {
			return
		}
		var a answer
		var err error
		switch c.random.IntN(4) {
		case 0:
			a, err = c.do("POST", uploads+"?digest="+string(dgst), content)
		case 1:
			a, err = c.do("POST", uploads+"?mount="+string(dgst), nil)
			if err == nil && a.status == 202 {
				a, err = c.do("PUT", a.header.Get("Location")+"?digest="+string(dgst), content)
			}
		case 2:
			a, err = c.do("POST", uploads, nil)
			if err == nil {
				a, err = c.do("PUT", a.header.Get("Location")+"?digest="+string(dgst), content)
			}
		default:
			a, err = c.chunks(uploads, content, dgst)
		}
		switch {
		case err != nil, a.status == 404: // an upload that expired
		case a.status == 201:
			return
		default:
			c.t.Errorf("push of a blob to %s: %d %s", repository, a.status, a.body)
			return
		}
	}
}

// chunks pushes in chunks, and goes on where a lost one left off.
func (c *client) chunks(uploads string, content []byte, dgst digest.Digest) (answer, error) {
	a, err := c.do("POST", uploads, nil)
	if err != nil {
		return a, err
	}
	location, at := a.header.Get("Location"), 0
	for at < len(content) {
		end := min(at+1+c.random.IntN(len(content)), len(content))
		a, err := c.do("PATCH", location, content[at:end], "Content-Range", fmt.Sprintf("%d-%d", at, end-1))
		if err == nil && a.status == 202 {
			at = end
			continue
		}
		if err == nil && a.status != 416 {
			return a, nil
		}
		// What of it has arrived?
		a = c.ask("GET", location)
		if a.status == 404 {
			return a, nil
		}
		c.count.resumed.Add(1)
		last := 0
		if _, err := fmt.Sscanf(a.header.Get("Range"), "0-%d", &last); err != nil {
			c.t.Errorf("status of an upload: %d, Range %q", a.status, a.header.Get("Range"))
			return a, errLost
		}
		// 0-0 is nothing, or one byte.
		if last+1 > len(content) || last > 0 && last+1 < at {
			c.t.Errorf("an upload has %d bytes, %d were acknowledged", last+1, at)
		}
		if at = last + 1; last == 0 {
			return answer{status: 404}, nil
		}
	}
	return c.do("PUT", location+"?digest="+string(dgst), nil)
}

// newImage makes an image of layers that all clients share, and a config of its
// own.
func (c *client) newImage(repository string, layers [][]byte) *image {
	c.counter++
	config := fmt.Appendf(nil, `{"client":%d,"image":%d}`, c.n, c.counter)
	i := &image{repository: repository, layers: [][]byte{config}}
	for range c.random.IntN(3) {
		i.layers = append(i.layers, layers[c.random.IntN(len(layers))])
	}
	descriptors := []map[string]any{}
	for _, layer := range i.layers {
		descriptors = append(descriptors, map[string]any{"mediaType": "application/octet-stream", "digest": digest.FromBytes(layer), "size": len(layer)})
	}
	doc := map[string]any{"schemaVersion": 2, "mediaType": oci.MediaTypeManifest, "config": descriptors[0], "layers": descriptors[1:]}
	if c.random.IntN(4) == 0 {
		i.subject = digest.FromString(fmt.Sprintf("subject of client %d", c.n))
		doc["subject"] = map[string]any{"mediaType": oci.MediaTypeManifest, "digest": i.subject, "size": 1}
	}
	body, err := json.Marshal(doc)
	if err != nil {
		c.t.Fatal(err)
	}
	i.body = body
	return i
}

// push pushes an image under a tag, as often as it takes.
func (c *client) push(i *image, tag string) {
	key, dgst := i.repository+":"+tag, i.digest()
	c.images[i.repository+"@"+dgst] = i
	if c.tags[key] == nil {
		c.tags[key] = &state{may: []string{""}}
	}
	for c.t.Context().Err() == nil {
		for _, layer := range i.layers {
			c.pushBlob(i.repository, layer)
		}
		a, err := c.do("PUT", "/v2/"+i.repository+"/manifests/"+tag, i.body, "Content-Type", oci.MediaTypeManifest)
		switch {
		case err != nil:
			i.here, i.gone = false, false
			if s := c.tags[key]; !slices.Contains(s.may, dgst) {
				s.may = append(s.may, dgst)
			}
			if c.random.IntN(2) == 0 {
				return // leave it open
			}
		case a.status == 201:
			i.here, i.gone = true, false
			c.tags[key].may = []string{dgst}
			c.count.pushed.Add(1)
			return
		case a.status == 400 && strings.Contains(string(a.body), "MANIFEST_BLOB_UNKNOWN"):
			c.count.again.Add(1) // collected meanwhile: that is why it was refused
		default:
			c.t.Errorf("push of %s: %d %s", key, a.status, a.body)
			return
		}
	}
}

// pull looks at what a tag points to, and whether that is whole.
func (c *client) pull(key string) {
	s := c.tags[key]
	repository, tag, _ := strings.Cut(key, ":")
	a := c.ask("GET", "/v2/"+repository+"/manifests/"+tag)
	got := ""
	if a.status == 200 {
		got = string(digest.FromBytes(a.body))
	} else if a.status != 404 {
		c.t.Errorf("pull of %s: %d %s", key, a.status, a.body)
		return
	}
	if !slices.Contains(s.may, got) {
		c.t.Errorf("%s points to %q, and may to %q only", key, got, s.may)
		return
	}
	s.may = []string{got}
	if got == "" {
		return
	}
	i := c.images[repository+"@"+got]
	i.here, i.gone = true, false
	if !bytes.Equal(a.body, i.body) {
		c.t.Errorf("%s has other bytes", key)
	}
	c.whole(i)
}

// whole checks that an image that is there can be had to the byte.
func (c *client) whole(i *image) {
	a := c.ask("GET", "/v2/"+i.repository+"/manifests/"+i.digest())
	if a.status != 200 || !bytes.Equal(a.body, i.body) {
		c.t.Errorf("%s@%s is gone: %d", i.repository, i.digest(), a.status)
		return
	}
	for _, layer := range i.layers {
		dgst := digest.FromBytes(layer)
		if a := c.ask("GET", "/v2/"+i.repository+"/blobs/"+string(dgst)); a.status != 200 || !bytes.Equal(a.body, layer) {
			c.t.Errorf("%s@%s lacks its layer %s: %d", i.repository, i.digest(), dgst, a.status)
		}
	}
	if i.subject != "" {
		a := c.ask("GET", "/v2/"+i.repository+"/referrers/"+string(i.subject))
		if a.status != 200 || !bytes.Contains(a.body, []byte(i.digest())) {
			c.t.Errorf("%s@%s is not among the referrers: %d %s", i.repository, i.digest(), a.status, a.body)
		}
	}
	c.count.pulled.Add(1)
}

// absent checks that an image that was deleted is gone.
func (c *client) absent(i *image) {
	if a := c.ask("GET", "/v2/"+i.repository+"/manifests/"+i.digest()); a.status != 404 {
		c.t.Errorf("%s@%s was deleted and is there: %d", i.repository, i.digest(), a.status)
	}
	if i.subject != "" {
		if a := c.ask("GET", "/v2/"+i.repository+"/referrers/"+string(i.subject)); bytes.Contains(a.body, []byte(i.digest())) {
			c.t.Errorf("%s@%s was deleted and is among the referrers", i.repository, i.digest())
		}
	}
}

// deleteTag deletes a tag.
func (c *client) deleteTag(key string) {
	s := c.tags[key]
	repository, tag, _ := strings.Cut(key, ":")
	a, err := c.do("DELETE", "/v2/"+repository+"/manifests/"+tag, nil)
	switch {
	case err != nil:
		if !slices.Contains(s.may, "") {
			s.may = append(s.may, "")
		}
	case a.status == 202, a.status == 404 && slices.Contains(s.may, ""):
		s.may = []string{""}
		c.count.deleted.Add(1)
	default:
		c.t.Errorf("delete of %s, which may be %q: %d %s", key, s.may, a.status, a.body)
	}
}

// deleteImage deletes an image manifest, and with it every tag that points to
// it.
func (c *client) deleteImage(i *image) {
	dgst := i.digest()
	a, err := c.do("DELETE", "/v2/"+i.repository+"/manifests/"+dgst, nil)
	for key, s := range c.tags {
		if !strings.HasPrefix(key, i.repository+":") || !slices.Contains(s.may, dgst) {
			continue
		}
		if err != nil {
			s.may = append(s.may, "")
			continue
		}
		s.may = slices.DeleteFunc(s.may, func(to string) bool { return to == dgst })
		s.may = append(s.may, "")
	}
	switch {
	case err != nil:
		i.here = false
	case a.status == 202, a.status == 404 && !i.here:
		i.here, i.gone = false, true
		c.count.deleted.Add(1)
	default:
		c.t.Errorf("delete of %s@%s: %d %s", i.repository, dgst, a.status, a.body)
	}
}

// list checks the client's tags among those of a repository.
func (c *client) list(repository string) {
	var doc struct{ Tags []string }
	for next := "/v2/" + repository + "/tags/list?n=7"; next != ""; {
		a := c.ask("GET", next)
		if a.status == 404 {
			break
		}
		var page struct{ Tags []string }
		if err := json.Unmarshal(a.body, &page); err != nil {
			c.t.Errorf("tags of %s: %s", repository, a.body)
			return
		}
		doc.Tags = append(doc.Tags, page.Tags...)
		next, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	if !slices.IsSorted(doc.Tags) {
		c.t.Errorf("tags of %s are not in order", repository)
	}
	for key, s := range c.tags {
		name, tag, _ := strings.Cut(key, ":")
		if name != repository || len(s.may) != 1 {
			continue
		}
		if listed := slices.Contains(doc.Tags, tag); listed != (s.may[0] != "") {
			c.t.Errorf("%s points to %q, and is listed: %v", key, s.may[0], listed)
		}
	}
}

// step does one thing.
func (c *client) step(repositories []string, layers [][]byte) {
	repository := repositories[c.random.IntN(len(repositories))]
	tag := fmt.Sprintf("c%d-%d", c.n, c.random.IntN(4))
	key := repository + ":" + tag
	known := c.tags[key] != nil
	switch what := c.random.IntN(10); {
	case what < 4 || !known:
		c.push(c.newImage(repository, layers), tag)
	case what == 4: // the tag moves back to an older image, or one that is gone
		for _, i := range c.images {
			if i.repository == repository {
				c.push(i, tag)
				return
			}
		}
	case what < 7:
		c.pull(key)
	case what == 7:
		c.deleteTag(key)
	case what == 8:
		for _, i := range c.images {
			if i.repository == repository {
				c.deleteImage(i)
				return
			}
		}
	default:
		c.list(repository)
	}
}

// checkAll looks at everything that is certain, or becomes so.
func (c *client) checkAll(repositories []string) {
	for key := range c.tags {
		c.pull(key)
	}
	for _, i := range c.images {
		switch {
		case i.here:
			c.whole(i)
		case i.gone:
			c.absent(i)
		}
	}
	for _, repository := range repositories {
		c.list(repository)
	}
}
