package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder carries a YAML document into a struct along its yaml tags, and
// notes each mistake instead of stopping at the first. The library's own
// strict mode neither suggests the right key nor tells the column.
type decoder struct {
	file     string
	problems Problems
	// at remembers where each key's value stands, for the checks that follow.
	at map[string]*yaml.Node
}

// parser is a scalar with a form of its own.
type parser interface{ parse(text string) error }

// problem notes a mistake at n.
func (d *decoder) problem(n *yaml.Node, key, text, fix string) {
	d.problems = append(d.problems, Problem{File: d.file, Line: n.Line, Column: n.Column, Key: key, Text: text, Fix: fix})
}

// value decodes n into v, which lies at key.
func (d *decoder) value(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.at[key] = n
	if p, ok := reflect.TypeAssert[parser](v.Addr()); ok {
		d.scalar(n, key, p.parse)
		return
	}
	if short, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok && n.Kind == yaml.ScalarNode {
		d.scalar(n, key, func(s string) error { return short.UnmarshalText([]byte(s)) })
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, key)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), key)
	case reflect.Slice:
		d.sequence(n, v, key)
	case reflect.Map:
		d.dictionary(n, v, key)
	case reflect.Bool:
		d.scalar(n, key, func(s string) error {
			if n.ShortTag() != "!!bool" {
				return fmt.Errorf("%q is not a boolean; write true or false", s)
			}
			return n.Decode(v.Addr().Interface())
		})
	case reflect.Int:
		d.scalar(n, key, func(s string) error {
			if n.ShortTag() != "!!int" {
				return fmt.Errorf("%q is not a whole number", s)
			}
			return n.Decode(v.Addr().Interface())
		})
	case reflect.String:
		d.scalar(n, key, func(s string) error { v.SetString(s); return nil })
	default:
		d.problem(n, key, "no value of this kind can be read", "")
	}
}

// scalar hands the text of n to set.
func (d *decoder) scalar(n *yaml.Node, key string, set func(string) error) {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.problem(n, key, "a single value is wanted, not "+kindName(n), "")
	case n.ShortTag() == "!!null" && mayBeNull(key):
	case n.ShortTag() == "!!null":
		d.problem(n, key, "a value is wanted", "remove the key to use the default")
	default:
		if err := set(n.Value); err != nil {
			text, fix, _ := strings.Cut(err.Error(), "; ")
			d.problem(n, key, text, fix)
		}
	}
}

// mayBeNull reports whether a key with nothing behind it counts as not there:
// where files for an earlier product, written from templates, have that.
func mayBeNull(key string) bool {
	if key == "registry_proxies.max_size" {
		return true
	}
	_, name, ok := strings.Cut(strings.TrimPrefix(key, "registry_proxies.registries["), "].")
	return ok && (name == "username" || name == "password" || name == "path_prefix")
}

// sequence decodes a list. A key with nothing behind it is an empty list, so
// that all entries can be commented out.
func (d *decoder) sequence(n *yaml.Node, v reflect.Value, key string) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.problem(n, key, "a list is wanted, not "+kindName(n), "start each entry with '- '")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.value(item, out.Index(i), key+"["+strconv.Itoa(i)+"]")
	}
	v.Set(out)
}

// mapping decodes keys into the fields of a struct.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, key string) {
	d.entries(n, key, "known keys are "+strings.Join(keysOf(v.Type()), ", "), func(name, content *yaml.Node, full string) {
		if field, ok := fieldOf(v, name.Value); ok {
			d.value(content, field, full)
		} else {
			d.problem(name, full, "unknown key", suggestKey(name.Value, v.Type()))
		}
	})
}

// entries goes through the keys of a mapping, which has none where nothing is
// written. full is a key with those it stands below; fix helps whoever wrote
// something else.
func (d *decoder) entries(n *yaml.Node, key, fix string, each func(name, content *yaml.Node, full string)) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n, key, "keys and values are wanted, not "+kindName(n), fix)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, content := n.Content[i], n.Content[i+1]
		full := join(key, name.Value)
		if line, dup := seen[name.Value]; dup {
			d.problem(name, full, fmt.Sprintf("the key is there twice, first in line %d", line), "keep one of them")
			continue
		}
		seen[name.Value] = name.Line
		each(name, content, full)
	}
}

// dictionary decodes keys of the writer's own choice, which are text.
func (d *decoder) dictionary(n *yaml.Node, v reflect.Value, key string) {
	if isNull(n) {
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
	d.entries(n, key, "", func(name, content *yaml.Node, full string) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(content, item, full)
		out.SetMapIndex(reflect.ValueOf(name.Value), item)
	})
	v.Set(out)
}

// suggestKey says what a writer of an unknown key could have meant: a
// neighbour spelt alike, or a key that belongs elsewhere.
func suggestKey(name string, t reflect.Type) string {
	known := keysOf(t)
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	for _, k := range Keys() {
		if k == name || strings.HasSuffix(k, "."+name) {
			return fmt.Sprintf("it belongs to %s", strings.TrimSuffix(strings.TrimSuffix(k, name), "."))
		}
	}
	return "known keys are " + strings.Join(known, ", ")
}

// fieldOf finds the field of v that is tagged with key.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if tagOf(v.Type().Field(i)) == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// keysOf lists the keys that t's fields are tagged with, in order.
func keysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = tagOf(t.Field(i))
	}
	return keys
}

func tagOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

// Keys lists the path of every key a file may hold, parents before children;
// list entries are written "registries[].host", and what is below keys of the
// writer's choice "namespaces.*.default".
func Keys() []string { return walkKeys(reflect.TypeFor[Config](), "") }

func walkKeys(t reflect.Type, prefix string) (keys []string) {
	for f := range t.Fields() {
		key, ft := join(prefix, tagOf(f)), f.Type
		keys = append(keys, key)
		if _, scalar := reflect.TypeAssert[parser](reflect.New(ft)); scalar {
			continue
		}
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		switch ft.Kind() {
		case reflect.Slice:
			key, ft = key+"[]", ft.Elem()
		case reflect.Map:
			key, ft = key+".*", ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			keys = append(keys, walkKeys(ft, key)...)
		}
	}
	return keys
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kindName names what n is, for people.
func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}
