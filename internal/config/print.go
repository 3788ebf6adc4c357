package config

import (
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// Print writes everything in force as YAML, defaults and all, with secrets
// masked. Unless there was a secret in it, [Parse] reads it back to the same.
func (c *Config) Print(w io.Writer) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return enc.Close()
}
