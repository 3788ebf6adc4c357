package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/larder-registry/larder/internal/rungroup"
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

// What the heap needed under load and does not need now, garbage included, goes
// back to the system when there is this much of it, in bytes; it is looked at so
// often.
const (
	spareMemory = 4 << 20
	spareEvery  = 10 * time.Second
)

// memory gives spare memory back. The runtime does so by itself, but in minutes:
// a mirror that has nothing to do has no reason to collect its garbage.
func memory() rungroup.Service {
	ctx, cancel := context.WithCancel(context.Background())
	return rungroup.Service{
		Name: "memory",
		Run: func() error {
			tick := time.NewTicker(spareEvery)
			defer tick.Stop()
			var floor uint64
			for {
				select {
				case <-tick.C:
					was := floor
					if floor = giveBack(floor); floor != was {
						// Where it cannot be done the memory stays counted, and no more.
						_ = forgetPages()
					}
				case <-ctx.Done():
					return nil
				}
			}
		},
		Stop: func(context.Context) error { cancel(); return nil },
	}
}

// giveBack collects garbage and returns spare memory, if there is enough of
// either. floor is what the heap held after the last time, in bytes, and the
// result is what it is for the next.
func giveBack(floor uint64) uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	if stats.HeapIdle-stats.HeapReleased < spareMemory && stats.HeapAlloc < floor+spareMemory {
		return floor
	}
	debug.FreeOSMemory()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
