package faults

import (
	"bytes"
	"net/http"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

// table is every fault the upstream knows. What a cell allows with a bar is
// left to the mirror; what all of them exclude is a wrong byte in an answer
// that ends cleanly, and a stall.
func table() []row {
	users := map[string]string{user: password}
	// failed is the honest status for what the upstream would not give.
	const failed = "502|503"
	return []row{
		{name: "none", want: cells{
			tagCold: want(right, 1), tagCached: want(right, 1), tagMoved: want(right, 2), byDigest: want(right, 1),
			blob: want(right, 1), listed: want(right, 1), ranged: want(right, 1),
		}},
		{name: "none, over TLS and IPv6", opts: registry.Options{TLS: true, IPv6: true}, want: cells{
			tagCold: want(right, 1), tagCached: want(right, 1), tagMoved: want(right, 2), byDigest: want(right, 1),
			blob: want(right, 1), listed: want(right, 1), ranged: want(right, 1),
		}},
		{name: "none, with a password", opts: registry.Options{Users: users, Basic: true}, want: cells{
			tagCold: want(right, 2), tagCached: want(right, 2), byDigest: want(right, 2),
			blob: want(right, 2), listed: want(right, 2), ranged: want(right, 2),
		}},

		// What the head says.
		{name: "no digest header", fault: registry.Fault{NoDigest: true}, want: cells{
			tagCold: want(right, 1), tagCached: want(right, 2), tagMoved: want(right, 3), byDigest: want(right, 1),
			blob: want(right, 1), listed: want(right, 1), ranged: want(right, 1),
		}},
		// The digest a HEAD names wrongly is not there.
		{name: "wrong digest header", fault: registry.Fault{Digest: "sha256:" + zeros}, want: cells{
			tagCold: want(failed, 1), tagCached: want(stale+"|404", 3), tagMoved: want(stale+"|404", 6), byDigest: want(failed, 1),
			blob: want(right, 1), listed: want(right, 1), ranged: want(right, 1),
		}},
		{name: "no length", fault: registry.Fault{NoLength: true}, want: cells{
			tagCold: want(right, 1), tagCached: want(right, 2), tagMoved: want(right, 3), byDigest: want(right, 1),
			blob: want(right, 3), listed: want(right, 1), ranged: want(right, 1),
		}},
		{name: "no length on GET", fault: registry.Fault{Method: http.MethodGet, NoLength: true}, want: cells{
			blob: want(right, 2), listed: want(right, 1), ranged: want(right, 1),
		}},
		// The content says what it is.
		{name: "wrong type", fault: registry.Fault{ContentType: "text/html"}, want: cells{
			tagCold: want(right, 1), tagCached: want(right, 2), tagMoved: want(right, 3), byDigest: want(right, 1),
			blob: want(right, 1), listed: want(right, 1), ranged: want(right, 1),
		}},
		{name: "no type", fault: registry.Fault{ContentType: "none"}, want: cells{
			tagCold: want(right, 1), tagCached: want(right, 2), tagMoved: want(right, 3), byDigest: want(right, 1),
			blob: want(right, 1), listed: want(right, 1), ranged: want(right, 1),
		}},
		{name: "HEAD 405", fault: registry.Fault{Method: http.MethodHead, Status: 405}, want: cells{
			tagCold: want(right, 1), tagCached: want(right, 2), tagMoved: want(right, 3), byDigest: want(right, 1),
			blob: want(right, 1), listed: want(right, 1), ranged: want(right, 1),
		}},
		{name: "gzip applied", fault: registry.Fault{Gzip: true}, want: cells{
			tagCold: want(failed, 1), tagCached: want(stale, 1), tagMoved: want(stale, 2), byDigest: want(failed, 1),
			blob: want(failed, 1), listed: want(failed, 1), ranged: want(failed, 1),
		}},
		{name: "gzip claimed", fault: registry.Fault{Encoding: "gzip"}, want: cells{
			tagCold: want(failed, 1), tagCached: want(stale, 1), tagMoved: want(stale, 2), byDigest: want(failed, 1),
			blob: want(failed, 1), listed: want(failed, 1), ranged: want(failed, 1),
		}},

		// What the body is. A wrong byte is only found out at the end, which is
		// therefore held back; a part of a blob cannot be found out at all, and
		// is what the client checks. On a busy machine the end may have come
		// before the client has its status, which is then one of a failure.
		{name: "short body", fault: registry.Fault{Short: 1}, want: cells{
			tagCold: want(failed, 1), tagCached: want(right, 1), tagMoved: want(stale, 2), byDigest: want(failed, 1),
			blob: want(broken+"|"+failed, 1), listed: want(broken+"|"+failed, 1), ranged: want(broken, 3),
		}},
		{name: "short chunked body", fault: registry.Fault{Method: http.MethodGet, Short: 1, NoLength: true}, want: cells{
			tagCold: want(failed, 1), tagMoved: want(stale, 2), byDigest: want(failed, 1),
			blob: want(broken+"|"+failed, 4), listed: want(broken+"|"+failed, 3), ranged: want(broken, 3),
		}},
		{name: "longer body", fault: registry.Fault{Long: 1}, want: cells{
			tagCold: want(failed, 1), tagMoved: want(stale, 2), byDigest: want(failed, 1),
			blob: want(broken+"|"+failed, 1), listed: want(broken+"|"+failed, 1), ranged: want(right, 1),
		}},
		{name: "flipped byte", fault: registry.Fault{Flip: true, At: 150}, want: cells{
			tagCold: want(failed, 1), tagCached: want(right, 1), tagMoved: want(stale, 2), byDigest: want(failed, 1),
			blob: want(spoiled+"|"+failed, 1), listed: want(spoiled+"|"+failed, 1),
		}},
		{name: "flipped last byte", fault: registry.Fault{Flip: true, At: -1}, want: cells{
			tagCold: want(failed, 1), tagMoved: want(stale, 2), byDigest: want(failed, 1),
			blob: want(broken+"|"+failed, 1), listed: want(broken+"|"+failed, 1),
		}},

		// Where the body ends.
		{name: "cut once", fault: registry.Fault{Method: http.MethodGet, Cut: true, At: 100, Times: 1}, want: cells{
			tagCold: want(right, 2), tagMoved: want(right, 3), byDigest: want(right, 2),
			blob: want(right, 2), listed: want(right, 2), ranged: want(right, 2),
		}},
		{name: "cut each time, with progress", fault: registry.Fault{Cut: true, At: 100_000}, want: cells{
			tagCold: want(right, 1), blob: want(right, 3), listed: want(right, 3),
		}},
		{name: "cut each time, without", fault: registry.Fault{Method: http.MethodGet, Cut: true}, want: cells{
			tagCold: want(failed, 4), tagCached: want(right, 1), tagMoved: want(stale, 5), byDigest: want(failed, 4),
			blob: want(broken+"|"+failed, 5), listed: want(broken+"|"+failed, 5), ranged: want(broken+"|"+failed, 5),
		}},
		{name: "no answer once", fault: registry.Fault{Drop: true, Times: 1}, want: cells{
			tagCold: want(right, 2), tagCached: want(right, 2), tagMoved: want(right, 3), byDigest: want(right, 2),
			blob: want(right, 2), listed: want(right, 2), ranged: want(right, 2),
		}},
		{name: "no answer ever", fault: registry.Fault{Drop: true}, want: cells{
			tagCold: want(failed, 4), tagCached: want(stale, 4), tagMoved: want(stale, 4), byDigest: want(failed, 4),
			blob: want(failed, 4), listed: want(failed, 4), ranged: want(failed, 4),
		}},
		{name: "stall once", fault: registry.Fault{Method: http.MethodGet, Stall: true, At: 100, Times: 1}, want: cells{
			tagCold: want(right, 2), tagMoved: want(right, 3), byDigest: want(right, 2),
			blob: want(right, 2), listed: want(right, 2), ranged: want(right, 2),
		}},
		{name: "stall ever", fault: registry.Fault{Method: http.MethodGet, Stall: true}, within: 20 * time.Second, want: cells{
			tagCold: want(failed, 4), tagMoved: want(stale, 5), byDigest: want(failed, 4),
			blob: want(broken+"|"+failed, 5), listed: want(broken+"|"+failed, 5), ranged: want(broken+"|"+failed, 5),
		}},
		{name: "slow drip", fault: registry.Fault{Rate: 200_000}, want: cells{
			tagCold: want(right, 1), tagCached: want(right, 1), byDigest: want(right, 1),
			blob: want(right, 1), listed: want(right, 1), ranged: want(right, 1),
		}},

		// What the status says.
		{name: "429 with Retry-After", fault: registry.Fault{Status: 429, RetryAfter: "3600"}, want: cells{
			tagCold: want(failed, 1), tagCached: want(stale, 1), tagMoved: want(stale, 1), byDigest: want(failed, 1),
			blob: want(failed, 1), listed: want(failed, 1), ranged: want(failed, 1),
		}},
		{name: "503 once", fault: registry.Fault{Status: 503, Times: 1}, want: cells{
			tagCold: want(right, 2), tagCached: want(right, 2), tagMoved: want(right, 3), byDigest: want(right, 2),
			blob: want(right, 2), listed: want(right, 2), ranged: want(right, 2),
		}},
		{name: "500 ever", fault: registry.Fault{Status: 500}, want: cells{
			tagCold: want(failed, 3), tagCached: want(stale, 3), tagMoved: want(stale, 3), byDigest: want(failed, 3),
			blob: want(failed, 3), listed: want(failed, 3), ranged: want(failed, 3),
		}},
		{name: "503 ever", fault: registry.Fault{Status: 503}, want: cells{
			tagCold: want(failed, 3), tagCached: want(stale, 3), tagMoved: want(stale, 3), byDigest: want(failed, 3),
			blob: want(failed, 3), listed: want(failed, 3), ranged: want(failed, 3),
		}},
		{name: "404", fault: registry.Fault{Status: 404}, want: cells{
			tagCold: want("404", 1), tagCached: want("404", 1), tagMoved: want("404", 1), byDigest: want("404", 1),
			blob: want("404", 1), listed: want("404", 1), ranged: want("404", 1),
		}},
		{name: "401", fault: registry.Fault{Status: 401}, want: cells{
			tagCold: want("401", 1), tagCached: want("401", 2), tagMoved: want("401", 2), byDigest: want("401", 1),
			blob: want("401", 1), listed: want("401", 2), ranged: want("401", 1),
		}},
		// No credentials of the caller's to ask with: they are asked for. A
		// single refusal where the rest is public is passed on.
		{name: "403", fault: registry.Fault{Status: 403}, want: cells{
			tagCold: want("401", 1), tagCached: want("401", 2), tagMoved: want("401", 2), byDigest: want("401", 1),
			blob: want("401", 1), listed: want("403", 2), ranged: want("401", 1),
		}},

		// Ranges.
		{name: "Range ignored", fault: registry.Fault{IgnoreRange: true}, want: cells{
			blob: want(right, 1), listed: want(right, 1), ranged: want(right, 1),
		}},
		{name: "Range ignored, cut once", fault: registry.Fault{IgnoreRange: true, Cut: true, At: 100_000, Times: 1}, want: cells{
			blob: want(right, 2), listed: want(right, 2),
		}},
		{name: "Range starts elsewhere than it says", fault: registry.Fault{Shift: 1}, want: cells{
			blob: want(right, 1), listed: want(right, 1),
		}},
		{name: "Content-Range wrong", fault: registry.Fault{ContentRange: "bytes 1-2/3"}, want: cells{
			blob: want(right, 1), listed: want(right, 1), ranged: want(failed+"|416", 3),
		}},
		{name: "Content-Range missing", fault: registry.Fault{ContentRange: "none"}, want: cells{
			blob: want(right, 1), listed: want(right, 1), ranged: want(right, 2),
		}},

		// Redirects and tokens.
		{name: "object storage", opts: registry.Options{Storage: true, Users: users, Tokens: true}, want: cells{
			tagCold: want(right, 3), tagCached: want(right, 1), byDigest: want(right, 3),
			blob: want(right, 4), listed: want(right, 2), ranged: want(right, 4),
		}},
		{name: "object storage 403 once", opts: registry.Options{Storage: true}, fault: registry.Fault{On: registry.Storage, Status: 403, Times: 1}, want: cells{
			blob: want(right, 4), listed: want(right, 4),
		}},
		{name: "object storage cut once", opts: registry.Options{Storage: true}, fault: registry.Fault{On: registry.Storage, Cut: true, At: 100_000, Times: 1}, want: cells{
			blob: want(right, 4), listed: want(right, 4),
		}},
		{name: "redirect to a closed port", fault: registry.Fault{Location: "http://127.0.0.1:1/gone"}, want: cells{
			tagCold: want(failed, 3), tagCached: want(stale, 3), blob: want(failed, 3), ranged: want(failed, 3),
		}},
		{name: "redirect to no HTTP", fault: registry.Fault{Location: "file:///etc/passwd"}, want: cells{
			tagCold: want(failed, 1), tagCached: want(stale, 1), blob: want(failed, 1), ranged: want(failed, 1),
		}},
		{name: "redirect to itself", fault: registry.Fault{Location: "?again"}, want: cells{
			tagCold: want(failed, 11), tagCached: want(stale, 11), blob: want(failed, 11), ranged: want(failed, 11),
		}},
		{name: "token good for one request", opts: registry.Options{Users: users, Tokens: true, TokenUses: 1}, want: cells{
			tagCold: want(right, 3), tagCached: want(right, 4), tagMoved: want(right, 7), byDigest: want(right, 3),
			blob: want(right, 3), listed: want(right, 4), ranged: want(right, 3),
		}},
		{
			name: "token expires midway", opts: registry.Options{Users: users, Tokens: true, TokenUses: 1},
			fault: registry.Fault{On: registry.Blobs, Cut: true, At: 100_000, Match: authorized, Times: 1}, want: cells{
				blob: want(right, 6), listed: want(right, 6),
			},
		},
		{name: "token server 503 once", opts: registry.Options{Tokens: true}, fault: registry.Fault{On: registry.Tokens, Status: 503, Times: 1}, want: cells{
			tagCold: want(right, 5), byDigest: want(right, 5), blob: want(right, 5), ranged: want(right, 5),
		}},
		{name: "token server 503 ever", opts: registry.Options{Tokens: true, TokenUses: 1}, fault: registry.Fault{On: registry.Tokens, Status: 503}, want: cells{
			tagCold: want(failed, 6), tagCached: want(stale, 6), byDigest: want(failed, 6), blob: want(failed, 6),
		}},

		// The network.
		{name: "refused", prepare: (*registry.Server).Stop, want: cells{
			tagCold: want(failed, 0), tagCached: want(stale, 0), tagMoved: want(stale, 0), byDigest: want(failed, 0),
			blob: want(failed, 0), listed: want(failed, 0), ranged: want(failed, 0),
		}},
		{name: "black hole, held", prepare: (*registry.Server).Silence, impatient: true, within: 3 * time.Second, want: cells{
			tagCached: want(stale, 0), tagMoved: want(stale, 0),
		}},
		{name: "black hole", prepare: (*registry.Server).Silence, within: 30 * time.Second, want: cells{
			tagCold: want(failed, 0), byDigest: want(failed, 0),
			blob: want(failed, 0), listed: want(failed, 0), ranged: want(failed, 0),
		}},
		{name: "no answer in time", fault: registry.Fault{Hang: true}, within: 30 * time.Second, long: true, want: cells{
			tagCold: want(failed, 1), byDigest: want(failed, 1),
			blob: want(failed, 1), listed: want(failed, 1), ranged: want(failed, 1),
		}},
		{name: "no answer in time, held", fault: registry.Fault{Hang: true}, impatient: true, within: 3 * time.Second, want: cells{
			tagCached: want(stale, 1), tagMoved: want(stale, 1),
		}},
		{name: "noise", prepare: (*registry.Server).Garble, want: cells{
			tagCold: want(failed, 0), tagCached: want(stale, 0), byDigest: want(failed, 0), blob: want(failed, 0), ranged: want(failed, 0),
		}},
		{name: "noise for TLS", opts: registry.Options{TLS: true}, prepare: (*registry.Server).Garble, want: cells{
			tagCold: want(failed, 0), tagCached: want(stale, 0), byDigest: want(failed, 0), blob: want(failed, 0), ranged: want(failed, 0),
		}},
		{name: "TLS of an unknown authority", opts: registry.Options{TLS: true}, distrust: true, want: cells{
			tagCold: want(failed, 0), byDigest: want(failed, 0), blob: want(failed, 0), ranged: want(failed, 0),
		}},

		// What there is.
		{name: "5 MiB manifest", prepare: bigManifest, want: cells{
			tagCold: want(failed, 1), tagMoved: want(stale, 2),
		}},
	}
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

// authorized selects requests that bring a token.
func authorized(r registry.Request) bool { return r.Header.Get("Authorization") != "" }

// bigManifest makes the tag name a manifest beyond what containerd takes.
func bigManifest(s *registry.Server) {
	padding := bytes.Repeat([]byte(" "), 5<<20)
	s.AddManifest(repo, tag, registry.MediaTypeManifest, append([]byte(`{"schemaVersion":2}`), padding...))
}
