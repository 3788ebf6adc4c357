//go:build !race

package faults

// buildFlags make the binary report data races if the tests do.
var buildFlags []string
