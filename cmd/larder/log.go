package main

import (
	"fmt"
	"io"

	"github.com/sirupsen/logrus"
)

// newLogger makes the process's only logger.
func newLogger(w io.Writer, level, format string) (*logrus.Entry, error) {
	l := logrus.New()
	l.SetOutput(w)
	switch level {
	case "error", "warn", "info", "debug":
		parsed, err := logrus.ParseLevel(level)
		if err != nil {
			return nil, fmt.Errorf("--log-level %s: %w", level, err)
		}
		l.SetLevel(parsed)
	default:
		return nil, usageErrorf("--log-level %q: write error, warn, info or debug", level)
	}
	switch format {
	case "text":
		l.SetFormatter(lineFormatter{})
	case "json":
		l.SetFormatter(lineFormatter{json: true})
	default:
		return nil, usageErrorf("--log-format %q: write text or json", format)
	}
	return logrus.NewEntry(l), nil
}
