package nodeconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// mirrorsKey is what daemon.json calls its mirrors.
const mirrorsKey = "registry-mirrors"

// addMirrors returns a daemon.json that lists mirrors before those it has,
// every other byte kept. A mirror that is listed, wherever, is not moved. It
// fails, with the line, on what Docker could not read either.
func addMirrors(content []byte, mirrors []string) ([]byte, error) {
	if blank(content) {
		content = []byte("{}\n")
	}
	before, err := parseDaemon(content)
	if err != nil {
		return nil, err
	}
	have, err := listed(before)
	if err != nil {
		return nil, err
	}
	missing := slices.DeleteFunc(slices.Clone(mirrors), func(m string) bool {
		return slices.Contains(have, m) || slices.Contains(have, m+"/")
	})
	if len(missing) == 0 {
		return content, nil
	}
	at, text, err := insertion(content, missing)
	if err != nil {
		return nil, err
	}
	edited := slices.Concat(content[:at], []byte(text), content[at:])
	// What is written must say what was there, and the mirrors.
	before[mirrorsKey] = anySlice(slices.Concat(missing, have))
	after, err := parseDaemon(edited)
	if err != nil || !reflect.DeepEqual(before, after) {
		return nil, fmt.Errorf("its form is beyond what is edited safely; add %q to %q by hand", missing, mirrorsKey)
	}
	return edited, nil
}

// parseDaemon reads daemon.json as Docker does: one object, and no more.
func parseDaemon(content []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.UseNumber()
	var config map[string]any
	err := dec.Decode(&config)
	if err == nil && config == nil {
		err = errors.New("it is null, and should be an object")
	}
	if err == nil {
		if _, end := dec.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something follows the object")
		}
	}
	if err == nil {
		return config, nil
	}
	at := int(dec.InputOffset())
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = int(e.Offset) - 1 // the offset is after the byte that is wrong
	} else if errors.Is(err, io.ErrUnexpectedEOF) {
		at = len(bytes.TrimSpace(content))
	}
	line := 1 + bytes.Count(content[:max(0, min(at, len(content)))], []byte("\n"))
	return nil, fmt.Errorf("line %d: %w", line, err)
}

// listed are the mirrors of a parsed daemon.json.
func listed(config map[string]any) ([]string, error) {
	value, ok := config[mirrorsKey]
	if !ok {
		return nil, nil
	}
	all, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("%q is not a list", mirrorsKey)
	}
	var mirrors []string
	for _, m := range all {
		mirror, ok := m.(string)
		if !ok {
			return nil, fmt.Errorf("%q lists something other than text", mirrorsKey)
		}
		mirrors = append(mirrors, mirror)
	}
	return mirrors, nil
}

func anySlice(all []string) []any {
	list := make([]any, len(all))
	for i := range all {
		list[i] = all[i]
	}
	return list
}

// insertion finds where mirrors go, and how they are written there: like what
// follows them.
func insertion(content []byte, mirrors []string) (at int, text string, err error) {
	dec := json.NewDecoder(bytes.NewReader(content))
	if _, err := dec.Token(); err != nil { // the brace
		return 0, "", err
	}
	first := int(dec.InputOffset())
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return 0, "", err
		}
		if key != mirrorsKey {
			var skipped json.RawMessage
			if err := dec.Decode(&skipped); err != nil {
				return 0, "", err
			}
			continue
		}
		if _, err := dec.Token(); err != nil { // the bracket
			return 0, "", err
		}
		at := int(dec.InputOffset())
		space := leadingSpace(content[at:])
		for _, m := range mirrors {
			text += space + quoteJSON(m) + ","
		}
		switch {
		case content[at+len(space)] == ']':
			text = text[:len(text)-1]
		case space == "":
			text += " "
		}
		return at, text, nil
	}
	quoted := slices.Clone(mirrors)
	for i := range quoted {
		quoted[i] = quoteJSON(quoted[i])
	}
	list := "[" + strings.Join(quoted, ", ") + "]"
	space := leadingSpace(content[first:])
	if content[first+len(space)] == '}' {
		return first, "\n  " + quoteJSON(mirrorsKey) + ": " + list + jsonEnd(space), nil
	}
	text = space + quoteJSON(mirrorsKey) + ": " + list + ","
	if space == "" {
		text += " "
	}
	return first, text, nil
}

// jsonEnd is a line's end, unless one follows already.
func jsonEnd(space string) string {
	if space != "" && space[0] == '\n' {
		return ""
	}
	return "\n"
}

func leadingSpace(content []byte) string {
	return string(content[:len(content)-len(bytes.TrimLeft(content, " \t\r\n"))])
}

func quoteJSON(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		return `""` // a string always encodes
	}
	return string(raw)
}
