package nodeconfig

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var criRegistry = []string{"plugins", pluginV2, "registry"}

const certs = "/etc/containerd/certs.d"

// TestSetConfigPath has a document for each way of writing a table that TOML knows.
// What is between « and » is what comes, or, in front of a ¦, what goes.
func TestSetConfigPath(t *testing.T) {
	const line = `config_path = "/etc/containerd/certs.d" # larder init`
	tests := map[string]string{
		"an empty document":             "«\n[plugins.\"io.containerd.grpc.v1.cri\".registry] # larder init\n  config_path = \"/etc/containerd/certs.d\"\n»",
		"no table of the plugin's":      "version = 2\n«\n[plugins.\"io.containerd.grpc.v1.cri\".registry] # larder init\n  config_path = \"/etc/containerd/certs.d\"\n»",
		"no line break at the end":      "version = 2«\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry] # larder init\n  config_path = \"/etc/containerd/certs.d\"\n»",
		"the table is there":            "[plugins.\"io.containerd.grpc.v1.cri\".registry] # theirs\n«  " + line + "\n»\n[other]\n",
		"as the last line":              "[plugins.\"io.containerd.grpc.v1.cri\".registry]«\n  " + line + "»",
		"indented as its keys are":      "  [plugins.'io.containerd.grpc.v1.cri'.\"registry\"]\n«\t" + line + "\n»\theaders = {}\n",
		"the key is there":              "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = «\"\"¦\"/etc/containerd/certs.d\" # larder init»\n  a = 1\n",
		"with a comment behind it":      "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path=«''¦\"/etc/containerd/certs.d\"» # theirs\n",
		"carriage returns":              "version = 2\r\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\r\n«  " + line + "\r\n»[x]\r\n",
		"carriage returns, at the end":  "version = 2\r\n«\r\n[plugins.\"io.containerd.grpc.v1.cri\".registry] # larder init\r\n  config_path = \"/etc/containerd/certs.d\"\r\n»",
		"inline":                        "[plugins.\"io.containerd.grpc.v1.cri\"]\n  registry = {« config_path = \"/etc/containerd/certs.d\",» headers = {a = [\"b\"]}} # theirs\n",
		"inline and empty":              "[plugins.\"io.containerd.grpc.v1.cri\"]\n  registry = {« config_path = \"/etc/containerd/certs.d\"» }\n",
		"inline, with the key":          "[plugins.\"io.containerd.grpc.v1.cri\"]\n  registry = { config_path = «\"\"¦\"/etc/containerd/certs.d\"» }\n",
		"inline in inline":              "plugins = { \"io.containerd.grpc.v1.cri\" = { registry = {« config_path = \"/etc/containerd/certs.d\"»} } }\n",
		"by dots":                       "[plugins.\"io.containerd.grpc.v1.cri\"]\n  registry.headers.a = [\n    \"b\",\n  ]\n«  registry." + line + "\n»  x = 1\n",
		"by dots, with the key":         "plugins.\"io.containerd.grpc.v1.cri\".registry.config_path = «\"\"¦\"/etc/containerd/certs.d\" # larder init»\n",
		"below it, and not it":          "[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n  a = [\"b\"]\n«\n[plugins.\"io.containerd.grpc.v1.cri\".registry] # larder init\n  config_path = \"/etc/containerd/certs.d\"\n»",
		"a header in a string":          "a = '''\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n'''\n«\n[plugins.\"io.containerd.grpc.v1.cri\".registry] # larder init\n  config_path = \"/etc/containerd/certs.d\"\n»",
		"a header in a comment":         "# [plugins.\"io.containerd.grpc.v1.cri\".registry]\n«\n[plugins.\"io.containerd.grpc.v1.cri\".registry] # larder init\n  config_path = \"/etc/containerd/certs.d\"\n»",
		"comments everywhere":           "# 1\n[plugins.\"io.containerd.grpc.v1.cri\".registry]# 2\n«  " + line + "\n»# 3\n  # 4\nx = [ # 5\n1, # 6\n] # 7\n",
		"another plugin with that name": "[plugins.cri.registry]\n  config_path = \"/other\"\n«\n[plugins.\"io.containerd.grpc.v1.cri\".registry] # larder init\n  config_path = \"/etc/containerd/certs.d\"\n»",
	}
	for name, marked := range tests {
		t.Run(name, func(t *testing.T) {
			before, after := unmark(t, marked)
			ways, err := setConfigPath([]byte(before), criRegistry, certs)
			if err != nil || len(ways) == 0 {
				t.Fatalf("there is no way: %v", err)
			}
			if string(ways[0]) != after {
				t.Errorf("got\n%q\nwant\n%q", ways[0], after)
			}
			again, err := setConfigPath(ways[0], criRegistry, certs)
			if err != nil || !slices.ContainsFunc(again, func(w []byte) bool { return bytes.Equal(w, ways[0]) }) {
				t.Errorf("set again it is\n%q (%v)", again, err)
			}
		})
	}
}

// unmark takes a document apart into what was there and what should be.
func unmark(t *testing.T, marked string) (before, after string) {
	t.Helper()
	head, rest, ok := strings.Cut(marked, "«")
	edit, foot, ok2 := strings.Cut(rest, "»")
	if !ok || !ok2 {
		t.Fatal("the test has no place that changes")
	}
	gone, come, replaced := strings.Cut(edit, "¦")
	if !replaced {
		gone, come = "", edit
	}
	return head + gone + foot, head + come + foot
}

// TestSetConfigPathRefuses has documents that no edit of one place can make say it.
func TestSetConfigPathRefuses(t *testing.T) {
	tests := map[string]string{
		"an array of tables":     "[[plugins.\"io.containerd.grpc.v1.cri\".registry]]\n",
		"the table is a string":  "[plugins]\n\"io.containerd.grpc.v1.cri\" = \"off\"\n",
		"the value is a table":   "[plugins.\"io.containerd.grpc.v1.cri\".registry.config_path]\nx = 1\n",
		"inline, without it":     "plugins = {}\n",
		"the key is no document": "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path =\n",
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			ways, err := setConfigPath([]byte(content), criRegistry, certs)
			if len(ways) > 0 {
				t.Errorf("got %q (%v)", ways, err)
			}
		})
	}
}

// FuzzSetConfigPath: whatever the document is, an edit says what was said before and
// the one thing more, differs in one place only, and takes nothing away but an
// old value.
func FuzzSetConfigPath(f *testing.F) {
	for _, seed := range []string{
		"", "version = 2\n", "version = 2\r\n[plugins]\r\n", "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n",
		"[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = ''''''\n", "plugins.\"io.containerd.grpc.v1.cri\".registry.a = 1",
		"plugins = {\"io.containerd.grpc.v1.cri\" = {registry = {a = {}}}}", "[[plugins.\"io.containerd.grpc.v1.cri\".registry]]\n",
		"[plugins]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nregistry.config_path = \"x\" # c\n", "\ufeffversion = 3\n", "a = 1979-05-27T07:32:00Z\nb = nan\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		before, err := parseTOML("document", content)
		ways, editErr := setConfigPath(content, criRegistry, certs)
		if (err == nil) != (editErr == nil) {
			t.Fatalf("it parses: %v; it can be edited: %v", err, editErr)
		}
		for _, way := range ways {
			after, err := parseTOML("document", way)
			if err != nil {
				t.Fatalf("%q became %q: %v", content, way, err)
			}
			registry := descend(after, criRegistry)
			if registry["config_path"] != certs {
				t.Fatalf("%q became %q, which does not say it", content, way)
			}
			old, had := descend(before, criRegistry)["config_path"]
			delete(registry, "config_path")
			if had {
				registry["config_path"] = old
			}
			prune(after)
			want := clone(before)
			prune(want)
			if !reflect.DeepEqual(after, want) {
				t.Fatalf("%q became %q, which says something else, too", content, way)
			}
			head := 0
			for head < len(content) && head < len(way) && content[head] == way[head] {
				head++
			}
			tail := 0
			for tail < len(content)-head && tail < len(way)-head && content[len(content)-1-tail] == way[len(way)-1-tail] {
				tail++
			}
			if gone := content[head : len(content)-tail]; len(gone) > 0 && !had {
				t.Fatalf("%q became %q, which lost %q", content, way, gone)
			}
		}
	})
}

// descend is the table at names; nil when there is none.
func descend(tables map[string]any, names []string) map[string]any {
	for _, name := range names {
		tables, _ = tables[name].(map[string]any)
	}
	return tables
}
