package mirror

import (
	"context"

	"github.com/larder-registry/larder/internal/oci"
)

// Tags lists the tags of name that the mirror holds, not those its upstream
// has. See oci.Lister.
func (m *Mirror) Tags(ctx context.Context, name oci.Name, n int, last string) ([]string, error) {
	var list []string
	err := m.admitted(ctx, oci.Reference{Name: name}, oci.AccessOf(ctx), func(g grant) error {
		held, err := m.store.Tags(name, n, last)
		if err != nil {
			return err
		}
		if first, _ := m.store.Tags(name, 1, ""); g.must && len(first) > 0 { // it is there: see above
			err = m.prove(ctx, g, func(ctx context.Context) error {
				_, err := m.upstream.Resolve(ctx, oci.Reference{Name: name, Tag: first[0]})
				return err
			})
		}
		if list = held; err == nil && !g.admits() {
			err = errUnproven
		}
		return err
	})
	return list, err
}

// Repositories lists the repositories of which the mirror holds something that
// everybody may have. See oci.Lister.
func (m *Mirror) Repositories(_ context.Context, n int, last string) ([]string, error) {
	list := []string{}
	if n == 0 {
		return list, nil
	}
	all, err := m.store.Repositories(-1, last)
	for _, full := range all {
		name, err := oci.ParseName(full)
		if err != nil {
			continue // the store made it of a Name
		}
		if s := m.gate.standing(name); s.open() || s.closed() && m.gate.mode == PrivateShared {
			list = append(list, full)
		}
		if len(list) == n {
			break
		}
	}
	return list, err
}
