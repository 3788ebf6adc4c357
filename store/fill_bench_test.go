package store

import (
	"bytes"
	"testing"

	"github.com/opencontainers/go-digest"
)

// BenchmarkFill brings a blob of 32 MiB in, as a fill does without a network:
// written and hashed from memory as it comes, and written first, to be read back
// for the hash. Committing is BenchmarkCommit.
func BenchmarkFill(b *testing.B) {
	const size, piece = 32 << 20, 256 << 10
	content := bytes.Repeat([]byte("Larder's"), size/8)
	dgst := digest.FromBytes(content)
	for name, atHand := range map[string]bool{"at-hand": true, "read-back": false} {
		b.Run(name, func(b *testing.B) {
			s := mustOpen(b, roomy(b.TempDir()))
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				i, err := s.Ingest(b.Context(), dgst, size)
				if err != nil {
					b.Fatal(err)
				}
				for off := int64(0); off < size; off += piece {
					p := content[off : off+piece]
					if _, err := i.WriteAt(p, off); err != nil {
						b.Fatal(err)
					}
					if atHand && !i.HashNext(p, off) {
						b.Fatal("the hash stands elsewhere")
					}
				}
				if err := i.Verify(b.Context()); err != nil {
					b.Fatal(err)
				}
				if err := i.Abort(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
