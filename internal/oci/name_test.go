package oci_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

func TestNewName(t *testing.T) {
	long := strings.Repeat("a", 255)
	tests := map[string]struct {
		registry, repository string
		want                 string // empty: refused
		says                 string // part of the refusal
	}{
		"plain":                   {"ghcr.io", "org/app", "ghcr.io/org/app", ""},
		"hub, one component":      {"docker.io", "nginx", "docker.io/library/nginx", ""},
		"hub, two components":     {"docker.io", "team/app", "docker.io/team/app", ""},
		"hub's index":             {"index.docker.io", "nginx", "docker.io/library/nginx", ""},
		"hub's server":            {"registry-1.docker.io", "a/b", "docker.io/a/b", ""},
		"upper-case registry":     {"GHCR.IO", "a", "ghcr.io/a", ""},
		"upper-case hub":          {"Index.Docker.IO", "nginx", "docker.io/library/nginx", ""},
		"port":                    {"127.0.0.1:5000", "a", "127.0.0.1:5000/a", ""},
		"one label and a port":    {"registry:5000", "a", "registry:5000/a", ""},
		"localhost":               {"localhost", "a", "localhost/a", ""},
		"ipv6":                    {"[::1]:5000", "a", "[::1]:5000/a", ""},
		"ipv6 without port":       {"[2001:db8::1]", "a", "[2001:db8::1]/a", ""},
		"ipv6, long form":         {"[2001:DB8:0:0:0:0:0:1]:80", "a", "[2001:db8::1]:80/a", ""},
		"largest port":            {"a.b:65535", "a", "a.b:65535/a", ""},
		"separators":              {"a.b", "a.b/c_d/e__f/g-h/i---j", "a.b/a.b/c_d/e__f/g-h/i---j", ""},
		"keywords as components":  {"a.b", "blobs/manifests/tags/list", "a.b/blobs/manifests/tags/list", ""},
		"longest repository":      {"a.b", long, "a.b/" + long, ""},
		"empty registry":          {"", "a", "", "empty"},
		"user":                    {"user:secret@a.b", "a", "", "without a user name"},
		"scheme and user":         {"https://user:secret@a.b", "a", "", "without a user name"},
		"scheme":                  {"https://a.b", "a", "", "without a scheme"},
		"path":                    {"a.b/c", "a", "", "without a path"},
		"query":                   {"a.b?x=1", "a", "", "without a path or query"},
		"fragment":                {"a.b#x", "a", "", "without a path or query"},
		"space":                   {"a.b c", "a", "", "letters, digits"},
		"control character":       {"a.b\r\nX: y", "a", "", "port"},
		"nul":                     {"a\x00.b", "a", "", "letters, digits"},
		"trailing dot":            {"docker.io.", "a", "", "without the dot at its end"},
		"trailing dot, port":      {"docker.io.:443", "a", "", "without the dot at its end"},
		"empty label":             {"a..b", "a", "", "letters, digits"},
		"leading dot":             {".a.b", "a", "", "letters, digits"},
		"label starts with dash":  {"-a.b", "a", "", "letters, digits"},
		"underscore":              {"a_b.c", "a", "", "letters, digits"},
		"long label":              {strings.Repeat("a", 64) + ".b", "a", "", "letters, digits"},
		"long host":               {strings.Repeat("a.", 127) + "b", "a", "", "253"},
		"other script":            {"registry.бг", "a", "", "punycode"},
		"one label":               {"registry", "a", "", "needs a port"},
		"port zero":               {"a.b:0", "a", "", "1 to 65535"},
		"port too large":          {"a.b:65536", "a", "", "1 to 65535"},
		"port far too large":      {"a.b:99999999999999999999", "a", "", "1 to 65535"},
		"port empty":              {"a.b:", "a", "", "1 to 65535"},
		"port signed":             {"a.b:+80", "a", "", "1 to 65535"},
		"port with zeros":         {"a.b:0080", "a", "", "1 to 65535"},
		"port not a number":       {"a.b:http", "a", "", "1 to 65535"},
		"ipv6 bare":               {"::1", "a", "", "in brackets"},
		"ipv6 zone":               {"[fe80::1%25eth0]", "a", "", "zone"},
		"ipv6 unclosed":           {"[::1", "a", "", "never closed"},
		"ipv6 trailing":           {"[::1]5000", "a", "", "only a port"},
		"ipv6 no address":         {"[]:80", "a", "", "not an IPv6"},
		"ipv4 in brackets":        {"[127.0.0.1]:80", "a", "", "not an IPv6"},
		"ipv4 in ipv6":            {"[::ffff:127.0.0.1]:80", "a", "", "write 127.0.0.1"},
		"ipv4, short":             {"127.1:80", "a", "", "four decimal"},
		"ipv4, one number":        {"2130706433:80", "a", "", "four decimal"},
		"ipv4, hexadecimal":       {"0x7f000001:80", "a", "", "four decimal"},
		"ipv4, octal":             {"0177.0.0.1", "a", "", "four decimal"},
		"ipv4, too large":         {"127.0.0.256", "a", "", "four decimal"},
		"empty repository":        {"a.b", "", "", "lower-case"},
		"hub, empty repository":   {"docker.io", "", "", "lower-case"},
		"upper-case repository":   {"a.b", "A", "", "lower-case"},
		"leading slash":           {"a.b", "/a", "", "lower-case"},
		"trailing slash":          {"a.b", "a/", "", "lower-case"},
		"double slash":            {"a.b", "a//b", "", "lower-case"},
		"dots":                    {"a.b", "../../etc/passwd", "", "lower-case"},
		"dot":                     {"a.b", "a/./b", "", "lower-case"},
		"two dots inside":         {"a.b", "a..b", "", "lower-case"},
		"three underscores":       {"a.b", "a___b", "", "lower-case"},
		"mixed separators":        {"a.b", "a_-b", "", "lower-case"},
		"leading separator":       {"a.b", "_a", "", "lower-case"},
		"trailing separator":      {"a.b", "a-", "", "lower-case"},
		"tag":                     {"a.b", "a:v1", "", "lower-case"},
		"too long":                {"a.b", long + "a", "", "255"},
		"too long with library/":  {"docker.io", long, "", "255"},
		"repository with newline": {"a.b", "a\nb", "", "lower-case"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := oci.NewName(tt.registry, tt.repository)
			if tt.want == "" {
				if !errors.Is(err, oci.ErrNameInvalid) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %q, %v; want ErrNameInvalid saying %q", got, err, tt.says)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("error %q repeats a password", err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Fatalf("got %q, %v; want %q", got, err, tt.want)
			}
			again, err := oci.ParseName(got.String())
			if err != nil || again != got {
				t.Errorf("ParseName(%q) = %q, %v", got, again, err)
			}
		})
	}
}

func TestParseNameNeedsARegistry(t *testing.T) {
	for _, s := range []string{"", "nginx", "library/nginx", "/nginx"} {
		if got, err := oci.ParseName(s); !errors.Is(err, oci.ErrNameInvalid) {
			t.Errorf("ParseName(%q) = %q, %v; want ErrNameInvalid", s, got, err)
		}
	}
}

func TestErrorTextIsBounded(t *testing.T) {
	_, err := oci.ParseName(strings.Repeat("a", 1<<20))
	if err == nil || len(err.Error()) > 512 {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
}
