package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

func exposure(t *testing.T, h house) {
	s := h.store(t)
	name := oci.Name{Registry: "r.test:5000", Repository: "team/app"}
	other := oci.Name{Registry: "r.test:5000", Repository: "team"}
	private := store.Exposure{Kind: "private", At: time.Unix(1_700_000_000, 0).UTC()}
	public := store.Exposure{Kind: "public", At: time.Unix(1_700_000_001, 0).UTC()}

	// Of a repository nothing is held of, nothing is noted.
	if err := s.SetExposure(name, private); err != nil {
		t.Fatal(err)
	}
	if got := s.Exposure(name); got != (store.Exposure{}) {
		t.Errorf("exposure of nothing is %+v", got)
	}
	if got, err := s.Repositories(-1, ""); err != nil || len(got) != 0 {
		t.Errorf("repositories are %v, %v", got, err)
	}

	dgst := Add(t, s, Content(10, 60))
	for _, n := range []oci.Name{name, other} {
		if err := s.Link(n, oci.Descriptor{Digest: dgst}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Exposure(name); got != (store.Exposure{}) {
		t.Errorf("exposure nobody noted is %+v", got)
	}
	for _, e := range []store.Exposure{private, public, private, {Kind: "private", At: public.At}} {
		if err := s.SetExposure(name, store.Exposure{Kind: e.Kind, At: e.At.Local().Add(time.Millisecond)}); err != nil {
			t.Fatal(err)
		}
		if got := s.Exposure(name); got != e {
			t.Errorf("exposure is %+v, want %+v", got, e)
		}
	}
	if got := s.Exposure(other); got != (store.Exposure{}) {
		t.Errorf("exposure of another repository is %+v", got)
	}
	vouchers := s.Vouchers(dgst)
	slices.SortFunc(vouchers, func(a, b oci.Name) int { return len(a.Repository) - len(b.Repository) })
	if !slices.Equal(vouchers, []oci.Name{other, name}) {
		t.Errorf("vouchers are %v", vouchers)
	}
	if got := s.Vouchers(digest.FromString("nothing")); len(got) != 0 {
		t.Errorf("vouchers of nothing are %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = h.store(t)
	if got := s.Exposure(name); got.Kind != "private" || !got.At.Equal(public.At) {
		t.Errorf("after a reopen exposure is %+v", got)
	}
	// It goes with the last the store holds of its repository.
	blob, err := s.Blob(dgst)
	if err != nil {
		t.Fatal(err)
	}
	if err := blob.Discard(); err != nil {
		t.Fatal(err)
	}
	if err := blob.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = h.store(t)
	Add(t, s, Content(10, 60))
	if err := s.Link(name, oci.Descriptor{Digest: dgst}); err != nil {
		t.Fatal(err)
	}
	if got := s.Exposure(name); got != (store.Exposure{}) {
		t.Errorf("exposure of what was gone is %+v", got)
	}
}
