package status_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/status"
)

// content is what is held, by digest.
type content map[digest.Digest]string

func (c content) add(text string) digest.Digest {
	dgst := digest.FromString(text)
	c[dgst] = text
	return dgst
}

func (c content) read(dgst digest.Digest) []byte {
	if text, ok := c[dgst]; ok {
		return []byte(text)
	}
	return nil
}

func (c content) holds(dgst digest.Digest) bool { return c[dgst] != "" }

func TestPlatforms(t *testing.T) {
	c := content{}
	amd := c.add(`{"config":{"digest":"` + string(c.add(`{"os":"linux","architecture":"amd64"}`)) + `"}}`)
	arm := digest.FromString("not held")
	entry := func(dgst digest.Digest, platform string) string {
		return fmt.Sprintf(`{"digest":%q,"platform":%s}`, dgst, platform)
	}
	index := c.add(`{"manifests":[` + strings.Join([]string{
		entry(amd, `{"os":"linux","architecture":"amd64"}`), entry(arm, `{"os":"linux","architecture":"arm64","variant":"v8"}`),
		entry(amd, `{"os":"linux","architecture":"386"}`), entry(amd, `{"os":"linux","architecture":"amd64"}`),
		entry(amd, `{"os":"unknown","architecture":"unknown"}`), entry("nonsense", `{"os":"a","architecture":"b"}`),
		entry(amd, `{"os":"`+strings.Repeat("x", 100)+`","architecture":"b"}`),
	}, ",") + `]}`)
	for name, test := range map[string]struct {
		root   digest.Digest
		index  bool
		held   []string
		listed int
	}{
		"an index":       {index, true, []string{"linux/386", "linux/amd64"}, 5},
		"an image":       {amd, false, []string{"linux/amd64"}, 1},
		"nothing":        {arm, true, nil, 0},
		"no JSON":        {c.add("<html>"), false, nil, 0},
		"no config":      {c.add(`{"config":{"digest":"sha256:short"}}`), false, nil, 0},
		"another config": {c.add(`{"config":{"digest":"` + string(c.add(`{"architecture":1}`)) + `"}}`), false, nil, 0},
	} {
		held, listed := status.Platforms(test.root, test.index, c.read, c.holds)
		if !reflect.DeepEqual(held, test.held) || listed != test.listed {
			t.Errorf("%s: %v of %d, want %v of %d", name, held, listed, test.held, test.listed)
		}
	}
}

func FuzzPlatforms(f *testing.F) {
	f.Add(`{"manifests":[{"digest":"sha256:0","platform":{"os":"linux","architecture":"amd64"}}]}`, true)
	f.Add(`{"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"os":"linux","architecture":"arm"}`, false)
	f.Fuzz(func(t *testing.T, text string, index bool) {
		// Every digest has the same content, so that a config is read, too.
		held, listed := status.Platforms(digest.FromString(text), index, func(digest.Digest) []byte { return []byte(text) }, func(digest.Digest) bool { return true })
		if len(held) > 64 || len(held) > listed {
			t.Errorf("%d of %d", len(held), listed)
		}
		for _, p := range held {
			if len(p) > 64 || !strings.Contains(p, "/") {
				t.Errorf("%q is no platform", p)
			}
		}
	})
}
