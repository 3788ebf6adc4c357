package config

import (
	"fmt"
	"net/url"
	"strconv"
)

// Tracing configures traces, of the mirror and of the central registry.
type Tracing struct {
	// Endpoint is the collector's address, "http://127.0.0.1:4318"; empty for
	// no traces, unless OTEL_EXPORTER_OTLP_ENDPOINT names one.
	Endpoint string `yaml:"endpoint"`
	// Sample is the share of the requests that is traced, of those whose client
	// has not decided that.
	Sample Share `yaml:"sample"`
}

// tracing checks the section.
func (c *checker) tracing(t Tracing) {
	if t.Endpoint == "" {
		return
	}
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		c.problemAt("tracing.endpoint", "it is no address of a collector", "write http:// or https://, its host and its port for OTLP over HTTP: http://127.0.0.1:4318")
	}
}

// Share is a part of a whole, 0 to 1.
type Share float64

// parse reads a number.
func (s *Share) parse(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0 && v <= 1) {
		return fmt.Errorf("%q is no share; write a number from 0 to 1", text)
	}
	*s = Share(v)
	return nil
}

// String gives the form that parse reads.
func (s Share) String() string { return strconv.FormatFloat(float64(s), 'g', -1, 64) }
