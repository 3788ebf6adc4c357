package docs

import (
	"flag"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// renderers is where helm and kustomize are, which draw what pages install.
var renderers = flag.String("renderers", "", "a directory with helm and kustomize: render what the pages install")

// TestRendered renders whatever a page has helm install, and kubectl apply by
// kustomize, with the flags that stand there: mistakes in values are mistakes in the
// page. Without -renderers the names of values are looked up all the same, by
// TestCommands.
func TestRendered(t *testing.T) {
	if *renderers == "" {
		return
	}
	rendered := 0
	for _, p := range pages(t) {
		if record(p) {
			continue
		}
		for _, b := range p.Blocks {
			for _, words := range Commands(b.Text) {
				if b.Language != "sh" {
					continue
				}
				program, args := render(words)
				if program == "" {
					continue
				}
				rendered++
				cmd := exec.Command(filepath.Join(*renderers, program), args...)
				cmd.Dir = root
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(string(out), "kind: ") {
					t.Errorf("%s:%d: %s: %v\n%s", p.Name, b.Line, strings.Join(words, " "), err, out)
				}
			}
		}
	}
	if rendered < 8 {
		t.Errorf("only %d commands render anything", rendered)
	}
}

// render makes the command that shows what another would install, and gives the
// program's name, or none.
func render(words []string) (program string, args []string) {
	switch words[0] {
	case "helm":
		verb := slices.IndexFunc(words, func(w string) bool { return w == "install" || w == "upgrade" })
		if verb < 0 || !slices.Contains(words, chart) {
			return "", nil
		}
		args = append([]string{"template", "--kube-version", "1.34.0"}, words[1:verb]...)
		for _, word := range words[verb+1:] {
			// What it is rendered from is the chart; there is no release to
			// reuse anything of.
			if word != "--reuse-values" && word != "--reset-then-reuse-values" && word != "--create-namespace" && word != "--wait" {
				args = append(args, word)
			}
		}
		return "helm", args
	case "kubectl":
		i := slices.Index(words, "-k")
		if i < 0 || i+1 == len(words) || !strings.HasPrefix(words[i+1], "manifests/") {
			return "", nil
		}
		return "kustomize", []string{"build", words[i+1]}
	}
	return "", nil
}
