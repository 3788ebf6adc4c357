package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestGOMEMLIMITReplacesTheMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(1 << 40)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	t.Setenv("GOMEMLIMIT", "1TiB")
	limitMemory()
	if got := debug.SetMemoryLimit(-1); got != 1<<40 {
		t.Errorf("the limit is %d bytes although GOMEMLIMIT is set", got)
	}
	t.Setenv("GOMEMLIMIT", "")
	limitMemory()
	if got := debug.SetMemoryLimit(-1); got != memoryLimit {
		t.Errorf("the limit is %d bytes, want %d", got, memoryLimit)
	}
}

func TestSpareMemoryIsGivenBack(t *testing.T) {
	func() {
		block := make([]byte, 32<<20)
		for i := range block {
			block[i] = 1
		}
		runtime.KeepAlive(block)
	}()
	runtime.GC()
	giveBack(0)
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	if spare := stats.HeapIdle - stats.HeapReleased; spare >= spareMemory {
		t.Errorf("%d bytes are kept that nobody needs", spare)
	}
}
