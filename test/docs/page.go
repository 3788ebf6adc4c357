package docs

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// Page is one file of documentation.
type Page struct {
	// Name is relative to the repository's root, with slashes.
	Name string
	// Anchors are what links may point at behind a #.
	Anchors map[string]bool
	Links   []Link
	// Spans are the pieces of code within sentences and tables.
	Spans  []Span
	Blocks []Block
}

// Link is where a page points.
type Link struct {
	Line   int
	Target string
}

// Span is a piece of code within a line, without its backticks.
type Span struct {
	Line int
	Text string
}

// Block is a fenced block.
type Block struct {
	// Line is that of its first fence, from 1.
	Line     int
	Language string
	Text     string
	Marks    []Mark
}

// Mark is a comment that tells the tests about the block after it.
type Mark struct {
	Line        int
	Kind, Value string
}

// Find gives the value of the first mark of a kind, and whether there is one.
func (b Block) Find(kind string) (string, bool) {
	for _, m := range b.Marks {
		if m.Kind == kind {
			return m.Value, true
		}
	}
	return "", false
}

var (
	fenceLine = regexp.MustCompile("^( *)(```+|~~~+) *([^`]*?) *$")
	heading   = regexp.MustCompile(`^#{1,6} +(.*?) *#* *$`)
	codeSpan  = regexp.MustCompile("(`+)([^`].*?[^`]|[^`])(`+)")
	linkText  = regexp.MustCompile(`\]\(<?([^()<> ]+(?:\([^()]*\))?)>?(?: +"[^"]*")?\)`)
	attribute = regexp.MustCompile(`(?:href|src|srcset)="([^"]+)"`)
	anchorTag = regexp.MustCompile(`<a +(?:id|name)="([^"]+)"`)
	markLine  = regexp.MustCompile(`^ *<!-- ([a-z]+)(?:: *(.*?))? *-->$`)
	emphasis  = strings.NewReplacer("`", "", "*", "")
	linked    = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// Parse reads a page. What opens and is never closed, or stands where it means
// nothing, is an error with its line; everything else is taken as it is.
func Parse(name, text string) (Page, error) {
	p := Page{Name: name, Anchors: map[string]bool{}}
	seen := map[string]int{}
	var marks []Mark
	var block *Block
	var fence, indent string
	inComment := false
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if block != nil {
			if closes(line, fence) {
				p.Blocks = append(p.Blocks, *block)
				block = nil
				continue
			}
			block.Text += strings.TrimPrefix(line, indent) + "\n"
			continue
		}
		if inComment || strings.HasPrefix(strings.TrimSpace(line), "<!--") && !strings.Contains(line, "-->") {
			inComment = !strings.Contains(line, "-->")
			continue
		}
		if m := fenceLine.FindStringSubmatch(line); m != nil {
			indent, fence = m[1], m[2]
			block = &Block{Line: i + 1, Language: m[3], Marks: marks}
			marks = nil
			continue
		}
		if m := markLine.FindStringSubmatch(line); m != nil {
			if known(m[1]) {
				marks = append(marks, Mark{Line: i + 1, Kind: m[1], Value: m[2]})
			}
			continue
		}
		if strings.TrimSpace(line) != "" && len(marks) > 0 {
			return p, fmt.Errorf("%s:%d: a mark without a block after it", name, marks[0].Line)
		}
		p.prose(i+1, line, seen)
	}
	if block != nil {
		return p, fmt.Errorf("%s:%d: a block that is not closed", name, block.Line)
	}
	if len(marks) > 0 {
		return p, fmt.Errorf("%s:%d: a mark without a block after it", name, marks[0].Line)
	}
	return p, nil
}

// closes reports whether a line ends the block that fence opened: as many of the
// same signs or more, and nothing else.
func closes(line, fence string) bool {
	line = strings.TrimSpace(line)
	return len(line) >= len(fence) && strings.Trim(line, fence[:1]) == ""
}

// prose takes what matters from a line outside of blocks.
func (p *Page) prose(number int, line string, seen map[string]int) {
	if m := heading.FindStringSubmatch(line); m != nil {
		a := anchor(m[1])
		if n := seen[a]; n > 0 {
			p.Anchors[fmt.Sprintf("%s-%d", a, n)] = true
		} else {
			p.Anchors[a] = true
		}
		seen[a]++
	}
	for _, m := range anchorTag.FindAllStringSubmatch(line, -1) {
		p.Anchors[m[1]] = true
	}
	for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
		if m[1] == m[3] {
			p.Spans = append(p.Spans, Span{Line: number, Text: strings.TrimSpace(m[2])})
		}
	}
	text := codeSpan.ReplaceAllString(line, "``")
	for _, expr := range []*regexp.Regexp{linkText, attribute} {
		for _, m := range expr.FindAllStringSubmatch(text, -1) {
			p.Links = append(p.Links, Link{Line: number, Target: m[1]})
		}
	}
}

// anchor is what GitHub makes of a heading's text: lower case, without
// punctuation, spaces as hyphens.
func anchor(text string) string {
	text = emphasis.Replace(linked.ReplaceAllString(text, "$1"))
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r), unicode.Is(unicode.Mn, r):
			b.WriteRune(r)
		}
	}
	return b.String()
}
