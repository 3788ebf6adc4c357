package bottlerocket_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/larder-registry/larder/bottlerocket"
)

// FuzzMirrors: what is read is written back as it was, apart from what is
// changed on purpose and can be taken back.
func FuzzMirrors(f *testing.F) {
	for _, seed := range []string{
		`[]`,
		`[{"registry":"*","endpoint":["http://127.0.0.1:8000"]}]`,
		`[{"registry":"docker.io","endpoint":["https://a.test","https://b.test/v2"],"capabilities":["pull","resolve"]}]`,
		`[{"registry":"*","endpoint":[]},{"registry":"*"}]`,
		`[{"registry":null,"endpoint":null,"new":{"a":[1, 2]}}]`,
		`[{"registry":"x","registry":"y"}]`,
		`{"*":["http://127.0.0.1:8000"]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var r bottlerocket.Registry
		if json.Unmarshal([]byte(raw), &r.Mirrors) != nil {
			return
		}
		written, err := json.Marshal(r.Mirrors)
		if err != nil {
			t.Fatal(err)
		}
		var again []bottlerocket.Mirror
		if err := json.Unmarshal(written, &again); err != nil || !bottlerocket.Equal(again, r.Mirrors) {
			t.Fatalf("%s was read back from %s: %v", written, raw, err)
		}
		const ours = "http://127.0.0.1:1"
		with := bottlerocket.Registry{Mirrors: r.With([]string{ours}, []string{"docker.io"})}
		if twice := with.With([]string{ours}, []string{"docker.io"}); !bottlerocket.Equal(twice, with.Mirrors) {
			t.Fatalf("adding twice gives %v, once %v", twice, with.Mirrors)
		}
		entries, _ := with.Hidden(ours)
		if slices.Contains(entries, "docker.io") {
			// Several entries for one registry are the user's; the first is taken.
			if n := slices.IndexFunc(with.Mirrors, func(m bottlerocket.Mirror) bool { return m.Registry == "docker.io" }); !slices.Contains(with.Mirrors[n].Endpoints, ours) {
				t.Fatalf("docker.io lacks the endpoint: %v", with.Mirrors)
			}
		}
		for _, m := range with.Without([]string{ours}) {
			if slices.Contains(m.Endpoints, ours) {
				t.Fatalf("still there: %v", m)
			}
		}
	})
}

// TestUserDataIsTOML reads what is printed as Bottlerocket does.
func TestUserDataIsTOML(t *testing.T) {
	static := bottlerocket.StaticUserData([]string{"http://127.0.0.1:8000", "http://second.test/a\"b\\c\x7f"}, []string{"ghcr.io"})
	bootstrap := bottlerocket.BootstrapUserData("registry.test/larder:1", []string{"/larder", "init", "--address", "imds"})
	var got map[string]any
	if err := toml.Unmarshal([]byte(static+"\n"+bootstrap), &got); err != nil {
		t.Fatalf("%v in\n%s\n%s", err, static, bootstrap)
	}
	endpoints := []any{"http://127.0.0.1:8000", "http://second.test/a\"b\\c\x7f"}
	want := map[string]any{"settings": map[string]any{
		"container-registry": map[string]any{"mirrors": []any{
			map[string]any{"registry": "*", "endpoint": endpoints},
			map[string]any{"registry": "ghcr.io", "endpoint": endpoints},
		}},
		"bootstrap-containers": map[string]any{"larder": map[string]any{
			"source": "registry.test/larder:1", "mode": "always", "essential": false,
			"command": []any{"/larder", "init", "--address", "imds"},
		}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("user data says %v, want %v", got, want)
	}
}
