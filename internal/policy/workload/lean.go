package workload

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
)

// Raw is an object in JSON as it came, for [Parse] to read. In a struct that a
// [Lean] is made of, it stands for what Parse looks at and nothing else.
type Raw []byte

// UnmarshalJSON keeps a copy.
func (r *Raw) UnmarshalJSON(data []byte) error {
	*r = append((*r)[:0], data...)
	return nil
}

// Lean cuts JSON down to what a Go type reads of it. Most of a pod is of no
// matter here, and encoding/json, which is what reads the rest, goes over every
// byte several times; a Lean does so once. It is safe for concurrent use.
type Lean struct{ whole *shape }

// shape is what a value is cut down to; nil leaves it as it is. A value that is
// neither an object nor an array is never cut.
type shape struct {
	// members of an object, by their names in lower case; nil keeps all.
	members map[string]*shape
	// elements of an array.
	elements *shape
}

// NewLean makes the Lean for what encoding/json reads into a T.
func NewLean[T any]() *Lean { return &Lean{shapeOf(reflect.TypeFor[T]())} }

// shapeOf follows the rules of encoding/json, as far as types here make use of
// them; what it does not know it keeps.
func shapeOf(t reflect.Type) *shape {
	switch {
	case t == reflect.TypeFor[Raw]():
		return shapeOf(reflect.TypeFor[manifest]())
	case reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()):
		return nil
	case t.Kind() == reflect.Pointer:
		return shapeOf(t.Elem())
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Array:
		return &shape{elements: shapeOf(t.Elem())}
	case t.Kind() != reflect.Struct:
		return nil
	}
	s := &shape{members: map[string]*shape{}}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			// Its fields are the struct's.
			if inner := shapeOf(f.Type); inner != nil {
				maps.Copy(s.members, inner.members)
			}
		case name == "":
			s.members[strings.ToLower(f.Name)] = shapeOf(f.Type)
		default:
			s.members[strings.ToLower(name)] = shapeOf(f.Type)
		}
	}
	return s
}

// Cut appends to dst what matters of data. Reading that gives the same as reading
// data. Where data is not JSON it reports false, and what was appended is of no
// use.
func (l *Lean) Cut(dst, data []byte) ([]byte, bool) {
	c := cutter{in: data, out: dst}
	ok := c.value(l.whole, 0)
	c.space()
	return c.out, ok && c.at == len(data)
}

// maxDepth is how deep encoding/json goes.
const maxDepth = 10000

// cutter copies values, and passes over others, in one go. It checks what it
// passes over as encoding/json would.
type cutter struct {
	in  []byte
	at  int
	out []byte
}

// value copies the next value cut down to s.
func (c *cutter) value(s *shape, depth int) bool {
	c.space()
	switch next := c.peek(); {
	case s != nil && next == '{' && s.members != nil:
		return c.object(s, depth+1)
	case s != nil && next == '[' && s.elements != nil:
		return c.array(s.elements, depth+1)
	}
	from := c.at
	ok := c.skip(depth)
	c.out = append(c.out, c.in[from:c.at]...)
	return ok
}

// object copies the members of an object that are in s.
func (c *cutter) object(s *shape, depth int) bool {
	c.out = append(c.out, '{')
	first := true
	ok := c.each('}', depth, func() bool {
		from := c.at
		if !c.text() {
			return false
		}
		name := c.in[from:c.at]
		c.space()
		if !c.take(':') {
			return false
		}
		member, known := s.member(name[1 : len(name)-1])
		if !known {
			return c.skip(depth)
		}
		if !first {
			c.out = append(c.out, ',')
		}
		first = false
		c.out = append(append(c.out, name...), ':')
		return c.value(member, depth)
	})
	c.out = append(c.out, '}')
	return ok
}

// member says whether a member counts. encoding/json takes names in any case; one
// that is escaped or has letters of other scripts is not looked at closely, and
// kept.
func (s *shape) member(name []byte) (member *shape, known bool) {
	var lower [64]byte
	for i, b := range name {
		switch {
		case b >= 0x80, b == '\\':
			return nil, true
		case i == len(lower):
			continue
		case 'A' <= b && b <= 'Z':
			b += 'a' - 'A'
		}
		if i < len(lower) {
			lower[i] = b
		}
	}
	if len(name) > len(lower) {
		return nil, false // no name here is as long
	}
	member, known = s.members[string(lower[:len(name)])]
	return member, known
}

// array copies an array, each element cut down to s: places count.
func (c *cutter) array(s *shape, depth int) bool {
	c.out = append(c.out, '[')
	first := true
	ok := c.each(']', depth, func() bool {
		if !first {
			c.out = append(c.out, ',')
		}
		first = false
		return c.value(s, depth)
	})
	c.out = append(c.out, ']')
	return ok
}

// each calls f at every element between an opening bracket and the one that ends
// it.
func (c *cutter) each(end byte, depth int, f func() bool) bool {
	if depth > maxDepth {
		return false
	}
	c.at++
	if c.space(); c.take(end) {
		return true
	}
	for {
		if c.space(); !f() {
			return false
		}
		if c.space(); c.take(end) {
			return true
		}
		if !c.take(',') {
			return false
		}
	}
}

// skip passes over a value.
func (c *cutter) skip(depth int) bool {
	c.space()
	switch next := c.peek(); next {
	case '{':
		return c.each('}', depth+1, func() bool {
			if !c.text() {
				return false
			}
			c.space()
			return c.take(':') && c.skip(depth+1)
		})
	case '[':
		return c.each(']', depth+1, func() bool { return c.skip(depth + 1) })
	case '"':
		return c.text()
	case 't':
		return c.word("true")
	case 'f':
		return c.word("false")
	case 'n':
		return c.word("null")
	default:
		return c.number()
	}
}

// text passes over a string.
func (c *cutter) text() bool {
	if !c.take('"') {
		return false
	}
	for c.at < len(c.in) {
		b := c.in[c.at]
		switch {
		case b == '"':
			c.at++
			return true
		case b < ' ':
			return false
		case b == '\\':
			if !c.escape() {
				return false
			}
		default:
			c.at++
		}
	}
	return false
}

// escape passes over what a backslash begins.
func (c *cutter) escape() bool {
	if c.at+1 == len(c.in) {
		return false
	}
	c.at += 2
	switch c.in[c.at-1] {
	case 'b', 'f', 'n', 'r', 't', '\\', '/', '"':
		return true
	case 'u':
		for range 4 {
			b := c.peek() | 0x20 // lower case
			if !digit(c.peek()) && (b < 'a' || b > 'f') {
				return false
			}
			c.at++
		}
		return true
	}
	return false
}

// number passes over a number.
func (c *cutter) number() bool {
	c.take('-')
	if !c.take('0') && !c.digits() {
		return false
	}
	if c.take('.') && !c.digits() {
		return false
	}
	if c.take('e') || c.take('E') {
		if !c.take('+') {
			c.take('-')
		}
		return c.digits()
	}
	return true
}

func (c *cutter) digits() bool {
	from := c.at
	for digit(c.peek()) {
		c.at++
	}
	return c.at > from
}

func digit(b byte) bool { return '0' <= b && b <= '9' }

func (c *cutter) word(w string) bool {
	if string(c.in[c.at:min(c.at+len(w), len(c.in))]) != w {
		return false
	}
	c.at += len(w)
	return true
}

// peek is the next byte, or 0 at the end, which begins nothing.
func (c *cutter) peek() byte {
	if c.at < len(c.in) {
		return c.in[c.at]
	}
	return 0
}

func (c *cutter) take(b byte) bool {
	if c.peek() != b {
		return false
	}
	c.at++
	return true
}

func (c *cutter) space() {
	for c.at < len(c.in) {
		switch c.in[c.at] {
		case ' ', '\t', '\r', '\n':
			c.at++
		default:
			return
		}
	}
}
