package admin

import (
	"bytes"
	"fmt"
	"html"
	"strconv"
	"strings"
	"time"

	"github.com/larder-registry/larder/internal/status"
)

// markup is HTML of our own. Constants are taken for it, strings that come from
// somewhere are not: they go in as values, and are escaped.
type markup string

// page is HTML being written. Values stand in two places only, in text and
// between the double quotes of an attribute that is neither a script, a style
// nor an address: for both the same escaping holds. html/template knows all
// other places, too; it is not used since it makes the binary larger by a
// quarter (docs/adr/0029-status-page.md).
type page struct{ bytes.Buffer }

// add writes markup, with a value for each %s and %d. Strings are escaped.
func (p *page) add(format markup, values ...any) {
	for i, v := range values {
		switch v := v.(type) {
		case markup, int, int64:
		case string:
			values[i] = html.EscapeString(v)
		default:
			values[i] = html.EscapeString(fmt.Sprint(v))
		}
	}
	if len(values) == 0 {
		p.WriteString(string(format))
		return
	}
	fmt.Fprintf(p, string(format), values...)
}

// count writes a number with its thousands apart, by a thin space that does not
// break.
func count[N int | int64 | uint64](n N) string {
	text := strconv.FormatInt(int64(n), 10) //nolint:gosec // a count
	var b strings.Builder
	for i, c := range text {
		if i > 0 && (len(text)-i)%3 == 0 && text[i-1] != '-' {
			b.WriteString("\u202f")
		}
		b.WriteRune(c)
	}
	return b.String()
}

// ago writes when something was, seen from now.
func (p *page) ago(at, now time.Time) {
	text := status.Since(at, now)
	if text == "–" {
		p.add(`<span class=dim>–</span>`)
		return
	}
	p.add(`<time datetime="%s" title="%s">%s</time>`, at.UTC().Format(time.RFC3339), at.UTC().Format("2006-01-02 15:04:05 UTC"), text)
}

// until writes when something will be.
func (p *page) until(at, now time.Time) {
	p.add(`<time datetime="%s">%s</time>`, at.UTC().Format(time.RFC3339), status.Span(at.Sub(now)))
}

// badge writes a word that stands out. kind is one of the style's: good, warn,
// bad or none.
func (p *page) badge(kind, word markup) {
	p.add(`<span class="badge %s">%s</span>`, kind, word)
}
