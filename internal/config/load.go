package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// maxFileSize bounds a configuration file, in bytes.
const maxFileSize = 1 << 20

// Load reads and checks the file. It returns what is in force and the
// warnings; the error is [Problems] when the file could be read and holds
// mistakes.
func Load(file string) (*Config, []Problem, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(file, data)
}

// Parse is [Load] for a file's content. file names it in problems, and its
// directory is where relative paths in the content start.
func Parse(file string, data []byte) (*Config, []Problem, error) {
	d := &decoder{file: file, at: map[string]*yaml.Node{}}
	cfg := Default()
	if len(data) > maxFileSize {
		return nil, nil, Problems{{File: file, Text: fmt.Sprintf("the file is longer than %d bytes", maxFileSize)}}
	}
	root, err := document(data)
	if err != nil {
		return nil, nil, Problems{syntaxProblem(file, err)}
	}
	if root == nil {
		return cfg, nil, nil
	}
	d.value(root, reflect.ValueOf(cfg).Elem(), "")
	c := checker{decoder: d, dir: filepath.Dir(file)}
	c.check(cfg)
	warnings := c.imageValidation(cfg.ImageValidation)
	warnings = append(warnings, c.dropUnusable(&cfg.RegistryProxies)...)
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return nil, warnings, d.problems
	}
	return cfg, warnings, nil
}

// document parses data, which must hold one YAML document at most. It returns
// nil for one without content.
func document(data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, fmt.Errorf("yaml: line %d: a second document starts here; one file is one document", more.Line)
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	if isNull(doc.Content[0]) {
		return nil, nil
	}
	return doc.Content[0], nil
}

// syntaxLine finds the line in the library's errors, which carry it in their
// text only.
var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func syntaxProblem(file string, err error) Problem {
	p := Problem{File: file, Text: err.Error()}
	if m := syntaxLine.FindStringSubmatch(p.Text); m != nil {
		p.Text = "not YAML: " + p.Text[len(m[0]):]
		if line, err := strconv.Atoi(m[1]); err == nil {
			p.Line, p.Column = line, 1
		}
	}
	return p
}
