package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong, or in a warning merely worth knowing,
// about a configuration file.
type Problem struct {
	// File is the file's name as it was given to [Load].
	File string
	// Line and Column count from one; zero when the problem is nowhere in
	// particular.
	Line, Column int
	// Key is the path of the key: "registry_proxies.registries[0].host".
	// Empty for a problem of the whole file.
	Key string
	// Text says what is wrong; Fix, if any, what to write instead.
	Text, Fix string
}

// String gives "file:line:column: key: text; fix".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.Text)
	if p.Fix != "" {
		b.WriteString("; " + p.Fix)
	}
	return b.String()
}

// Problems is every mistake in a file, in the file's order. It is the error
// that [Load] and [Parse] return for a file that cannot be used.
type Problems []Problem

// Error gives one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// nearest returns the candidate that a writer of word probably meant, or "".
func nearest(word string, candidates []string) string {
	best, bestDistance := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the edit distance of a and b (Levenshtein), by bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
