package oci_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

func TestParseRange(t *testing.T) {
	const size = 1000
	whole := oci.Span{Start: -1} // stands for ok == false
	tests := map[string]struct {
		header string
		size   int64
		want   oci.Span
		bad    bool
	}{
		"none":                   {"", size, whole, false},
		"a-b":                    {"bytes=10-19", size, oci.Span{Start: 10, End: 20}, false},
		"one byte":               {"bytes=0-0", size, oci.Span{Start: 0, End: 1}, false},
		"last byte":              {"bytes=999-999", size, oci.Span{Start: 999, End: 1000}, false},
		"a-":                     {"bytes=10-", size, oci.Span{Start: 10, End: 1000}, false},
		"all":                    {"bytes=0-", size, oci.Span{Start: 0, End: 1000}, false},
		"-n":                     {"bytes=-10", size, oci.Span{Start: 990, End: 1000}, false},
		"-n, more than there is": {"bytes=-5000", size, oci.Span{Start: 0, End: 1000}, false},
		"end past the end":       {"bytes=990-5000", size, oci.Span{Start: 990, End: 1000}, false},
		"end overflows":          {"bytes=990-99999999999999999999999", size, oci.Span{Start: 990, End: 1000}, false},
		"end is the largest":     {"bytes=990-9223372036854775807", size, oci.Span{Start: 990, End: 1000}, false},
		"-n overflows":           {"bytes=-99999999999999999999999", size, oci.Span{Start: 0, End: 1000}, false},
		"unit in capitals":       {"Bytes=1-2", size, oci.Span{Start: 1, End: 3}, false},
		"spaces":                 {"bytes = 1-2\t", size, oci.Span{Start: 1, End: 3}, false},
		"other unit":             {"lines=1-2", size, whole, false},
		"no unit":                {"1-2", size, whole, false},
		"several":                {"bytes=0-1,5-6", size, whole, false},
		"empty content":          {"bytes=0-", 0, whole, false},
		"empty content, -n":      {"bytes=-1", 0, whole, false},
		"start at the end":       {"bytes=1000-", size, whole, true},
		"start past the end":     {"bytes=5000-6000", size, whole, true},
		"start overflows":        {"bytes=99999999999999999999999-", size, whole, true},
		"backwards":              {"bytes=500-0", size, whole, true},
		"-0":                     {"bytes=-0", size, whole, true},
		"empty":                  {"bytes=", size, whole, true},
		"dash":                   {"bytes=-", size, whole, true},
		"no dash":                {"bytes=5", size, whole, true},
		"signs":                  {"bytes=+1-2", size, whole, true},
		"two dashes":             {"bytes=1--2", size, whole, true},
		"space inside":           {"bytes=1 -2", size, whole, true},
		"words":                  {"bytes=a-b", size, whole, true},
		"hexadecimal":            {"bytes=0x1-0x2", size, whole, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			spans, ok, err := oci.ParseRange(tt.header, tt.size)
			switch {
			case tt.bad:
				if ok || !errors.Is(err, oci.ErrRangeInvalid) {
					t.Errorf("got %v, %v, %v; want ErrRangeInvalid", spans, ok, err)
				}
			case tt.want == whole:
				if ok || err != nil || spans != nil {
					t.Errorf("got %v, %v, %v; want it ignored", spans, ok, err)
				}
			case !ok || err != nil || !slices.Equal(spans, []oci.Span{tt.want}):
				t.Errorf("got %v, %v, %v; want %v", spans, ok, err, tt.want)
			}
		})
	}
}

func TestAskedRange(t *testing.T) {
	tests := map[string]*oci.Span{
		"":                                   nil,
		"bytes=10-19":                        {Start: 10, End: 20},
		"bytes=10-":                          {Start: 10, End: -1},
		"bytes=-100":                         {Start: -100, End: -1},
		"bytes=0-1,5-6":                      nil,
		"bytes=19-10":                        nil,
		"bytes=x":                            nil,
		"lines=1-2":                          nil,
		"bytes=5-99999999999999999999999999": {Start: 5, End: 1<<63 - 1},
	}
	for header, want := range tests {
		if got := oci.AskedRange(header); !reflect.DeepEqual(got, want) {
			t.Errorf("AskedRange(%q) = %v, want %v", header, got, want)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=1-2", "bytes=-5", "bytes=9223372036854775807-", "bytes=0-1,2-3", "bytes=-0", "items=1-2"} {
		f.Add(s, int64(1000))
	}
	f.Add("bytes=0-", int64(0))
	f.Add("bytes=0-9223372036854775807", int64(1<<63-1))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		spans, ok, err := oci.ParseRange(header, size)
		if err != nil {
			if ok || !errors.Is(err, oci.ErrRangeInvalid) || len(err.Error()) > 1024 {
				t.Fatalf("%q of %d: %v, %v", header, size, ok, err)
			}
			return
		}
		if !ok {
			return
		}
		if len(spans) != 1 || spans[0].Start < 0 || spans[0].End > size || spans[0].Len() <= 0 {
			t.Fatalf("%q of %d: %v", header, size, spans)
		}
		if oci.AskedRange(header) == nil {
			t.Fatalf("%q: honoured for size %d, yet not asked for", header, size)
		}
		again, ok, err := oci.ParseRange(fmt.Sprintf("bytes=%d-%d", spans[0].Start, spans[0].End-1), size)
		if !ok || err != nil || !slices.Equal(again, spans) {
			t.Fatalf("%q of %d: %v, then %v, %v", header, size, spans, again, err)
		}
	})
}

func TestMediaTypes(t *testing.T) {
	tests := map[string]struct{ manifest, index bool }{
		oci.MediaTypeManifest:                      {true, false},
		oci.MediaTypeDockerManifest:                {true, false},
		oci.MediaTypeIndex:                         {true, true},
		oci.MediaTypeDockerList:                    {true, true},
		oci.MediaTypeIndex + "; charset=utf-8":     {true, true},
		strings.ToUpper(oci.MediaTypeManifest):     {true, false},
		oci.MediaTypeOctetStream:                   {false, false},
		"application/json":                         {false, false},
		"text/html":                                {false, false},
		"":                                         {false, false},
		oci.MediaTypeManifest + "x":                {false, false},
		"application/vnd.oci.image.config.v1+json": {false, false},
		"application/vnd.docker.distribution.manifest.v1+prettyjws": {false, false},
	}
	for mediaType, want := range tests {
		if got := oci.IsManifestType(mediaType); got != want.manifest {
			t.Errorf("IsManifestType(%q) = %v", mediaType, got)
		}
		if got := oci.IsIndexType(mediaType); got != want.index {
			t.Errorf("IsIndexType(%q) = %v", mediaType, got)
		}
	}
}
