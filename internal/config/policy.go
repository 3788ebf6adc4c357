package config

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/larder-registry/larder/internal/policy"
)

// imageValidation notes what is wrong with the image policy, and returns what
// is only worth a warning.
func (c *checker) imageValidation(cfg *policy.Config) (warnings []Problem) {
	if cfg == nil {
		return nil
	}
	const section = "image_validation"
	for _, p := range policy.Check(*cfg) {
		key := section
		if p.Path != "" {
			key += "." + p.Path
		}
		if p.Warning {
			n := c.nodeAt(key)
			warnings = append(warnings, Problem{File: c.file, Line: n.Line, Column: n.Column, Key: key, Text: p.Text, Fix: p.Fix})
			continue
		}
		c.problem(c.nodeAt(key), key, p.Text, p.Fix)
	}
	return warnings
}

// nodeAt finds the value at key, or at the nearest key above it that the file
// gives.
func (c *checker) nodeAt(key string) *yaml.Node {
	for {
		if n, ok := c.at[key]; ok {
			return n
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return c.at[""]
		}
		key = key[:i]
	}
}
