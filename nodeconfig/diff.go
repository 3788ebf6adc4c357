package nodeconfig

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Diff shows a File or Setting as the lines that go and the lines that come,
// under the line numbers at which they stand and the TOML table they are in. It
// is empty when the content stays. Values of keys that sound secret are masked,
// so it can be logged.
func (c Change) Diff() string {
	if c.Action() == "none" || c.leftover || (c.Kind != File && c.Kind != Setting) {
		return ""
	}
	prefix := commonLines(c.Before, c.After)
	suffix := commonTail(c.Before[prefix:], c.After[prefix:])
	gone := lines(c.Before[prefix : len(c.Before)-suffix])
	come := lines(c.After[prefix : len(c.After)-suffix])
	first := bytes.Count(c.Before[:prefix], []byte("\n")) + 1
	var b strings.Builder
	name := func(content []byte) string {
		if content == nil {
			return "(none)"
		}
		return c.Path
	}
	fmt.Fprintf(&b, "--- %s\n+++ %s\n@@ -%d,%d +%d,%d @@%s\n", name(c.Before), name(c.After), first, len(gone), first, len(come), table(c.Before[:prefix]))
	for _, line := range gone {
		fmt.Fprintf(&b, "-%s\n", masked(line))
	}
	for _, line := range come {
		fmt.Fprintf(&b, "+%s\n", masked(line))
	}
	return b.String()
}

// lines splits content into lines without their ends; a carriage return is
// shown as \r.
func lines(content []byte) []string {
	if len(content) == 0 {
		return nil
	}
	text := strings.TrimSuffix(string(content), "\n")
	text = strings.ReplaceAll(text, "\r", `\r`)
	return strings.Split(text, "\n")
}

// table is the header of the TOML table that content ends in, with a blank
// before it.
func table(content []byte) string {
	all := lines(content)
	for _, line := range slices.Backward(all) {
		if line = strings.TrimSpace(strings.TrimSuffix(line, `\r`)); strings.HasPrefix(line, "[") {
			return " " + line
		}
	}
	return ""
}

// masked hides what follows a key that sounds secret.
func masked(line string) string {
	secret := regexp.MustCompile(`(?i)((?:pass|passwd|secret|auth|token|credential|cookie|key)[\w-]*["']?\s*[=:]).*$`)
	return secret.ReplaceAllString(line, "$1 <masked>")
}
