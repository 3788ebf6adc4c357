package docs

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// curl does what the documentation asks of curl, so that its commands run on a
// machine that has none. With -clients the real one runs. It refuses what it does
// not know, and gives curl's exit codes where somebody looks at them.
func curl(args []string) int {
	req, to, fail, head := &http.Request{Method: http.MethodGet, Header: http.Header{}}, os.Stdout, false, false
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	refuse := func(err error) int {
		fmt.Fprintln(os.Stderr, "curl:", err)
		return 2
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if !strings.HasPrefix(arg, "-") {
			u, err := req.URL.Parse(arg)
			if err != nil {
				return refuse(err)
			}
			req.URL = u
			continue
		}
		if letters := strings.TrimPrefix(arg, "-"); strings.Trim(letters, "fsSk") == "" {
			fail = fail || strings.Contains(letters, "f")
			client.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = strings.Contains(letters, "k")
			continue
		}
		if len(args) == 0 {
			return refuse(fmt.Errorf("%s has no value", arg))
		}
		value := args[0]
		args = args[1:]
		var err error
		switch arg {
		case "--max-time":
			var seconds int
			seconds, err = strconv.Atoi(value)
			client.Timeout = time.Duration(seconds) * time.Second
		case "-o":
			to, err = os.Create(value)
		case "-u":
			user, password, _ := strings.Cut(value, ":")
			req.SetBasicAuth(user, password)
		case "-X":
			req.Method = value
		case "-H":
			name, content, _ := strings.Cut(value, ":")
			req.Header.Set(name, strings.TrimSpace(content))
		case "-D":
			if head = value == "-"; !head {
				err = fmt.Errorf("headers go to - only")
			}
		case "--data-binary":
			var body []byte
			body, err = os.ReadFile(strings.TrimPrefix(value, "@"))
			req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			if req.Method == http.MethodGet {
				req.Method = http.MethodPost
			}
		default:
			err = fmt.Errorf("%s is not known here", arg)
		}
		if err != nil {
			return refuse(err)
		}
	}
	if req.URL == nil {
		return refuse(fmt.Errorf("no URL"))
	}
	res, err := client.Do(req)
	if err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		return 7
	}
	defer res.Body.Close()
	if fail && res.StatusCode >= http.StatusBadRequest {
		fmt.Fprintln(os.Stderr, "curl: the server answered", res.Status)
		return 22
	}
	if head {
		fmt.Fprintf(to, "%s %s\r\n", res.Proto, res.Status)
		if err := res.Header.Write(to); err != nil {
			return refuse(err)
		}
		fmt.Fprint(to, "\r\n")
	}
	if _, err := io.Copy(to, res.Body); err != nil {
		return 18
	}
	return 0
}

// isCurl reports whether the test binary was called by that name.
func isCurl() bool { return filepath.Base(os.Args[0]) == "curl" }
