package registry

import (
	"archive/tar"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	_ "crypto/sha512" // for AddBlobAs: go-digest wants the algorithm linked in
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"runtime"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Media types of what AddImage and AddIndex make.
const (
	MediaTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex    = "application/vnd.oci.image.index.v1+json"
	MediaTypeConfig   = "application/vnd.oci.image.config.v1+json"
	MediaTypeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// Content is what a blob holds. *bytes.Reader is one; see Random and Tar for
// those that cost no memory. ReadAt may be called from many goroutines.
type Content interface {
	io.ReaderAt
	// Size in bytes.
	Size() int64
}

// Random is size pseudo-random bytes, the same for the same seed, readable at
// any offset and kept nowhere.
func Random(seed uint64, size int64) Content {
	key := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("larder test content"), seed))
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		panic(err) // 16 bytes are always a key
	}
	return &random{block: block, size: size}
}

type random struct {
	block cipher.Block
	size  int64
}

func (r *random) Size() int64 { return r.size }

// ReadAt gives the key stream of AES in counter mode: fast, and seekable by
// setting the counter.
func (r *random) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= r.size {
		return 0, io.EOF
	}
	var err error
	if rest := r.size - off; int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	var iv [aes.BlockSize]byte
	big.NewInt(off / aes.BlockSize).FillBytes(iv[:])
	stream := cipher.NewCTR(r.block, iv[:])
	var skip [aes.BlockSize]byte
	stream.XORKeyStream(skip[:off%aes.BlockSize], skip[:off%aes.BlockSize])
	clear(p)
	stream.XORKeyStream(p, p)
	return len(p), err
}

// Tar is a tar archive of exactly size bytes that holds one file of random
// content, so that real clients can unpack it. Under 2 KiB there is no room
// for one, and the content is just random.
func Tar(seed uint64, size int64) Content {
	const block = 512
	if size < 4*block {
		return Random(seed, size)
	}
	file := (size - 3*block) / block * block
	var head bytes.Buffer
	// Neither call can fail: the header is valid and the buffer grows.
	_ = tar.NewWriter(&head).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: fmt.Sprintf("data-%d", seed), Mode: 0o644, Size: file,
		ModTime: time.Unix(0, 0), Format: tar.FormatGNU,
	})
	return &archive{head: head.Bytes(), file: Random(seed, file), size: size}
}

type archive struct {
	head []byte
	file Content
	size int64
}

func (a *archive) Size() int64 { return a.size }

func (a *archive) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= a.size {
		return 0, io.EOF
	}
	var err error
	if rest := a.size - off; int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	n := 0
	head := int64(len(a.head))
	if off < head {
		n = copy(p, a.head[off:])
	}
	if at := off + int64(n) - head; n < len(p) && at < a.file.Size() {
		m, _ := a.file.ReadAt(p[n:], at)
		n += m
	}
	clear(p[n:])
	return len(p), err
}

// Layer is the content of one layer; an empty MediaType means MediaTypeLayer.
type Layer struct {
	Content
	MediaType string
}

// NewLayer is a layer of exactly size bytes, a tar archive where there is room
// for one. The same seed and size give the same layer.
func NewLayer(seed uint64, size int64) Layer {
	return Layer{Content: Tar(seed, size)}
}

// Blob is content the registry holds.
type Blob struct {
	Content
	Digest    digest.Digest
	MediaType string
}

// Bytes reads the whole content; for small ones.
func (b Blob) Bytes() []byte {
	p := make([]byte, b.Size())
	_, _ = b.ReadAt(p, 0) // in memory or computed: it cannot fail
	return p
}

// Image is an image manifest, or an index of some, with what it refers to.
type Image struct {
	// Blob is the manifest itself.
	Blob
	Repo, Tag string
	// Arch is the architecture an index lists the image under.
	Arch string
	// Config and Layers are empty for an index.
	Config Blob
	Layers []Blob
	// Children are the images of an index.
	Children []Image
}

// Blobs are the configs and layers of the image and of its children.
func (i Image) Blobs() []Blob {
	if i.Children == nil {
		return append([]Blob{i.Config}, i.Layers...)
	}
	var all []Blob
	for _, c := range i.Children {
		all = append(all, c.Blobs()...)
	}
	return all
}

// content is all a registry holds, by repository.
type content struct {
	blobs     map[string]map[digest.Digest]Blob
	manifests map[string]map[digest.Digest]Blob
	tags      map[string]map[string]digest.Digest
	referrers map[string]map[digest.Digest][]descriptor
}

func newContent() content {
	return content{
		blobs:     map[string]map[digest.Digest]Blob{},
		manifests: map[string]map[digest.Digest]Blob{},
		tags:      map[string]map[string]digest.Digest{},
		referrers: map[string]map[digest.Digest][]descriptor{},
	}
}

// put sets m[repo][key], making the inner map if it must.
func put[K comparable, V any](m map[string]map[K]V, repo string, key K, v V) {
	if m[repo] == nil {
		m[repo] = map[K]V{}
	}
	m[repo][key] = v
}

// AddBlob holds content in repo and returns it with its sha256 digest.
func (s *Server) AddBlob(repo, mediaType string, c Content) Blob {
	return s.AddBlobAs(digest.SHA256, repo, mediaType, c)
}

// AddBlobAs is AddBlob with a digest algorithm of the caller's choice.
func (s *Server) AddBlobAs(alg digest.Algorithm, repo, mediaType string, c Content) Blob {
	b := Blob{Content: c, Digest: sum(alg, c), MediaType: mediaType}
	s.mu.Lock()
	defer s.mu.Unlock()
	put(s.content.blobs, repo, b.Digest, b)
	return b
}

// AddManifest holds the exact bytes as a manifest of repo, tagged if tag is
// not empty. A tag that exists moves.
func (s *Server) AddManifest(repo, tag, mediaType string, raw []byte) Blob {
	b := Blob{Content: bytes.NewReader(raw), Digest: digest.FromBytes(raw), MediaType: mediaType}
	s.mu.Lock()
	defer s.mu.Unlock()
	put(s.content.manifests, repo, b.Digest, b)
	if tag != "" {
		put(s.content.tags, repo, tag, b.Digest)
	}
	return b
}

// AddImage makes an image of layers for this machine's architecture and tags
// it, if tag is not empty. A tag that exists moves.
func (s *Server) AddImage(repo, tag string, layers ...Layer) Image {
	return s.AddPlatform(repo, tag, runtime.GOARCH, layers...)
}

// AddPlatform is AddImage for another architecture of Linux.
func (s *Server) AddPlatform(repo, tag, arch string, layers ...Layer) Image {
	img := Image{Repo: repo, Tag: tag, Arch: arch}
	diffs := []digest.Digest{}
	for _, l := range layers {
		if l.MediaType == "" {
			l.MediaType = MediaTypeLayer
		}
		b := s.AddBlob(repo, l.MediaType, l.Content)
		img.Layers = append(img.Layers, b)
		diffs = append(diffs, b.Digest)
	}
	config := encode(map[string]any{
		"architecture": arch, "os": "linux",
		"config": map[string]any{"Cmd": []string{"/data"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	img.Config = s.AddBlob(repo, MediaTypeConfig, bytes.NewReader(config))
	manifest := manifest{SchemaVersion: 2, MediaType: MediaTypeManifest, Config: describe(img.Config)}
	for _, l := range img.Layers {
		manifest.Layers = append(manifest.Layers, describe(l))
	}
	img.Blob = s.AddManifest(repo, tag, MediaTypeManifest, encode(manifest))
	return img
}

// AddIndex makes an index of images, which must be in the same repository, and
// tags it.
func (s *Server) AddIndex(repo, tag string, images ...Image) Image {
	idx := index{SchemaVersion: 2, MediaType: MediaTypeIndex, Manifests: []descriptor{}}
	for _, i := range images {
		d := describe(i.Blob)
		d.Platform = &platform{Architecture: i.Arch, OS: "linux"}
		idx.Manifests = append(idx.Manifests, d)
	}
	b := s.AddManifest(repo, tag, MediaTypeIndex, encode(idx))
	return Image{Blob: b, Repo: repo, Tag: tag, Children: images}
}

// AddReferrer makes an artifact that refers to subject.
func (s *Server) AddReferrer(repo string, subject Blob, artifactType string, payload []byte) Blob {
	empty := s.AddBlob(repo, "application/vnd.oci.empty.v1+json", bytes.NewReader([]byte("{}")))
	layer := s.AddBlob(repo, "application/octet-stream", bytes.NewReader(payload))
	refers := describe(subject)
	b := s.AddManifest(repo, "", MediaTypeManifest, encode(manifest{
		SchemaVersion: 2, MediaType: MediaTypeManifest, ArtifactType: artifactType,
		Config: describe(empty), Layers: []descriptor{describe(layer)}, Subject: &refers,
	}))
	d := describe(b)
	d.ArtifactType = artifactType
	s.mu.Lock()
	defer s.mu.Unlock()
	put(s.content.referrers, repo, subject.Digest, append(s.content.referrers[repo][subject.Digest], d))
	return b
}

// DeleteTag forgets a tag; what it named stays.
func (s *Server) DeleteTag(repo, tag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.content.tags[repo], tag)
}

// Delete forgets the blob or manifest of that digest, as if it had never been
// pushed: an index may then list a child that is missing.
func (s *Server) Delete(repo string, dgst digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.content.blobs[repo], dgst)
	delete(s.content.manifests[repo], dgst)
}

func (s *Server) blob(repo string, dgst string) (Blob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.content.blobs[repo][digest.Digest(dgst)]
	return b, ok
}

// anyBlob finds a blob whatever repository holds it, as object storage does.
func (s *Server) anyBlob(dgst string) (Blob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, blobs := range s.content.blobs {
		if b, ok := blobs[digest.Digest(dgst)]; ok {
			return b, true
		}
	}
	return Blob{}, false
}

func (s *Server) manifest(repo, target string) (Blob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dgst := digest.Digest(target)
	if tagged, ok := s.content.tags[repo][target]; ok {
		dgst = tagged
	}
	b, ok := s.content.manifests[repo][dgst]
	return b, ok
}

func (s *Server) tagList(repo string) ([]string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tags, ok := s.content.tags[repo]
	return slices.Sorted(maps.Keys(tags)), ok
}

func (s *Server) referrerList(repo, subject string) []descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.content.referrers[repo][digest.Digest(subject)])
}

func sum(alg digest.Algorithm, c Content) digest.Digest {
	d := alg.Digester()
	// A hash takes everything and the content is computed: it cannot fail.
	_, _ = io.Copy(d.Hash(), io.NewSectionReader(c, 0, c.Size()))
	return d.Digest()
}

// The JSON of the image spec, as far as it is needed here.
type (
	platform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	descriptor struct {
		MediaType    string        `json:"mediaType"`
		Digest       digest.Digest `json:"digest"`
		Size         int64         `json:"size"`
		ArtifactType string        `json:"artifactType,omitempty"`
		Platform     *platform     `json:"platform,omitempty"`
	}
	manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		ArtifactType  string       `json:"artifactType,omitempty"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
		Subject       *descriptor  `json:"subject,omitempty"`
	}
	index struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
)

func describe(b Blob) descriptor {
	return descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size()}
}

func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types above always encode
	}
	return raw
}
