package docs

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	text := strings.Join([]string{
		"# A title, with `code` and [a link](other.md#there)",
		"",
		"Text `larder mirror --x` and [two](a.md) links ![picture](p.svg), not `[one](b.md)`.",
		"<!-- a remark -->",
		"## Twice",
		"## Twice",
		"",
		"<!-- needs: cloud, an account -->",
		"<!-- exit: 1 -->",
		"",
		"1. in a list",
		"",
		"   <!-- file: f.yaml -->",
		"   ```yaml",
		"   a: b",
		"     c: d",
		"   ```",
		"",
		"````text",
		"```",
		"````",
	}, "\n")
	// The two marks stand before text.
	if _, err := Parse("p.md", text); err == nil || !strings.Contains(err.Error(), "p.md:8: a mark without a block") {
		t.Errorf("marks before text: %v", err)
	}
	text = strings.Replace(text, "1. in a list\n", "", 1)
	p, err := Parse("p.md", text)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"a-title-with-code-and-a-link", "twice", "twice-1"} {
		if !p.Anchors[a] {
			t.Errorf("no anchor %s in %v", a, p.Anchors)
		}
	}
	var links []string
	for _, l := range p.Links {
		links = append(links, l.Target)
	}
	if want := []string{"other.md#there", "a.md", "p.svg"}; !slices.Equal(links, want) {
		t.Errorf("links %v, want %v", links, want)
	}
	if len(p.Blocks) != 2 || p.Blocks[0].Text != "a: b\n  c: d\n" || p.Blocks[1].Text != "```\n" {
		t.Fatalf("blocks %+v", p.Blocks)
	}
	if file, _ := p.Blocks[0].Find("file"); file != "f.yaml" || len(p.Blocks[0].Marks) != 3 {
		t.Errorf("marks %+v", p.Blocks[0].Marks)
	}
	if _, err := Parse("p.md", "```sh\n"); err == nil {
		t.Error("a block that is not closed is taken")
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		b    Block
		want string // of the error; empty for none
	}{
		{"a language", Block{Language: "sh"}, ""},
		{"none", Block{}, "without a language"},
		{"another word for sh", Block{Language: "bash"}, "write sh"},
		{"needs, and why", Block{Language: "sh", Marks: []Mark{{Kind: "needs", Value: "cloud, an account"}}}, ""},
		{"needs, without why", Block{Language: "sh", Marks: []Mark{{Kind: "needs", Value: "cloud"}}}, "and why"},
		{"needs something else", Block{Language: "sh", Marks: []Mark{{Kind: "needs", Value: "luck, a lot"}}}, "write one of"},
		{"a file that is a command", Block{Language: "sh", Marks: []Mark{{Kind: "file", Value: "x"}}}, "no commands"},
		{"an exit status of no command", Block{Language: "yaml", Marks: []Mark{{Kind: "exit", Value: "1"}}}, "blocks with commands"},
		{"said by a command", Block{Language: "sh", Marks: []Mark{{Kind: "said", Value: "x"}}}, "is for text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.b.Check()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestCommandsOfScripts(t *testing.T) {
	for _, c := range []struct {
		script string
		want   [][]string
	}{
		{"larder mirror --data-dir /x &\n", [][]string{{"larder", "mirror", "--data-dir", "/x"}}},
		{"make a && A=b larder init # make c\n", [][]string{{"make", "a"}, {"larder", "init"}}},
		{"helm x \\\n    --set 'a=b c' \\\n    y\n", [][]string{{"helm", "x", "--set", "a=b c", "y"}}},
		{"cat <<'EOF'\nmake nothing\nEOF\nmake all\n", [][]string{{"cat", "<<EOF"}, {"make", "all"}}},
		{"crane -p \"$(cat password)\" | sudo larder pull\n", [][]string{{"cat", "password"}, {"crane", "-p", ""}, {"larder", "pull"}}},
		{"for i in $(ls); do make $i; done\n", [][]string{{"ls"}, {"for", "i", "in", ""}, {"make", "$i"}, {"done"}}},
	} {
		got := Commands(c.script)
		if !slices.EqualFunc(got, c.want, slices.Equal) {
			t.Errorf("%q: %q, want %q", c.script, got, c.want)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		got, want string
		ok        bool
	}{
		{"a\nb\n", "a\nb\n", true},
		{"a\nb\n", "a\n", false},
		{"a\nb\nc\n", "a\n…\nc\n", true},
		{"a\nc\n", "a\n…\nc\n", true},
		{"a\nb\n", "…\nc\n", false},
		{"took 12 ms in all\n", "took … ms in all\n", true},
		{"took 12 ms\n", "took … ms in all\n", false},
		{"a b\n", "a … b\n", false},
	} {
		if ok := matches(c.got, c.want); ok != c.ok {
			t.Errorf("matches(%q, %q) is %t", c.got, c.want, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("# T\n\n```sh\nlarder\n```\n[x](y.md#z)\n")
	f.Add("<!-- needs: cloud -->\n~~~\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("p.md", text)
		if err != nil {
			return
		}
		for _, b := range p.Blocks {
			if b.Line < 1 || b.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("a block at line %d", b.Line)
			}
			Commands(b.Text)
		}
	})
}

func FuzzCommands(f *testing.F) {
	f.Add("a 'b' \"$(c d)\" | e \\\n f <<X\nX\n")
	f.Fuzz(func(t *testing.T, script string) {
		for _, words := range Commands(script) {
			if len(words) == 0 {
				t.Fatal("a command without words")
			}
		}
	})
}
