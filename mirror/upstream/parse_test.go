package upstream

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/larder-registry/larder/internal/oci"
)

func TestContentRange(t *testing.T) {
	for _, test := range []struct {
		header string
		span   oci.Span
		size   int64
		ok     bool
	}{
		{"bytes 0-0/1", oci.Span{Start: 0, End: 1}, 1, true},
		{"bytes 10-19/100", oci.Span{Start: 10, End: 20}, 100, true},
		{"bytes 10-19/*", oci.Span{Start: 10, End: 20}, -1, true},
		{"bytes 0-9223372036854775805/*", oci.Span{Start: 0, End: 9223372036854775806}, -1, true},
		{"", oci.Span{}, 0, false},
		{"bytes", oci.Span{}, 0, false},
		{"bytes */100", oci.Span{}, 0, false},
		{"bytes 10-19", oci.Span{}, 0, false},
		{"bytes 19-10/100", oci.Span{}, 0, false},
		{"bytes 10-100/100", oci.Span{}, 0, false},
		{"bytes 10-19/", oci.Span{}, 0, false},
		{"bytes -19/100", oci.Span{}, 0, false},
		{"bytes 10-/100", oci.Span{}, 0, false},
		{"bytes +1-19/100", oci.Span{}, 0, false},
		{"bytes 1-1 9/100", oci.Span{}, 0, false},
		{"bytes=10-19/100", oci.Span{}, 0, false},
		{"items 10-19/100", oci.Span{}, 0, false},
		{"bytes 0-9223372036854775807/*", oci.Span{}, 0, false},
		{"bytes 0-99999999999999999999/*", oci.Span{}, 0, false},
	} {
		span, size, ok := contentRange(test.header)
		if span != test.span || size != test.size || ok != test.ok {
			t.Errorf("contentRange(%q): %v, %d, %t; want %v, %d, %t", test.header, span, size, ok, test.span, test.size, test.ok)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, seed := range []string{"", "bytes 0-0/1", "bytes 10-19/*", "bytes */3", "bytes 1-2/3", "bytes 0-9223372036854775807/*"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		span, size, ok := contentRange(header)
		if !ok {
			return
		}
		if span.Start < 0 || span.Len() <= 0 || size >= 0 && span.End > size || size < -1 {
			t.Errorf("contentRange(%q): %v of %d", header, span, size)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := newClock().now()
	for _, test := range []struct {
		header string
		want   time.Duration
	}{
		{"", 0},
		{"0", 0},
		{"7", 7 * time.Second},
		{" 7 ", 7 * time.Second},
		{"3600", time.Hour},
		{"3601", time.Hour},
		{"99999999999999999999", time.Hour},
		{"-5", 0},
		{"1.5", 0},
		{"later", 0},
		{now.Add(90 * time.Second).Format(http.TimeFormat), 90 * time.Second},
		{now.Add(-time.Minute).Format(http.TimeFormat), 0},
		{now.Add(48 * time.Hour).Format(http.TimeFormat), time.Hour},
		{now.Add(time.Minute).Format(time.ANSIC), time.Minute},
	} {
		if got := retryAfter(http.Header{"Retry-After": {test.header}}, now); got != test.want {
			t.Errorf("retryAfter(%q): %v, want %v", test.header, got, test.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "7", "-1", "99999999999999999999", "Fri, 02 Jan 2026 03:05:05 GMT", "Mon Jan  2 15:04:05 9999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if d := retryAfter(http.Header{"Retry-After": {header}}, newClock().now()); d < 0 || d > maxPause {
			t.Errorf("retryAfter(%q): %v", header, d)
		}
	})
}

func TestSanitise(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"plain", "not found", "not found"},
		{"lines", "a\r\n\tb\n", "a b"},
		{"control", "a\x00\x1b[31mb", "a[31mb"},
		{"not UTF-8", "a\xffb", "ab"},
		{"query", `see https://s3.test/b?X-Amz-Signature=abc&x=y, or "http://c.test/?q" now`, `see https://s3.test/b?, or "http://c.test/?" now`},
		{"secret", "bearer s3cret was refused", "bearer [redacted] was refused"},
		{"secret taken apart", "s3c\xffret", "[redacted]"},
		{"long", strings.Repeat("äx", 200), strings.Repeat("äx", 65) + "ä"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := sanitise(test.text, "s3cret", ""); got != test.want {
				t.Errorf("sanitise: %q, want %q", got, test.want)
			}
		})
	}
}

func FuzzSanitise(f *testing.F) {
	for _, seed := range []string{"", "a?b=MARKER", "MARKER", "MARK\xacER", "x\x00y\xff", "https://a/?sig=MARKER\"rest"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := sanitise(text, "MARKER")
		if len(got) > maxText || !utf8.ValidString(got) || strings.Contains(got, "MARKER") {
			t.Errorf("sanitise(%q): %q", text, got)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("sanitise(%q): %q has characters that do not print", text, got)
		}
	})
}

func FuzzManifestType(f *testing.F) {
	f.Add("", []byte(manifestJSON))
	f.Add("text/html", []byte("<html>"))
	f.Add(oci.MediaTypeIndex+"; charset=utf-8", []byte(`{"manifests":[]}`))
	f.Add("application/json", []byte(`{"layers":[],"config":{}}`))
	f.Add("x", []byte(`{"mediaType":3}`))
	f.Add("x", []byte(`{"mediaType":"x"}`))
	f.Fuzz(func(t *testing.T, contentType string, content []byte) {
		mediaType, ok := manifestType(contentType, content)
		if ok && mediaType == "" {
			t.Errorf("manifestType(%q, %q): nothing", contentType, content)
		}
	})
}
