package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestTheReferenceNamesEveryKey holds docs/configuration.md to the struct: each
// key has a row, with its default where it has one.
func TestTheReferenceNamesEveryKey(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, reference, found := strings.Cut(string(content), "\n### registry_proxies\n")
	if !found {
		t.Fatal("the reference has no section registry_proxies")
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`([][a-z_.]+)`").FindAllStringSubmatch(reference, -1) {
		named[m[1]] = true
	}
	for _, key := range Keys() {
		short := strings.TrimPrefix(strings.TrimPrefix(key, "registry_proxies."), "registries[].")
		if strings.HasPrefix(key, "image_validation.") {
			short = key[strings.LastIndexByte(key, '.')+1:] // they are the same at each level
		}
		if key != "registry_proxies" && !named[short] {
			t.Errorf("docs/configuration.md does not describe %s", key)
		}
	}
	p := Default().RegistryProxies
	for key, value := range map[string]string{
		"min_free": p.MinFree.String(), "lock_wait": p.LockWait.String(), "revalidate_after": p.RevalidateAfter.String(),
		"revalidate_timeout": p.RevalidateTimeout.String(), "stale_if_error": p.StaleIfError.String(),
		"stall_timeout": p.StallTimeout.String(), "finish_timeout": p.FinishTimeout.String(),
		"blob_streams": strconv.Itoa(p.BlobStreams), "fill_rate": p.FillRate.String(), "client_rate": p.ClientRate.String(), "warm_every": p.WarmEvery.String(),
		"prefetch_wait": p.PrefetchWait.String(), "proof_ttl": p.ProofTTL.String(), "proof_grace": p.ProofGrace.String(),
		"private_images": p.PrivateImages, "default_registry": p.DefaultRegistry,
	} {
		if !strings.Contains(reference, "| `"+key+"` | `"+value+"` |") {
			t.Errorf("docs/configuration.md does not give %s the default %s", key, value)
		}
	}
}
