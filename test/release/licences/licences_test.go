package licences

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestIdentify(t *testing.T) {
	const (
		mit    = "Permission is hereby granted, free of charge, to any\nperson obtaining a copy of this software"
		bsd2   = "Redistributions of source code must retain the above copyright\n   notice, this list"
		bsd3   = bsd2 + "\nNeither the name of X may be used to endorse or promote\nproducts derived from this software"
		apache = "  Apache License\n  Version 2.0, January 2004"
	)
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"MIT", mit, []string{"MIT"}},
		{"BSD of two clauses", bsd2, []string{"BSD-2-Clause"}},
		{"BSD of three clauses", bsd3, []string{"BSD-3-Clause"}},
		{"Apache", apache, []string{"Apache-2.0"}},
		{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose", []string{"ISC"}},
		{"several", mit + apache + bsd3, []string{"Apache-2.0", "BSD-3-Clause", "MIT"}},
		{"one that asks for source", "GNU AFFERO GENERAL PUBLIC LICENSE Version 3", nil},
		{"nothing", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Identify(tt.text); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestUnknown: what nobody has looked at is not shipped.
func TestUnknown(t *testing.T) {
	for _, tt := range []struct{ name, file, text, want string }{
		{"another licence", "LICENSE", "GNU GENERAL PUBLIC LICENSE", "LICENSE is none that is known"},
		{"a notice only", "NOTICE", "made by us", "there is none"},
		{"of the documentation only", "LICENSE.docs", "Apache License, Version 2.0", "there is none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			l := listed{version: "v1.0.0", root: dir, dirs: map[string]bool{dir: true}}
			if m, err := l.read("example.org/x"); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, error %v, want one that says %q", m, err, tt.want)
			}
		})
	}
}

// TestOf looks at the project itself.
func TestOf(t *testing.T) {
	modules, err := Of(t.Context(), "../../..")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, m := range modules {
		ids[m.Path] = strings.Join(m.IDs, " ")
		if len(m.Texts) == 0 || m.Version == "" {
			t.Errorf("%s %q has %d texts", m.Path, m.Version, len(m.Texts))
		}
	}
	for path, want := range map[string]string{
		"std":                                    "BSD-3-Clause",
		"github.com/dgraph-io/badger/v4":         "Apache-2.0",
		"github.com/labstack/echo/v4":            "MIT",
		"go.yaml.in/yaml/v3":                     "Apache-2.0 MIT",
		"github.com/klauspost/compress":          "Apache-2.0 BSD-3-Clause MIT", // each from another directory
		"golang.org/x/crypto/x509roots/fallback": "BSD-3-Clause",
	} {
		if ids[path] != want {
			t.Errorf("%s is under %q, want %q", path, ids[path], want)
		}
	}
	// What only tests need is not shipped.
	if _, ok := ids["go.uber.org/goleak"]; ok {
		t.Error("goleak is listed as shipped")
	}
	if slices.IsSortedFunc(modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) }) == false {
		t.Error("the modules are in no order")
	}
}
