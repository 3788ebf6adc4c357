package allocations

import (
	"runtime"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	runtime.MemProfileRate = 1 // every allocation, with its stack
	goleak.VerifyTestMain(m)
}
