package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// said holds the scripts that have the binary say what pages explain.
const said = "testdata/said"

// TestMessages runs each script of testdata/said and looks in its output for every
// block marked with its name, so that a message that changes takes its explanation
// along. Every script is quoted somewhere.
func TestMessages(t *testing.T) {
	quoted := map[string][]expectation{}
	for _, p := range pages(t) {
		for _, b := range p.Blocks {
			if name, ok := b.Find("said"); ok {
				quoted[name] = append(quoted[name], expectation{Where: fmt.Sprintf("%s:%d", p.Name, b.Line), Text: b.Text})
			}
		}
	}
	scripts, err := filepath.Glob(said + "/*.sh")
	if err != nil {
		t.Fatal(err)
	}
	if len(scripts) < 10 {
		t.Errorf("only %d scripts", len(scripts))
	}
	for _, file := range scripts {
		name := strings.TrimSuffix(filepath.Base(file), ".sh")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := quoted[name]
		delete(quoted, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if len(want) == 0 {
				t.Errorf("no page quotes %s", file)
			}
			out, err := sandbox{Script: prologue + verbs + string(text)}.run(t)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range want {
				for line := range strings.Lines(e.Text) {
					if !anyLine(out, strings.TrimSpace(line)) {
						t.Errorf("%s: the binary does not say\n%s\nbut\n%s", e.Where, line, out)
					}
				}
			}
		})
	}
	for name := range quoted {
		t.Errorf("there is no %s/%s.sh", said, name)
	}
}

// anyLine reports whether a line of the output is what a page quotes, where … stands
// for anything: timestamps, and what differs from machine to machine.
func anyLine(out, want string) bool {
	for line := range strings.Lines(out) {
		if matchLine(strings.TrimSpace(line), want) {
			return true
		}
	}
	return false
}

// verbs are for the scripts: a mirror or a registry that logs to a file, and the
// requests that a client makes.
const verbs = `
mirror() { # starts one, and waits for it
	larder mirror --data-dir /var/lib/larder "$@" >>mirror.log 2>&1 &
	answers http://127.0.0.1:8000/healthz
}
ask() { # REGISTRY PATH: what a client of the mirror gets
	curl -sS --max-time 60 "${@:3}" "http://127.0.0.1:8000/v2/$2?ns=$1"
	echo
}
until_said() { # TEXT: waits until the log has it
	for try in $(seq 600); do grep -q "$1" mirror.log && return; sleep 0.1; done
	echo "not said: $1"; cat mirror.log; return 1
}
`
