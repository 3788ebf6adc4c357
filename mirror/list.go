package mirror

import (
	"context"

	"github.com/larder-registry/larder/internal/oci"
)

// Tags lists the tags of name that the mirror holds, not those its upstream
// has. See oci.Lister.
func (m *Mirror) Tags(_ context.Context, name oci.Name, n int, last string) ([]string, error) {
	return m.store.Tags(name, n, last)
}

// Repositories lists the repositories of which the mirror holds something. See
// oci.Lister.
func (m *Mirror) Repositories(_ context.Context, n int, last string) ([]string, error) {
	return m.store.Repositories(n, last)
}
