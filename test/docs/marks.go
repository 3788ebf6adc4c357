package docs

import (
	"fmt"
	"slices"
	"strings"
)

// kinds are the marks there are; the package's description says what each means.
func kinds() []string {
	return []string{"needs", "tested", "exit", "serves", "file", "fresh", "setup", "said"}
}

func known(kind string) bool { return slices.Contains(kinds(), kind) }

// needs is what a block may need that these tests do not have.
func needs() []string {
	return []string{
		"cloud",      // an account with somebody
		"kubernetes", // an API server to talk to
		"node",       // a machine with that container runtime, or that init system
		"docker",     // Docker's daemon
		"source",     // a checkout, with Go
		"clients",    // skopeo, crane, regctl …: run by make docs
		"containerd", // Debian's, as a daemon: run by make docs
	}
}

// Command reports whether the block has commands: sh, or console, which has their
// output as well.
func (b Block) Command() bool { return b.Language == "sh" || b.Language == "console" }

// Needs gives what the block needs, or "" when it can be run.
func (b Block) Needs() string {
	value, _ := b.Find("needs")
	what, _, _ := strings.Cut(value, ",")
	return strings.TrimSpace(what)
}

// Check says what is wrong with a block's marks and its language.
func (b Block) Check() error {
	if b.Language == "" {
		return fmt.Errorf("a block without a language: write sh for commands, console for commands with their output, text for what is neither")
	}
	if b.Language == "bash" || b.Language == "shell" {
		return fmt.Errorf("write sh, not %s", b.Language)
	}
	for _, m := range b.Marks {
		switch m.Kind {
		case "needs":
			what, why, _ := strings.Cut(m.Value, ",")
			if !slices.Contains(needs(), strings.TrimSpace(what)) || strings.TrimSpace(why) == "" {
				return fmt.Errorf("needs: %q: write one of %s, a comma, and why", m.Value, strings.Join(needs(), ", "))
			}
			continue
		case "file":
			if b.Command() || m.Value == "" {
				return fmt.Errorf("file: is for blocks that are no commands, and names a path")
			}
			continue
		case "said":
			if b.Language != "text" {
				return fmt.Errorf("said: is for text")
			}
			continue
		case "fresh", "setup":
			continue
		}
		if !b.Command() {
			return fmt.Errorf("%s: is for blocks with commands", m.Kind)
		}
	}
	return nil
}
