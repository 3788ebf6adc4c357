package docs

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// chart is where the Helm chart is.
const chart = "manifests/chart"

// TestCommands looks up what commands name, be they run here or not: larder's
// subcommands and flags, make's targets, files and directories of the repository,
// the chart's values.
func TestCommands(t *testing.T) {
	l := lookup{binary: binary(t), help: map[string]string{}}
	looked := 0
	for _, p := range pages(t) {
		if record(p) {
			continue
		}
		check := func(line int, text string) {
			for _, words := range Commands(text) {
				looked++
				if err := l.command(words); err != nil {
					t.Errorf("%s:%d: %s: %v", p.Name, line, strings.Join(words, " "), err)
				}
			}
		}
		for _, b := range p.Blocks {
			switch b.Language {
			case "sh":
				check(b.Line, b.Text)
			case "console":
				check(b.Line, typed(b.Text))
			}
		}
		for _, s := range p.Spans {
			if strings.HasPrefix(s.Text, "larder ") || strings.HasPrefix(s.Text, "make ") {
				check(s.Line, strings.NewReplacer("[", " ", "]", " ", "…", " ", "|", " ").Replace(s.Text))
			}
		}
	}
	if looked < 100 {
		t.Errorf("only %d commands were found", looked)
	}
}

// typed gives what is typed in a console block.
func typed(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			b.WriteString(command)
		}
	}
	return b.String()
}

// lookup knows what there is to be named in a command.
type lookup struct {
	binary string
	mu     sync.Mutex
	help   map[string]string // by the words that lead to it
}

func (l *lookup) command(words []string) error {
	// What runs in a container is a command of its own.
	if i := slices.Index(words, "--"); i > 0 && i+1 < len(words) {
		if err := l.command(words[i+1:]); err != nil {
			return err
		}
	}
	switch filepath.Base(words[0]) {
	case "larder":
		return l.larder(words[1:])
	case "make":
		return l.make(words[1:])
	case "helm":
		return l.helm(words[1:])
	case "kubectl":
		return l.kubectl(words[1:])
	}
	return nil
}

// helpOf gives `larder PATH --help`, or "" when there is no such command.
func (l *lookup) helpOf(path string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text, ok := l.help[path]; ok {
		return text
	}
	out, err := exec.Command(l.binary, append(strings.Fields(path), "--help")...).Output()
	text := string(out)
	// For a word that is no command, cobra gives the help of those before it.
	if err != nil || path != "" && !strings.Contains(text, "larder "+path+" ") && !strings.Contains(text, "larder "+path+"\n") {
		text = ""
	}
	l.help[path] = text
	return text
}

var subcommand = regexp.MustCompile(`^[a-z]+$`)

func (l *lookup) larder(words []string) error {
	path := ""
	for len(words) > 0 && subcommand.MatchString(words[0]) {
		next := strings.TrimSpace(path + " " + words[0])
		if l.helpOf(next) == "" {
			break
		}
		path, words = next, words[1:]
	}
	if path == "" && len(words) > 0 && subcommand.MatchString(words[0]) {
		return errors.New("there is no such command")
	}
	help := l.helpOf(path)
	for _, word := range words {
		if word == "--" {
			return nil
		}
		flag, _, _ := strings.Cut(word, "=")
		if strings.HasPrefix(flag, "-") && len(flag) > 1 && !l.has(help, path, flag) {
			return errors.New("it has no flag " + flag)
		}
	}
	return nil
}

// has reports whether a command's help names a flag, or one of its subcommands'
// does when the words before it do not say which is meant.
func (l *lookup) has(help, path, flag string) bool {
	if regexp.MustCompile(`(?m)^ .*(^|[ ,])` + regexp.QuoteMeta(flag) + `([ ,=\n]|$)`).MatchString(help) {
		return true
	}
	if path == "" || !strings.Contains(help, "Available Commands:") {
		return false
	}
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+) +[A-Z]`).FindAllStringSubmatch(help, -1) {
		if sub := l.helpOf(path + " " + m[1]); sub != "" && strings.Contains(sub, " "+flag+" ") {
			return true
		}
	}
	return false
}

func (l *lookup) make(words []string) error {
	content, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		return err
	}
	for _, target := range words {
		if strings.HasPrefix(target, "-") || strings.Contains(target, "=") {
			continue
		}
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(target) + `:`).Match(content) {
			return errors.New("the Makefile has no target " + target)
		}
	}
	return nil
}

var (
	kindAndName = regexp.MustCompile(`(?m)^kind: (\w+)\nmetadata:\n(?:  name: ("?)([\w-]+)("?)$)`)
	object      = regexp.MustCompile(`^(daemonset|deployment|statefulset|service|secret|configmap)/(larder[\w-]*)$`)
)

// kubectl looks for the files that are applied, where they are the repository's, and
// for objects that the manifests have.
func (l *lookup) kubectl(words []string) error {
	manifests, err := os.ReadFile(filepath.Join(root, "manifests/all/larder.yaml"))
	if err != nil {
		return err
	}
	objects := map[string]bool{}
	for _, m := range kindAndName.FindAllSubmatch(manifests, -1) {
		objects[strings.ToLower(string(m[1]))+"/"+string(m[3])] = true
	}
	for i, word := range words {
		named := word
		if i+1 < len(words) && word == "validatingwebhookconfiguration" && strings.HasPrefix(words[i+1], "larder") {
			named = word + "/" + words[i+1]
		}
		if (named != word || object.MatchString(named)) && !objects[named] {
			return errors.New("the manifests have no " + named)
		}
		var name string
		switch {
		case i+1 < len(words) && (word == "-f" || word == "-k" || word == "--filename" || word == "--kustomize"):
			name = words[i+1]
		default:
			_, name, _ = strings.Cut(word, "=")
			if !strings.HasPrefix(word, "--filename=") && !strings.HasPrefix(word, "--kustomize=") {
				continue
			}
		}
		if err := ours(name); err != nil {
			return err
		}
	}
	return nil
}

// ours reports a file below a directory of the repository that is not there.
func ours(name string) error {
	for _, dir := range []string{"manifests/", "docs/", "test/"} {
		if strings.HasPrefix(strings.TrimPrefix(name, "./"), dir) {
			_, err := os.Stat(filepath.Join(root, name))
			return err
		}
	}
	return nil
}

// helm looks up the chart and the values that are set.
func (l *lookup) helm(words []string) error {
	for i, word := range words {
		if err := ours(word); err != nil {
			return err
		}
		flag, value, given := strings.Cut(word, "=")
		switch flag {
		case "--set", "--set-string", "--set-file", "--set-json", "--set-literal":
		default:
			continue
		}
		if !given && i+1 < len(words) {
			value = words[i+1]
		}
		values, err := readSchema()
		if err != nil {
			return err
		}
		// Several may stand in one flag; what has no equals sign after a comma is
		// the rest of a value.
		for _, setting := range strings.Split(value, ",") {
			key, _, ok := strings.Cut(setting, "=")
			if ok && !has(values, values, strings.Split(key, ".")) {
				return errors.New("the chart has no value " + key)
			}
		}
	}
	return nil
}

// readSchema reads the schema of the chart's values.
func readSchema() (any, error) {
	content, err := os.ReadFile(filepath.Join(root, chart, "values.schema.json"))
	if err != nil {
		return nil, err
	}
	var s any
	return s, json.Unmarshal(content, &s)
}

// has follows a key's parts through a JSON schema, of which it knows properties,
// items, references into it, and whether other keys are taken.
func has(top, at any, key []string) bool {
	object, ok := at.(map[string]any)
	if !ok || len(key) == 0 {
		return at != false
	}
	if ref, ok := object["$ref"].(string); ok {
		to := top
		for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
			step, ok := to.(map[string]any)
			if !ok {
				return false
			}
			to = step[part]
		}
		return has(top, to, key)
	}
	name, _, index := strings.Cut(key[0], "[")
	properties, _ := object["properties"].(map[string]any)
	next, ok := properties[name]
	if !ok {
		more, given := object["additionalProperties"]
		return !given || more != false
	}
	if items, ok := next.(map[string]any); ok && index {
		next = items["items"]
	}
	return has(top, next, key[1:])
}

// TestFlagTables: the reference describes no flag that there is not. That it
// describes all there are is tested in cmd/larder.
func TestFlagTables(t *testing.T) {
	l := lookup{binary: binary(t), help: map[string]string{}}
	content, err := os.ReadFile(filepath.Join(root, "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	title := regexp.MustCompile("^## Flags of `larder ([a-z ]+)`")
	row := regexp.MustCompile("^\\| `(--[a-z-]+)")
	path, rows := "", 0
	for i, line := range strings.Split(string(content), "\n") {
		if strings.HasPrefix(line, "## ") {
			path = ""
			if m := title.FindStringSubmatch(line); m != nil {
				path = m[1]
			}
		}
		m := row.FindStringSubmatch(line)
		if m == nil || path == "" {
			continue
		}
		rows++
		if !l.has(l.helpOf(path), path, m[1]) {
			t.Errorf("docs/configuration.md:%d: larder %s has no flag %s", i+1, path, m[1])
		}
	}
	if rows < 40 {
		t.Errorf("only %d flags were found", rows)
	}
}

// TestValues: what pages call a value of the chart or a key of the configuration is
// one. The reference of keys is held to the program in internal/config.
func TestValues(t *testing.T) {
	value := regexp.MustCompile(`^(image|mirror|init|central|webhook|vap|metrics|networkPolicy)\.[a-zA-Z_.]+$`)
	reference, err := os.ReadFile(filepath.Join(root, "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	values, err := readSchema()
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, p := range pages(t) {
		if record(p) {
			continue
		}
		for _, s := range p.Spans {
			if !value.MatchString(s.Text) || slices.Contains([]string{".go", ".md", ".io"}, filepath.Ext(s.Text)) {
				continue
			}
			looked++
			if !strings.Contains(string(reference), "`"+s.Text) && !has(values, values, strings.Split(s.Text, ".")) {
				t.Errorf("%s:%d: `%s` is neither a value of the chart nor a key of the configuration", p.Name, s.Line, s.Text)
			}
		}
	}
	if looked < 20 {
		t.Errorf("only %d values were found", looked)
	}
}
