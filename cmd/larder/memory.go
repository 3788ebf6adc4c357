package main

import (
	"os"
	"runtime/debug"
)

// memoryLimit is what the Go runtime tries to stay below, in bytes, unless
// GOMEMLIMIT says otherwise. The mirror's own needs do not grow with the size
// of an image, and a node's memory belongs to its pods. It is a soft limit:
// beyond it the collector works harder, nothing fails.
const memoryLimit = 48 << 20

func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}
