// Package leak ends a suite of tests: a suite whose tests leave a goroutine behind
// has failed. It is for those that use http.DefaultClient or start programs;
// where neither is so, goleak.VerifyTestMain does.
package leak

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests, looks for what they left, and exits. The connections that
// http.DefaultClient keeps are closed before that.
func Main(m *testing.M) { goleak.VerifyTestMain(closing{m}) }

type closing struct{ *testing.M }

func (c closing) Run() int {
	code := c.M.Run()
	http.DefaultClient.CloseIdleConnections()
	return code
}
