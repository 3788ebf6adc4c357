package workload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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

// Lean cuts JSON down to what a Go type reads of it, and reads it as an API
// server does (sigs.k8s.io/json): the names of members count letter by letter.
// encoding/json takes them in any case, and the last of several wins, so that
// "Containers" behind "containers" would hide from it what the cluster runs.
//
// Most of a pod is of no matter here, and encoding/json, which is what reads the
// rest, goes over every byte several times; a Lean does so once. It is safe for
// concurrent use.
type Lean struct{ whole *shape }

// shape is what a value is cut down to; nil leaves it as it is. A value that is
// neither an object nor an array is never cut.
type shape struct {
	// members of an object, by their names; nil keeps all.
	members map[string]member
	// elements of an array.
	elements *shape
}

// member is what a member of an object is cut down to, and its bit in the set of
// those that were there.
type member struct {
	shape *shape
	bit   uint64
}

// maxMembers is how many fields a struct can have that a Lean is made of.
const maxMembers = 64

// NewLean makes the Lean for what encoding/json reads into a T. A struct in T has
// at most 64 fields; it panics at more.
func NewLean[T any]() *Lean {
	return &Lean{shapeOf(reflect.TypeFor[T](), map[reflect.Type]*shape{})}
}

// shapeOf follows the rules of encoding/json, as far as types here make use of
// them; what it does not know it keeps. known are the structs whose shape was
// begun: one can hold others of its type.
func shapeOf(t reflect.Type, known map[reflect.Type]*shape) *shape {
	switch {
	case t == reflect.TypeFor[Raw]():
		return shapeOf(reflect.TypeFor[manifest](), known)
	case reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()):
		return nil
	case t.Kind() == reflect.Pointer:
		return shapeOf(t.Elem(), known)
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Array:
		return &shape{elements: shapeOf(t.Elem(), known)}
	case t.Kind() != reflect.Struct:
		return nil
	case known[t] != nil:
		return known[t]
	}
	s := &shape{members: map[string]member{}}
	known[t] = s
	s.fields(t, known)
	if len(s.members) > maxMembers {
		panic(fmt.Sprintf("%v has more than %d fields", t, maxMembers))
	}
	return s
}

// fields adds what encoding/json reads into the fields of a struct. Those of an
// embedded one are the struct's.
func (s *shape) fields(t reflect.Type, known map[reflect.Type]*shape) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			s.fields(f.Type, known)
			continue
		}
		if name == "" {
			name = f.Name
		}
		s.members[name] = member{shapeOf(f.Type, known), 1 << len(s.members)}
	}
}

// Cut appends to dst what matters of data. Reading that gives the same as reading
// data, but for names in other letters, which are left out. It fails where data
// is not JSON, and where a member that matters is there twice: no API server
// sends such an object, and which of the two counts is a matter of opinion. What
// was appended is of no use then.
func (l *Lean) Cut(dst, data []byte) ([]byte, error) {
	c := cutter{in: data, out: dst}
	ok := c.value(l.whole, 0)
	c.space()
	switch {
	case c.twice != "":
		return c.out, fmt.Errorf("%q is there twice", c.twice)
	case ok && c.at == len(data):
		return c.out, nil
	}
	// encoding/json has the words for what is wrong.
	if err := json.Unmarshal(data, new(json.RawMessage)); err != nil {
		return c.out, err
	}
	return c.out, errors.New("not understood")
}

// maxDepth is how deep encoding/json goes.
const maxDepth = 10000

// cutter copies values, and passes over others, in one go. It checks what it
// passes over as encoding/json would.
type cutter struct {
	in  []byte
	at  int
	out []byte
	// twice names a member that was there before.
	twice string
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
	var seen uint64
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
		m, known := s.member(name)
		if !known {
			return c.skip(depth)
		}
		if seen&m.bit != 0 {
			c.twice = string(name[1 : len(name)-1])
			return false
		}
		if seen != 0 {
			c.out = append(c.out, ',')
		}
		seen |= m.bit
		c.out = append(append(c.out, name...), ':')
		return c.value(m.shape, depth)
	})
	c.out = append(c.out, '}')
	return ok
}

// member finds a member by its name as it is written, in quotes.
func (s *shape) member(name []byte) (m member, known bool) {
	if bytes.IndexByte(name, '\\') < 0 {
		m, known = s.members[string(name[1:len(name)-1])]
		return m, known
	}
	var plain string
	if json.Unmarshal(name, &plain) != nil {
		return m, false // it is a string: its end was found
	}
	m, known = s.members[plain]
	return m, known
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
