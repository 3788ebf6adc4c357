package store_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv names what this binary does when a test runs it as a child process.
const childEnv = "LARDER_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		run, ok := children()[what]
		if !ok {
			fmt.Fprintf(os.Stderr, "no child %q\n", what)
			os.Exit(2)
		}
		if err := run(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(insideEnv) != "" {
		// An index that cannot be closed for want of room keeps its goroutines.
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

// children are what this binary can be run as.
func children() map[string]func(args []string) error {
	return map[string]func([]string) error{
		"crash": crashChild,
	}
}
