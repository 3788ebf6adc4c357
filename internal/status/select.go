package status

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// The orders of images and repositories.
const (
	SortUsed = "used" // the last used, or pushed, first
	SortSize = "size" // the largest first
	SortName = "name"
)

// The bounds of a view.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
	maxFind      = 200
)

// View says which images and repositories are wanted. The zero View is the
// first 100, the last used first.
type View struct {
	Sort  string
	Limit int
	// Find leaves out those whose name does not contain it.
	Find string
	// Public leaves private names out, also of what Find looks at.
	Public bool
}

// ParseView reads sort, limit and find.
func ParseView(q url.Values) (View, error) {
	v := View{Sort: q.Get("sort"), Find: strings.TrimSpace(q.Get("find"))}
	switch v.Sort {
	case "", SortUsed, SortSize, SortName:
	default:
		return v, fmt.Errorf("sort %.40q: write used, size or name", v.Sort)
	}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxLimit {
			return v, fmt.Errorf("limit %.40q: write a number from 1 to %d", text, MaxLimit)
		}
		v.Limit = n
	}
	if len(v.Find) > maxFind {
		return v, fmt.Errorf("find: write at most %d bytes", maxFind)
	}
	return v.Full(), nil
}

// Full has the defaults in place.
func (v View) Full() View {
	v.Sort = cmp.Or(v.Sort, SortUsed)
	v.Limit = min(cmp.Or(max(v.Limit, 0), DefaultLimit), MaxLimit)
	return v
}

// Select gives the images of a view. What it is given stays as it is.
func Select(all []Image, v View) *List[Image] {
	return pick(all, v, shape[Image]{
		redact: (*Image).redact,
		name:   func(i *Image) string { return i.Name() + ":" + i.Tag + "@" + i.Digest },
		size:   func(i *Image) int64 { return i.Size },
		later:  func(a, b *Image) int { return b.when().Compare(a.when()) },
		byName: func(a, b *Image) int {
			return cmp.Or(cmp.Compare(a.Registry, b.Registry), cmp.Compare(a.Repository, b.Repository),
				cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Digest, b.Digest))
		},
	})
}

// SelectRepositories gives the repositories of a view.
func SelectRepositories(all []Repository, v View) *List[Repository] {
	return pick(all, v, shape[Repository]{
		redact: (*Repository).redact,
		name:   func(r *Repository) string { return r.Name },
		size:   func(r *Repository) int64 { return r.Size },
		later:  func(a, b *Repository) int { return b.Pushed.Compare(a.Pushed) },
		byName: func(a, b *Repository) int { return cmp.Compare(a.Name, b.Name) },
	})
}

// shape is how items are looked at.
type shape[T any] struct {
	redact        func(*T)
	name          func(*T) string
	size          func(*T) int64
	later, byName func(a, b *T) int
}

// pick filters, orders and cuts.
func pick[T any](all []T, v View, s shape[T]) *List[T] {
	v = v.Full()
	list := &List[T]{Items: []T{}}
	found := make([]*T, 0, len(all))
	for i := range all {
		item := &all[i]
		if v.Public {
			public := *item
			s.redact(&public)
			item = &public
		}
		if v.Find == "" || strings.Contains(s.name(item), v.Find) {
			found = append(found, item)
			list.Bytes += s.size(item)
		}
	}
	list.Total = len(found)
	slices.SortFunc(found, func(a, b *T) int {
		order := 0
		switch v.Sort {
		case SortSize:
			order = cmp.Compare(s.size(b), s.size(a))
		case SortUsed:
			order = s.later(a, b)
		}
		if order != 0 {
			return order
		}
		return s.byName(a, b)
	})
	for _, item := range found[:min(v.Limit, len(found))] {
		list.Items = append(list.Items, *item)
	}
	return list
}
