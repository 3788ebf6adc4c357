package ociserver

import (
	"io"
	"net/http"

	"github.com/labstack/echo/v4"
)

// routes is all there is of echo: which path goes to which function. The
// distribution API's own paths are parsed by internal/oci, because repository
// names hold slashes and have to be read as they came, escapes included.
func (h *handler) routes(serve http.HandlerFunc) http.Handler {
	e := echo.New()
	// Answers go to the raw writer: echo's own hides ReadFrom and with it
	// sendfile.
	e.Any("/v2/*", func(c echo.Context) error {
		serve(c.Response().Writer, c.Request())
		return nil
	})
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		e.Add(method, "/healthz", func(c echo.Context) error {
			answerHealth(c.Response().Writer, nil)
			return nil
		})
		e.Add(method, "/readyz", func(c echo.Context) error {
			answerHealth(c.Response().Writer, h.ready())
			return nil
		})
	}
	// What echo finds no route for is still a request to a registry, and gets
	// the API's own refusal and a line in the log.
	e.HTTPErrorHandler = func(_ error, c echo.Context) {
		serve(c.Response().Writer, c.Request())
	}
	return e
}

// answerHealth tells a load balancer yes or no. The reasons are on the admin
// port, not on one that strangers may reach.
func answerHealth(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "not ready\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}
