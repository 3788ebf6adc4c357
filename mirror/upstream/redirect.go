package upstream

import "net/http"

// maxRedirects bounds the hops of one request.
const maxRedirects = 10

// redirectError is a redirect that is not followed. It never holds the
// redirect's URL: those are signed as a rule.
type redirectError struct{ why string }

func (e *redirectError) Error() string { return "redirect refused: " + e.why }

// checkRedirect decides over each hop before it is made. oras-go's client has
// dropped Authorization by now if the chain has left the registry's origin.
func (x *exchange) checkRedirect(req *http.Request, via []*http.Request) error {
	// net/http names the page before in Referer, signed query and all.
	req.Header.Del("Referer")
	from := via[len(via)-1].URL
	switch {
	case len(via) > maxRedirects:
		return &redirectError{why: "too many hops"}
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return &redirectError{why: "neither http nor https"}
	case from.Scheme == "https" && req.URL.Scheme == "http" && !x.insecure:
		return &redirectError{why: "from https to http"}
	}
	if !x.guard.named[dialAddress(req.URL)] {
		if err := x.guard.checkHost(req.URL.Hostname()); err != nil {
			return err
		}
	}
	return nil
}

// foreign reports whether resp came from another origin than ep's, after a
// redirect: object storage as a rule, whose 401 and 403 speak of a broken
// signature and not of the caller's rights.
func foreign(ep *endpoint, resp *http.Response) bool {
	return originOf(resp.Request.URL) != ep.origin
}
