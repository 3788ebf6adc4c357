package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/internal/status"
)

const (
	// askPatience is how long larder status waits for an answer.
	askPatience = 30 * time.Second
	// maxStatus bounds the answer, in bytes: a thousand images have a tenth.
	maxStatus = 16 << 20
)

// statusFlags is what larder status is told.
type statusFlags struct {
	admin  string
	output string
	watch  bool
	every  time.Duration
	sort   string
	limit  int
	find   string
}

func newStatus() *cobra.Command {
	var f statusFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the mirror on this node, or the registry, holds and does",
		Long: `Shows what a running larder mirror or larder central holds and does: its state,
hits and bytes saved, what is being fetched, disk against limits, upstreams, images,
and the last errors. It reads the port for operators (--admin-listen); a browser
shows the same at http://ADDRESS/status.

--output json gives the document that docs/status.md describes, with --watch one to
a line.

Names of private images are told to those on the same host only. For a pod:

  kubectl -n larder port-forward pod/NAME 8001

Exit codes: 0 shown; 1 nobody answers there; 2 usage.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runStatus(cmd, f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.admin, "admin", "127.0.0.1:8001", "`ADDRESS` of the port for operators, host:port")
	flags.StringVarP(&f.output, "output", "o", "table", "`FORMAT`: table or json")
	flags.BoolVarP(&f.watch, "watch", "w", false, "show it again and again, until interrupted")
	flags.DurationVar(&f.every, "every", 2*time.Second, "how often --watch looks")
	flags.StringVar(&f.sort, "sort", status.SortUsed, "`ORDER` of images: used, size or name")
	flags.IntVar(&f.limit, "limit", 20, "how many images to show, at most 1000")
	flags.StringVar(&f.find, "find", "", "show only images with this `TEXT` in their name")
	return cmd
}

// check finds mistakes in how larder status was called.
func (f statusFlags) check() (url.Values, error) {
	if err := checkAddress("admin", f.admin); err != nil {
		return nil, err
	}
	if f.output != "table" && f.output != "json" {
		return nil, usageErrorf("--output %q: write table or json", f.output)
	}
	if f.every < 100*time.Millisecond {
		return nil, usageErrorf("--every %s: it has to be 100ms or more", f.every)
	}
	query := url.Values{"sort": {f.sort}, "limit": {fmt.Sprint(f.limit)}, "find": {f.find}}
	if _, err := status.ParseView(query); err != nil {
		return nil, usageErrorf("--%v", err)
	}
	return query, nil
}

func runStatus(cmd *cobra.Command, f statusFlags) error {
	query, err := f.check()
	if err != nil {
		return err
	}
	stop, _, release := signals(cmd.Context())
	defer release()
	client := &http.Client{
		Timeout: askPatience,
		// Not by way of a proxy, and nowhere else.
		Transport:     &http.Transport{MaxIdleConnsPerHost: 1},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	out := cmd.OutOrStdout()
	for {
		raw, doc, err := askStatus(stop, client, f.admin, query)
		switch {
		case stop.Err() != nil && f.watch:
			return nil // that is how it ends
		case err != nil && stop.Err() != nil:
			return errInterrupted
		case err != nil:
			return err
		}
		var text bytes.Buffer
		switch {
		case f.output == "json" && f.watch:
			err = json.Compact(&text, raw)
			text.WriteByte('\n')
		case f.output == "json":
			err = json.Indent(&text, bytes.TrimSpace(raw), "", "  ")
			text.WriteByte('\n')
		default:
			writeStatus(&text, doc, width(out))
		}
		if err != nil {
			return fmt.Errorf("read status: %w", err)
		}
		if screen, ok := out.(*os.File); ok && isTerminal(screen) && f.watch && f.output == "table" {
			_, _ = io.WriteString(out, "\x1b[H\x1b[2J\x1b[3J") // to the top of an empty screen
		}
		if _, err := out.Write(text.Bytes()); err != nil {
			return fmt.Errorf("write status: %w", err)
		}
		if !f.watch {
			return nil
		}
		if wait(stop, f.every); stop.Err() != nil {
			return nil
		}
	}
}

// askStatus fetches the document. Its errors say what to try.
func askStatus(ctx context.Context, client *http.Client, admin string, query url.Values) (raw []byte, doc *status.Document, err error) {
	u := url.URL{Scheme: "http", Host: admin, Path: "/status.json", RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, fmt.Errorf("make request: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, unanswered(admin, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s answers %s, so it is not the port for operators of this version: name the one --admin-listen of larder mirror or larder central has by --admin", admin, resp.Status)
	}
	if raw, err = io.ReadAll(io.LimitReader(resp.Body, maxStatus)); err != nil {
		return nil, nil, fmt.Errorf("read status of %s: %w", admin, err)
	}
	doc = &status.Document{}
	if err := json.Unmarshal(raw, doc); err != nil || doc.Schema == 0 {
		return nil, nil, fmt.Errorf("what %s answers is no status: name the port for operators (--admin-listen of larder mirror or larder central) by --admin", admin)
	}
	return raw, doc, nil
}

// unanswered says what to try when nobody answers.
func unanswered(admin string, err error) error {
	why := err
	if e, ok := errors.AsType[*url.Error](err); ok {
		why = e.Err
	}
	try := "is larder mirror running, and is this its --admin-listen?"
	if !errors.Is(err, syscall.ECONNREFUSED) {
		try = "is that the address of this node's mirror, and can it be reached from here?"
	}
	return fmt.Errorf("ask %s: %w; %s In a cluster: 'kubectl -n larder port-forward pod/NAME 8001', then again", admin, why, try)
}

// clean makes text from elsewhere safe for a terminal: no control characters.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '\ufffd'
		}
		return r
	}, cmp.Or(text, "-"))
}
