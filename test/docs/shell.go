package docs

import (
	"regexp"
	"strings"
)

var heredoc = regexp.MustCompile(`<<-?\s*['"]?(\w+)['"]?`)

// Commands splits the text of a shell script into the simple commands it has, each
// as its words: enough of the shell's grammar to find programs and their flags, in
// lists, pipelines and substitutions. Comments and here-documents are left out;
// words keep no quotes. Text that is no script gives some words or others, and
// never an error.
func Commands(script string) [][]string {
	var l lexer
	end := ""
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		if end != "" {
			if strings.TrimSpace(line) == end {
				end = ""
			}
			continue
		}
		if m := heredoc.FindStringSubmatch(line); m != nil && l.quote == 0 {
			end = m[1]
		}
		l.line(line)
	}
	l.finish()
	return l.commands
}

// lexer is in the middle of a script.
type lexer struct {
	commands [][]string
	words    []string
	word     strings.Builder
	begun    bool // there is a word, if only an empty one in quotes
	quote    rune // the quote it is in, or 0
	outer    []outer
}

// outer is the command around a substitution.
type outer struct {
	words []string
	word  string
	quote rune
}

// enter begins a substitution, leave ends it and goes on with the command around it.
func (l *lexer) enter() {
	l.outer = append(l.outer, outer{l.words, l.word.String(), l.quote})
	l.words, l.begun, l.quote = nil, false, 0
	l.word.Reset()
}

func (l *lexer) leave() {
	l.finish()
	if len(l.outer) == 0 {
		return
	}
	o := l.outer[len(l.outer)-1]
	l.outer = l.outer[:len(l.outer)-1]
	l.words, l.quote, l.begun = o.words, o.quote, true
	l.word.WriteString(o.word)
}

func (l *lexer) endWord() {
	if l.begun {
		l.words = append(l.words, l.word.String())
	}
	l.word.Reset()
	l.begun = false
}

func (l *lexer) finish() {
	l.endWord()
	for len(l.words) > 0 && (assigns(l.words[0]) || keyword(l.words[0])) {
		l.words = l.words[1:]
	}
	if len(l.words) > 0 {
		l.commands = append(l.commands, l.words)
	}
	l.words = nil
}

// line takes one line, without its end.
func (l *lexer) line(line string) {
	continued := strings.HasSuffix(line, `\`)
	line = strings.TrimSuffix(line, `\`)
	runes := []rune(line)
	for i, r := range runes {
		switch {
		case l.quote != 0 && r == l.quote:
			l.quote = 0
		case l.quote == '\'':
			l.word.WriteRune(r)
		case r == '$' && i+1 < len(runes) && runes[i+1] == '(':
			l.enter() // a command of its own; in double quotes, too
		case r == '(' && i > 0 && runes[i-1] == '$':
		case r == ')' && l.quote == 0:
			l.leave()
		case l.quote != 0:
			l.word.WriteRune(r)
		case r == '\'' || r == '"':
			l.quote, l.begun = r, true
		case r == '#' && !l.begun:
			if !continued {
				l.finish()
			}
			return
		case r == ' ' || r == '\t':
			l.endWord()
		case strings.ContainsRune("|&;(", r):
			l.finish()
		default:
			l.word.WriteRune(r)
			l.begun = true
		}
	}
	switch {
	case l.quote != 0:
		l.word.WriteByte('\n')
	case continued:
		l.endWord()
	default:
		l.finish()
	}
}

// assigns reports whether a word sets a variable for the command after it.
func assigns(word string) bool {
	name, _, ok := strings.Cut(word, "=")
	return ok && name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// keyword reports whether a word stands before a command without being one.
func keyword(word string) bool {
	switch word {
	case "if", "then", "else", "elif", "while", "until", "do", "!", "{", "sudo", "time", "exec", "nohup":
		return true
	}
	return false
}
