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
	line = f.end(line)
	b.Write(append(line, '\n'))
	return b.Bytes(), nil
}

// field appends one field and what separates it from the next.
func (f lineFormatter) field(line []byte, key string, value any) []byte {
	return f.separate(appendValue(f.key(line, key), value, f.json))
}

// key appends a field's name, up to its value. Names are our own: plain words.
func (f lineFormatter) key(line []byte, key string) []byte {
	if f.json {
		return append(append(append(line, '"'), key...), `":`...)
	}
	return append(append(line, key...), '=')
}

// separate appends what stands between a field and the next.
func (f lineFormatter) separate(line []byte) []byte {
	if f.json {
		return append(line, ',')
	}
	return append(line, ' ')
}

// end puts the end of a line in place of the last separator.
func (f lineFormatter) end(line []byte) []byte {
	if f.json {
		line[len(line)-1] = '}'
		return line
	}
	return line[:len(line)-1]
}

// constant are the fields that every line of the access log begins with.
func (f lineFormatter) constant() string {
	if f.json {
		return `"level":"info","msg":"request",`
	}
	return "level=info msg=request "
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
		return appendNumber(line, v)
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

// appendNumber appends a number as strconv does without an exponent; whole ones
// and thousandths, which nearly all are, by the short way.
func appendNumber(line []byte, v float64) []byte {
	if whole := int64(v); float64(whole) == v {
		return strconv.AppendInt(line, whole, 10)
	}
	thousandths := int64(v*1000 + 0.5)
	if v < 0 || v > 1e9 || float64(thousandths)/1000 != v {
		return strconv.AppendFloat(line, v, 'f', -1, 64)
	}
	line = append(strconv.AppendInt(line, thousandths/1000, 10), '.')
	rest := thousandths % 1000
	for unit := int64(100); rest > 0; unit /= 10 {
		line = append(line, byte('0'+rest/unit))
		rest %= unit
	}
	return line
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
