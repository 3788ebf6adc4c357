package nodeconfig

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// lineMark ends the lines we put into files of others.
const lineMark = " # larder init"

// configPathKey is the one key that is set in files of others.
const configPathKey = "config_path"

// setConfigPath returns the ways to make the TOML document content say that the
// table at tables has config_path = value, the least intrusive first. Each differs from
// content in one place, where the value is replaced or a line inserted; every
// other byte stays, with its comments, blanks and line ends. Each was parsed
// again, and says what content says and this, and nothing else.
//
// Nothing is returned when there is no such way, for example because the table
// is an array, and an error when content cannot be parsed.
func setConfigPath(content []byte, tables []string, value string) ([][]byte, error) {
	want, err := parseTOML("document", content)
	if err != nil {
		return nil, err
	}
	if !assign(want, tables, value) {
		return nil, nil
	}
	var ways [][]byte
	for _, way := range spliced(content, findSpots(content, tables), tables, value) {
		got, err := parseTOML("document", way)
		if err == nil && reflect.DeepEqual(got, want) {
			ways = append(ways, way)
		}
	}
	return ways, nil
}

// assign sets a value in decoded tables, making those that are missing. It is
// false when something on the way is no table.
func assign(tables map[string]any, names []string, value string) bool {
	for _, name := range names {
		next, ok := tables[name].(map[string]any)
		if !ok {
			if tables[name] != nil {
				return false
			}
			next = map[string]any{}
			tables[name] = next
		}
		tables = next
	}
	if _, table := tables[configPathKey].(map[string]any); table {
		return false
	}
	tables[configPathKey] = value
	return true
}

// spots are the places of a document at which config_path can be set, as
// offsets; -1 where there is none.
type spots struct {
	value, valueEnd int    // the value it has
	header          int    // after the name of the table's own header
	inline          int    // after the brace of the table written inline
	sibling         int    // in the last line of an expression that names the table by dots
	dotted          string // how that expression names it
}

// findSpots walks through a document that parses.
func findSpots(content []byte, tables []string) spots {
	s := spots{value: -1, header: -1, inline: -1, sibling: -1}
	p := unstable.Parser{}
	p.Reset(content)
	var at []string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			at = at[:0]
			end := 0
			for it := e.Key(); it.Next(); {
				at = append(at, string(it.Node().Data))
				end = int(it.Node().Raw.Offset + it.Node().Raw.Length)
			}
			if e.Kind == unstable.Table && slices.Equal(at, tables) {
				s.header = end
			}
		case unstable.KeyValue:
			s.expression(e, at, tables)
		default: // a comment
		}
	}
	return s
}

// expression looks at one key = value in the table at, and into inline tables.
func (s *spots) expression(e *unstable.Node, at, tables []string) {
	var names, raw []string
	for it := e.Key(); it.Next(); {
		names = append(names, string(it.Node().Data))
		raw = append(raw, quoteKey(string(it.Node().Data)))
	}
	full := slices.Concat(at, names)
	value := e.Value()
	if slices.Equal(full, slices.Concat(tables, []string{configPathKey})) {
		s.value, s.valueEnd = int(value.Raw.Offset), int(value.Raw.Offset+value.Raw.Length)
		return
	}
	if value.Kind == unstable.InlineTable {
		if slices.Equal(full, tables) {
			s.inline = int(value.Raw.Offset) + 1
		}
		for it := value.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				inner := *s
				inner.expression(it.Node(), full, tables)
				s.value, s.valueEnd, s.inline = inner.value, inner.valueEnd, inner.inline
			}
		}
		return
	}
	if len(at) < len(tables) && len(full) > len(tables) && slices.Equal(full[:len(tables)], tables) {
		s.sibling = int(e.Raw.Offset+e.Raw.Length) - 1
		s.dotted = strings.Join(raw[:len(tables)-len(at)], ".")
	}
}

// spliced are the documents that come of setting the key at each of the spots.
func spliced(content []byte, s spots, tables []string, value string) [][]byte {
	var ways [][]byte
	if s.value >= 0 {
		end := lineStop(content, s.valueEnd)
		text := quoteValue(value)
		if len(bytes.TrimSpace(content[s.valueEnd:end])) == 0 && !bytes.Contains(content[s.value:s.valueEnd], []byte("\n")) {
			text += lineMark
		}
		return append(ways, slices.Concat(content[:s.value], []byte(text), content[s.valueEnd:]),
			slices.Concat(content[:s.value], []byte(quoteValue(value)), content[s.valueEnd:]))
	}
	pair := configPathKey + " = " + quoteValue(value)
	if s.header >= 0 {
		ways = append(ways, insertLine(content, s.header, indentBelow(content, s.header)+pair+lineMark))
	}
	if s.inline >= 0 {
		comma := ","
		if rest := bytes.TrimLeft(content[s.inline:], " \t\r\n"); bytes.HasPrefix(rest, []byte("}")) {
			comma = ""
		}
		ways = append(ways, slices.Concat(content[:s.inline], []byte(" "+pair+comma), content[s.inline:]))
	}
	if s.sibling >= 0 {
		ways = append(ways, insertLine(content, s.sibling, indentOf(content, s.sibling)+s.dotted+"."+pair+lineMark))
	}
	quoted := make([]string, len(tables))
	for i, name := range tables {
		quoted[i] = quoteKey(name)
	}
	nl := lineBreak(content)
	table := nl + "[" + strings.Join(quoted, ".") + "]" + lineMark + nl + "  " + pair + nl
	if len(content) > 0 && !bytes.HasSuffix(content, []byte("\n")) {
		table = nl + table
	}
	return append(ways, slices.Concat(content, []byte(table)))
}

// insertLine puts a line after the one that offset is in.
func insertLine(content []byte, offset int, line string) []byte {
	end := lineStop(content, offset)
	nl := lineBreak(content)
	if end == len(content) {
		return slices.Concat(content, []byte(nl+line))
	}
	end += bytes.IndexByte(content[end:], '\n') + 1
	return slices.Concat(content[:end], []byte(line+nl), content[end:])
}

// lineStop is where the line that offset is in ends, before its line break.
func lineStop(content []byte, offset int) int {
	i := bytes.IndexByte(content[offset:], '\n')
	if i < 0 {
		return len(content)
	}
	if i > 0 && content[offset+i-1] == '\r' {
		i--
	}
	return offset + i
}

// lineBreak is how the document ends its lines.
func lineBreak(content []byte) string {
	if i := bytes.IndexByte(content, '\n'); i > 0 && content[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// indentOf is the blank start of the line that offset is in.
func indentOf(content []byte, offset int) string {
	line := content[bytes.LastIndexByte(content[:offset], '\n')+1:]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

// indentBelow is the indent for a first line below a header: that of the line
// there now, when it is a key of this table, else two blanks more than the
// header's.
func indentBelow(content []byte, header int) string {
	end := lineStop(content, header)
	if i := bytes.IndexByte(content[end:], '\n'); i >= 0 {
		next := content[end+i+1:]
		text := bytes.TrimLeft(next, " \t")
		if len(text) > 0 && !bytes.ContainsAny(text[:1], "[#\r\n") {
			return string(next[:len(next)-len(text)])
		}
	}
	return indentOf(content, header) + "  "
}

// quoteKey writes a key, bare when it can be (TOML 1.0, "Keys").
func quoteKey(name string) string {
	bare := name != "" && strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) < 0
	if bare {
		return name
	}
	return quoteValue(name)
}

// quoteValue writes a basic string (TOML 1.0, "String").
func quoteValue(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
