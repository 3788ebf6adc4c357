package config

import (
	"strings"
	"testing"
)

func TestTracing(t *testing.T) {
	tests := map[string]struct {
		text, problem string
		want          Tracing
	}{
		"default":     {"", "", Tracing{Sample: 1}},
		"collector":   {"tracing: {endpoint: 'http://127.0.0.1:4318'}", "", Tracing{"http://127.0.0.1:4318", 1}},
		"path":        {"tracing: {endpoint: 'https://otel.example/base/'}", "", Tracing{"https://otel.example/base/", 1}},
		"sample":      {"tracing: {sample: 0.25}", "", Tracing{"", 0.25}},
		"none":        {"tracing: {sample: 0}", "", Tracing{"", 0}},
		"too much":    {"tracing: {sample: 2}", `tracing.sample: "2" is no share`, Tracing{}},
		"negative":    {"tracing: {sample: -0.5}", `tracing.sample: "-0.5" is no share`, Tracing{}},
		"no number":   {"tracing: {sample: .nan}", `tracing.sample: ".nan" is no share`, Tracing{}},
		"nan":         {"tracing: {sample: NaN}", `tracing.sample: "NaN" is no share`, Tracing{}},
		"no scheme":   {"tracing: {endpoint: '127.0.0.1:4318'}", "tracing.endpoint: it is no address", Tracing{}},
		"grpc":        {"tracing: {endpoint: 'grpc://127.0.0.1:4317'}", "tracing.endpoint: it is no address", Tracing{}},
		"password":    {"tracing: {endpoint: 'http://u:geheim@127.0.0.1:4318'}", "tracing.endpoint: it is no address", Tracing{}},
		"query":       {"tracing: {endpoint: 'http://127.0.0.1:4318?key=geheim'}", "tracing.endpoint: it is no address", Tracing{}},
		"unknown key": {"tracing: {endpont: 'http://127.0.0.1:4318'}", `did you mean "endpoint"?`, Tracing{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg, _, err := Parse("larder.yaml", []byte(tt.text))
			if tt.problem != "" {
				if err == nil || !strings.Contains(err.Error(), tt.problem) || strings.Contains(err.Error(), "geheim") {
					t.Fatalf("got %v, want a problem with %q", err, tt.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Tracing != tt.want {
				t.Errorf("got %+v, want %+v", cfg.Tracing, tt.want)
			}
		})
	}
}
