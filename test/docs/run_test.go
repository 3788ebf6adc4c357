package docs

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// prologue is before every page's commands.
const prologue = `set -eEuo pipefail
shopt -s inherit_errexit
where=start
trap 'echo "==== $where: failed: $BASH_COMMAND (status $?)"' ERR
at() { where=$1; echo "==== $1"; }
answers() {
	for try in $(seq 600); do
		curl -fsSk --max-time 5 -o /dev/null "$1" 2>/dev/null && return
		sleep 0.1
	done
	echo "nobody answers at $1"
	return 1
}
a_node() { # with a containerd that is configured as distributions do
	mkdir -p /etc/containerd
	printf 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n' >/etc/containerd/config.toml
}
a_mirror() { # that runs
	larder mirror --data-dir /var/lib/larder --allow local >mirror.log 2>&1 &
	answers http://127.0.0.1:8000/readyz
}
a_containerd() { # that runs; for blocks that need one
	containerd >containerd.log 2>&1 &
	for try in $(seq 600); do
		ctr version >/dev/null 2>&1 && return
		sleep 0.1
	done
	cat containerd.log
	return 1
}
`

// TestPages runs the commands of each page in their order, in one sandbox for each
// page, or several where the page begins afresh. Blocks that need what is not here
// are passed over; TestMarks and TestCommands look at those.
func TestPages(t *testing.T) {
	ran := 0
	for _, p := range pages(t) {
		if record(p) {
			continue
		}
		for i, s := range sandboxes(p) {
			ran++
			t.Run(fmt.Sprintf("%s#%d", p.Name, i+1), func(t *testing.T) {
				t.Parallel()
				if out, err := s.run(t); err != nil {
					t.Errorf("%v", err)
				} else {
					t.Log(out)
				}
			})
		}
	}
	if ran < 5 {
		t.Errorf("only %d sandboxes: the documentation's commands are not run", ran)
	}
}

// sandboxes makes of a page's blocks what is to be run.
func sandboxes(p Page) []sandbox {
	var all []sandbox
	var s sandbox
	commands := false
	flush := func() {
		if commands {
			s.Script = prologue + s.Script
			all = append(all, s)
		}
		s, commands = sandbox{}, false
	}
	for _, b := range p.Blocks {
		if _, ok := b.Find("fresh"); ok {
			flush()
		}
		where := fmt.Sprintf("%s:%d", p.Name, b.Line)
		if file, ok := b.Find("file"); ok {
			s.Script += fmt.Sprintf("at %s\nmkdir -p \"$(dirname %[2]s)\"\ncat >%[2]s <<'END-OF-FILE'\n%[3]sEND-OF-FILE\n", where, file, b.Text)
		}
		if !b.Command() || !runs(b) {
			continue
		}
		for _, m := range b.Marks {
			if m.Kind == "setup" {
				s.Script += fmt.Sprintf("at %s:%d\n%s\n", p.Name, m.Line, m.Value)
			}
		}
		if b.Needs() == "clients" {
			s.Path = []string{*clients}
		}
		commands = true
		s.add(where, b)
	}
	flush()
	return all
}

// runs reports whether a block is run here.
func runs(b Block) bool {
	if _, ok := b.Find("tested"); ok {
		return false
	}
	return b.Needs() == "" || *clients != "" && (b.Needs() == "clients" || b.Needs() == "containerd")
}

// add appends a block's commands to the script.
func (s *sandbox) add(where string, b Block) {
	exit, _ := b.Find("exit")
	url, serves := b.Find("serves")
	s.Script += "at " + where + "\n"
	text := b.Text
	if b.Language == "console" {
		text = s.console(where, b.Text)
	}
	switch {
	case exit != "" && exit != "0":
		s.Script += fmt.Sprintf("trap - ERR; set +e\n%scode=$?; set -e\ntrap 'echo \"==== $where: failed: $BASH_COMMAND (status $?)\"' ERR\n", text)
		s.Script += fmt.Sprintf("[ $code = %s ] || { echo \"==== %s: status $code, not %[1]s\"; exit 1; }\n", exit, where)
	case serves && !strings.HasSuffix(strings.TrimSpace(text), "&"):
		s.Script += "{\n" + text + "} &\n"
	default:
		s.Script += text
	}
	if serves {
		s.Script += "answers " + url + "\n"
	}
}

// console makes commands of a block in which they begin with "$ ", each with its
// output in a file, and notes what that has to be.
func (s *sandbox) console(where, text string) string {
	var script strings.Builder
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			fmt.Fprintf(&script, "{ %s\n} >/out/%d 2>&1\n", strings.TrimSpace(command), len(s.Expect))
			s.Expect = append(s.Expect, expectation{Where: where})
			continue
		}
		if len(s.Expect) > 0 {
			s.Expect[len(s.Expect)-1].Text += line
		}
	}
	return script.String()
}

// TestClientsAreThere: who names a directory for clients means those that the
// pages use.
func TestClientsAreThere(t *testing.T) {
	if *clients == "" {
		return
	}
	for _, name := range []string{"crane", "regctl"} {
		if _, err := os.Stat(*clients + "/" + name); err != nil {
			t.Error(err)
		}
	}
}
