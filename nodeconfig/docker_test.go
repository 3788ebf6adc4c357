package nodeconfig

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// planned plans, and fails the test if that cannot be done.
func planned(t *testing.T, target Target, cfg Config) []Change {
	t.Helper()
	changes, err := target.Plan(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// doing are the changes that do something.
func doing(changes []Change) []Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return !c.Changes() })
}

// saying is everything a plan says about what it does not do.
func saying(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		if !c.Changes() {
			b.WriteString(string(c.Kind) + " " + c.Path + ": " + c.Why + "\n")
		}
	}
	return b.String()
}

// thereAndBack configures the node at root twice and undoes it: the second run
// has nothing to do, and in the end every file is what it was. It returns what
// the files were in between.
func thereAndBack(t *testing.T, root string, target Target, cfg Config) map[string]string {
	t.Helper()
	before := tree(t, root)
	if err := target.Apply(t.Context(), planned(t, target, cfg)); err != nil {
		t.Fatal(err)
	}
	between := tree(t, root)
	if again := doing(planned(t, target, cfg)); len(again) > 0 {
		t.Errorf("the second run would do %+v", again)
	}
	same(t, "a plan that is made and not applied", tree(t, root), between)
	changes, err := target.Undo(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	same(t, "after the undo", tree(t, root), before)
	return between
}

// fileIn is a file of a tree, without its mode and time.
func fileIn(tree map[string]string, name string) string {
	_, text, _ := strings.Cut(tree[name], "\n")
	return text
}

func TestDaemonJSON(t *testing.T) {
	const m = "http://127.0.0.1:8000"
	for _, c := range []struct{ name, before, after string }{
		{"empty", "", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:8000\"]\n}\n"},
		{"only space", " \n", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:8000\"]\n}\n"},
		{"empty object", "{}", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:8000\"]\n}"},
		{"empty object in lines", "{\n}\n", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:8000\"]\n}\n"},
		{"others", "{\n    \"debug\": true\n}\n", "{\n    \"registry-mirrors\": [\"http://127.0.0.1:8000\"],\n    \"debug\": true\n}\n"},
		{"others in one line", `{"debug":true}`, `{"registry-mirrors": ["http://127.0.0.1:8000"], "debug":true}`},
		{"carriage returns", "{\r\n\t\"a\": 1\r\n}", "{\r\n\t\"registry-mirrors\": [\"http://127.0.0.1:8000\"],\r\n\t\"a\": 1\r\n}"},
		{"a mirror", `{"registry-mirrors": ["https://m.test"]}`, `{"registry-mirrors": ["http://127.0.0.1:8000", "https://m.test"]}`},
		{"mirrors in lines", "{\"registry-mirrors\": [\n  \"https://m.test\",\n  \"https://n.test\"\n]}", "{\"registry-mirrors\": [\n  \"http://127.0.0.1:8000\",\n  \"https://m.test\",\n  \"https://n.test\"\n]}"},
		{"no mirrors", `{"registry-mirrors": [ ], "x": {"registry-mirrors": []}}`, `{"registry-mirrors": [ "http://127.0.0.1:8000" ], "x": {"registry-mirrors": []}}`},
		{"inside another", `{"x": {"registry-mirrors": ["a"]}}`, `{"registry-mirrors": ["http://127.0.0.1:8000"], "x": {"registry-mirrors": ["a"]}}`},
		{"there", `{"registry-mirrors":["https://m.test","http://127.0.0.1:8000/"]}`, `{"registry-mirrors":["https://m.test","http://127.0.0.1:8000/"]}`},
		{"large number", `{"n": 12345678901234567890123}`, `{"registry-mirrors": ["http://127.0.0.1:8000"], "n": 12345678901234567890123}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := addMirrors([]byte(c.before), []string{m})
			if err != nil || string(got) != c.after {
				t.Fatalf("got %q, %v\nwant %q", got, err, c.after)
			}
			again, err := addMirrors(got, []string{m})
			if err != nil || string(again) != c.after {
				t.Errorf("the second time gives %q, %v", again, err)
			}
		})
	}
	for _, c := range []struct{ name, before, err string }{
		{"no JSON", "{\n  \"debug\": tru\n}", "line 2: invalid character"},
		{"cut", "{\n\"debug\": true,\n", "line 2: unexpected EOF"},
		{"a list", "[]", "line 1: json: cannot unmarshal array"},
		{"null", "null", "line 1: it is null"},
		{"two objects", "{}\n{}", "line 2: something follows"},
		{"comment", "{} // x", "line 1: something follows"},
		{"mirrors of text", `{"registry-mirrors": "x"}`, "is not a list"},
		{"mirrors of numbers", `{"registry-mirrors": [1]}`, "lists something other"},
		{"mirrors twice", `{"registry-mirrors": ["a"], "registry-mirrors": ["b"]}`, "by hand"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := addMirrors([]byte(c.before), []string{m}); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// FuzzDaemonJSON: whatever can be edited says afterwards what it said, and the
// mirror; twice is once.
func FuzzDaemonJSON(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"a":1}`, "{\n \"registry-mirrors\" : [ \n\"a\" ]}", `{"registry-mirrors":[]}`, `{"registry-mirrors":null}`, `{"\u0072egistry-mirrors":["x"]}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, before string) {
		const m = "http://127.0.0.1:8000"
		after, err := addMirrors([]byte(before), []string{m})
		if err != nil {
			return
		}
		var was, is map[string]any
		if err := json.Unmarshal(after, &is); err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(before) == "" {
			before = "{}"
		}
		if err := json.Unmarshal([]byte(before), &was); err != nil {
			t.Fatalf("%q was taken: %v", before, err)
		}
		list, ok := is[mirrorsKey].([]any)
		if !ok || !slices.Contains(list, any(m)) && !slices.Contains(list, any(m+"/")) {
			t.Fatalf("%q lacks the mirror", after)
		}
		delete(is, mirrorsKey)
		delete(was, mirrorsKey)
		if !reflect.DeepEqual(was, is) {
			t.Fatalf("%q became %q", before, after)
		}
		if again, err := addMirrors(after, []string{m}); err != nil || string(again) != string(after) {
			t.Fatalf("%q became %q, %v", after, again, err)
		}
	})
}

func TestDocker(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"nothing yet":   {"usr/bin/dockerd": "", "etc/docker/": ""},
		"no /etc":       {"usr/bin/dockerd": ""},
		"configured":    {"etc/docker/daemon.json": "{\n  \"debug\": true\n}\n"},
		"with a CA":     {"etc/docker/daemon.json": "{}", "etc/docker/certs.d/reg.test/ca.crt": "x"},
		"a quiet unit":  {"etc/docker/daemon.json": "{}", "usr/lib/systemd/system/docker.service": "#--registry-mirror=x\nExecStart=/usr/bin/dockerd -H fd://\n"},
		"mirror before": {"etc/docker/daemon.json": `{"registry-mirrors": ["https://m.test"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, files)
			n := nodeAt(root)
			target := newDocker(n)
			if _, found := target.Detect(t.Context()); !found {
				t.Error("it is not recognised")
			}
			between := thereAndBack(t, root, target, testConfig())
			var daemon struct {
				Mirrors []string `json:"registry-mirrors"`
			}
			if err := json.Unmarshal([]byte(fileIn(between, "etc/docker/daemon.json")), &daemon); err != nil || daemon.Mirrors[0] != "http://127.0.0.1:8000" {
				t.Errorf("daemon.json lists %q, %v", daemon.Mirrors, err)
			}
			if got := fileIn(between, "etc/docker/certs.d/_default/hosts.toml"); !strings.Contains(got, `[host."http://127.0.0.1:8000"]`) {
				t.Errorf("hosts.toml is %q", got)
			}
		})
	}
}

func TestDockerRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		err   string
	}{
		"a flag":           {map[string]string{"etc/systemd/system/docker.service.d/x.conf": "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd --registry-mirror=https://m.test\n"}, "/etc/systemd/system/docker.service.d/x.conf passes --registry-mirror"},
		"a flag elsewhere": {map[string]string{"etc/default/docker": "DOCKER_OPTS=\"--registry-mirror https://m.test\"\n"}, "/etc/default/docker passes --registry-mirror"},
		"garbage":          {map[string]string{"etc/docker/daemon.json": "{\n\n  debug: true}"}, "edit /etc/docker/daemon.json: line 3: invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, c.files)
			before := tree(t, root)
			if changes, err := newDocker(nodeAt(root)).Plan(t.Context(), testConfig()); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("planned %v, %v", changes, err)
			}
			same(t, "after refusing", tree(t, root), before)
		})
	}
}

// TestDockerIsToldToReload: containers must not be restarted for this.
func TestDockerIsToldToReload(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{"etc/docker/daemon.json": "{}"})
	target, cfg := newDocker(nodeAt(root)), testConfig()
	cfg.Fallback = []string{"https://second.test/", "https://third.test/v2/hub"}
	changes := planned(t, target, cfg)
	if said := saying(changes); !strings.Contains(said, "restart docker: dockerd reads daemon.json again") || !strings.Contains(said, "https://third.test/v2/hub is left out") {
		t.Errorf("the plan says %s", said)
	}
	if err := target.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	if got := fileIn(tree(t, root), "etc/docker/daemon.json"); !strings.Contains(got, `["http://127.0.0.1:8000", "https://second.test"]`) {
		t.Errorf("daemon.json is %s", got)
	}
	if said := saying(planned(t, target, cfg)); strings.Contains(said, "restart docker") {
		t.Errorf("the second plan says %s", said)
	}
	cfg.Restart = true
	changes, err := target.Undo(t.Context(), cfg)
	if err != nil || !slices.ContainsFunc(changes, func(c Change) bool { return c.Kind == Restart && c.Path == "docker" && c.Reload && !c.Advice }) {
		t.Errorf("undoing with --restart is %+v, %v", changes, err)
	}
}
