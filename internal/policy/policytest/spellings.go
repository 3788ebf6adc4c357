package policytest

import "strings"

// Spellings are images put together from parts that parsers have been known to
// disagree on: every host with every path, every path with every tag and digest.
// Some thousand.
func Spellings() []string {
	hosts := []string{
		"", "docker.io/", "index.docker.io/", "registry-1.docker.io/", "registry.hub.docker.com:443/", "Docker.IO/", "docker.io:5000/",
		"ghcr.io/", "GHCR.io:443/", "ghcr.io:0443/", "ghcr.io:65535/", "ghcr.io:65536/", "ghcr.io:/", "ghcr.io./", "quay.io.evil.com/",
		"localhost/", "localhost:5000/", "LocalHost/", "A/", "a:443/", "a:80/", "A-b:443/", "a_b/", "a_b.io/", "-a.io/", "a-.io/", "a.-b/", "x--y.io/",
		"r.example.com/", "bad.example.com/", "example.com/", ".example.com/", "*.example.com/", "quay.io/", "registry.example.net:5000/",
		"1.2.3.4/", "1.2.3.4:5000/", "127.0.0.1:5000/", "1.2.3/", "1.2.3.4.5/", "01.2.3.4/", "a.0x1f/", "a.0x/", "a.1/", "1.a/",
		"[::1]/", "[::1]:443/", "[::1]:5000/", "[0:0::1]:5000/", "[::ffff:1.2.3.4]/", "[::ffff:102:304]/", "[1::2::3]/", "[]/", "[::1/", "::1/", "[2001:DB8::1]:5000/",
		"hub-mirror.example/", "old.example:5000/", "http://", "user@quay.io/", "é.io/", "xn--e1afmkfd.io/",
		strings.Repeat("a", 63) + ".io/", strings.Repeat("a", 64) + ".io/", strings.Repeat("a.", 126) + "b/", strings.Repeat("a.", 127) + "b/",
	}
	paths := []string{
		"", "a", "ok", "secret", "library/secret", "library", "org", "org/x", "organisation", "org/old/x", "org/fine", "fine", "fine/x", "team/app", "below", "below/x",
		"A", "a/B", "a//b", "a/./b", "a/../b", "/a", "a/", "a__b", "a___b", "a--b", "a-", "_a", "a._b", "a%2fb", "a b", "ä", "pinned/x", "evil", "x/y/z/w",
		strings.Repeat("a", 248), strings.Repeat("b", 255), "sha256",
	}
	tags := []string{
		"", ":1", ":", ":Latest", ":.x", ":a:b", ":" + strings.Repeat("t", 128), ":" + strings.Repeat("t", 129),
		"@sha256:" + hex, ":1@sha256:" + hex, "@sha256:" + hex[1:], "@sha256:" + strings.ToUpper(hex), "@sha512:" + hex + hex, "@sha384:" + hex + hex[:32], "@md5:" + hex[:32],
		"@sha256:" + hex + "@sha256:" + hex, "@",
	}
	var images []string
	for i, host := range hosts {
		for _, path := range paths {
			if i < 3 {
				for _, tag := range tags {
					images = append(images, host+path+tag)
				}
				continue
			}
			images = append(images, host+path, host+path+":1@sha256:"+hex)
		}
	}
	return append(images, hex, hex[1:], "sha256:"+hex, "sha512:"+hex+hex, "sha384:x", "sha256:x@sha256:"+hex, "SHA256:x", "sha256", "sha256/x:1", " a", "a ", "\ta", "a\n", "\x00", "a\x00b")
}
