package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"
)

// lineFormatter writes a log line as logfmt or as a JSON object, fields in the
// order of their names. logrus' own formatters do the same by reflection; an
// access log line is a good part of what a hot image manifest costs.
type lineFormatter struct {
	json bool
}

// Format implements logrus.Formatter.
func (f lineFormatter) Format(e *logrus.Entry) ([]byte, error) {
	b := e.Buffer
	if b == nil {
		b = &bytes.Buffer{}
	}
	line := b.AvailableBuffer()
	if f.json {
		line = append(line, '{')
	}
	line = f.field(line, "time", e.Time)
	line = f.field(line, "level", e.Level.String())
	line = f.field(line, "msg", e.Message)
	keys := make([]string, 0, 24)
	for key := range e.Data {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		line = f.field(line, key, e.Data[key])
	}
	if f.json {
		line[len(line)-1] = '}' // in place of the last comma
	} else {
		line = line[:len(line)-1]
	}
	line = append(line, '\n')
	b.Write(line)
	return b.Bytes(), nil
}

// field appends one field and what separates it from the next.
func (f lineFormatter) field(line []byte, key string, value any) []byte {
	if f.json {
		line = append(appendText(line, key, true), ':')
		return append(appendValue(line, value, true), ',')
	}
	line = append(append(line, key...), '=')
	return append(appendValue(line, value, false), ' ')
}

// appendValue appends a value: numbers and booleans as they are, all else as
// text.
func appendValue(line []byte, value any, asJSON bool) []byte {
	switch v := value.(type) {
	case string:
		return appendText(line, v, asJSON)
	case int:
		return strconv.AppendInt(line, int64(v), 10)
	case int64:
		return strconv.AppendInt(line, v, 10)
	case float64:
		return strconv.AppendFloat(line, v, 'f', -1, 64)
	case bool:
		return strconv.AppendBool(line, v)
	case time.Time:
		line = append(line, '"')
		line = v.AppendFormat(line, time.RFC3339Nano)
		return append(line, '"')
	case error:
		return appendText(line, v.Error(), asJSON)
	case fmt.Stringer:
		return appendText(line, v.String(), asJSON)
	}
	if asJSON {
		if encoded, err := json.Marshal(value); err == nil {
			return append(line, encoded...)
		}
	}
	return appendText(line, fmt.Sprint(value), asJSON)
}

// appendText appends a string, quoted where the format asks for it.
func appendText(line []byte, s string, asJSON bool) []byte {
	plain, bare := true, s != ""
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&':
			plain = false
		case c == ' ' || c == '=':
			bare = false
		}
	}
	switch {
	case plain && bare && !asJSON:
		return append(line, s...)
	case plain:
		return append(append(append(line, '"'), s...), '"')
	case asJSON:
		encoded, err := json.Marshal(s)
		if err == nil {
			return append(line, encoded...)
		}
	}
	return strconv.AppendQuote(line, s)
}
