package upstream

import "container/list"

// lru is a map that forgets what was used least recently once it holds max
// entries, so that clients who make up names cannot fill the memory. It has no
// lock of its own.
type lru[K comparable, V any] struct {
	max    int
	order  *list.List // of *pair[K, V], the most recent first
	places map[K]*list.Element
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](limit int) *lru[K, V] {
	return &lru[K, V]{max: limit, order: list.New(), places: map[K]*list.Element{}}
}

func (l *lru[K, V]) get(key K) (value V, ok bool) {
	place, ok := l.places[key]
	if !ok {
		return value, false
	}
	l.order.MoveToFront(place)
	return entryOf[K, V](place).value, true
}

func (l *lru[K, V]) put(key K, value V) {
	if place, ok := l.places[key]; ok {
		entryOf[K, V](place).value = value
		l.order.MoveToFront(place)
		return
	}
	l.places[key] = l.order.PushFront(&pair[K, V]{key, value})
	if l.order.Len() > l.max {
		l.remove(entryOf[K, V](l.order.Back()).key)
	}
}

func (l *lru[K, V]) remove(key K) {
	if place, ok := l.places[key]; ok {
		l.order.Remove(place)
		delete(l.places, key)
	}
}

// all calls f for every entry, in no order and without counting it as a use.
func (l *lru[K, V]) all(f func(K, V)) {
	for key, place := range l.places {
		f(key, entryOf[K, V](place).value)
	}
}

func entryOf[K comparable, V any](place *list.Element) *pair[K, V] {
	p, _ := place.Value.(*pair[K, V])
	return p
}
