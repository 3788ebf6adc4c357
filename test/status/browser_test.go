package status

import (
	"context"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/admin"
)

var shots = flag.String("shots", "", "`DIR` for pictures of the page")

// patience bounds what a browser does; machines may be busy.
const patience = 15 * time.Minute

// screen is what a page is looked at with.
type screen struct {
	name          string
	width, height int64
	scale         float64
	dark          bool
	noScript      bool
}

func screens() []screen {
	return []screen{
		{name: "phone-light", width: 390, height: 844, scale: 2},
		{name: "phone-dark", width: 390, height: 844, scale: 2, dark: true},
		{name: "desk-light", width: 1280, height: 900, scale: 1},
		{name: "desk-dark", width: 1280, height: 900, scale: 1, dark: true},
		{name: "desk-plain", width: 1280, height: 900, scale: 1, noScript: true},
	}
}

// browser is a Chromium that runs as long as the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v: install Debian's package chromium, or run make status-check", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox,
		// Loopback and nothing else: every name and proxy leads nowhere.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("no-pings", true), chromedp.Flag("disable-gpu", true),
		chromedp.WSURLReadTimeout(patience),
	)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if _, err := chromedp.Run(ctx, chromedp.Title()); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// tab is one page being looked at.
type tab struct {
	context.Context
	mu  sync.Mutex
	bad []string // what the browser complained of
}

// open opens url on a screen in a tab of its own.
func open(t *testing.T, in context.Context, url string, s screen) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(in)
	t.Cleanup(cancel)
	tb := &tab{Context: ctx}
	err := chromedp.Listen(ctx, func(event any) {
		tb.mu.Lock()
		defer tb.mu.Unlock()
		switch e := event.(type) {
		case *log.EventEntryAdded:
			tb.bad = append(tb.bad, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		case *runtime.EventExceptionThrown:
			tb.bad = append(tb.bad, "exception: "+e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			tb.bad = append(tb.bad, fmt.Sprintf("console: %v", e.Args))
		}
	})
	if err != nil {
		t.Fatalf("listen to the browser: %v", err)
	}
	scheme := "light"
	if s.dark {
		scheme = "dark"
	}
	call(t, tb, log.Enable, cdp.Empty{})
	call(t, tb, runtime.Enable, cdp.Empty{})
	call(t, tb, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: s.width, Height: s.height, DeviceScaleFactor: s.scale, Mobile: s.width < 500})
	call(t, tb, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	call(t, tb, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: s.noScript})
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatalf("open %s: %v", url, err)
	}
	return tb
}

// call calls the browser.
func call[P, R any](t *testing.T, tb *tab, command cdp.Command[P, R], params P) R {
	t.Helper()
	result, err := chromedp.Call(tb, command, params)
	if err != nil {
		t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// complaints is what the browser complained of so far.
func (tb *tab) complaints() []string {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return append([]string{}, tb.bad...)
}

// eval runs a script of the test's, which the page's policy does not concern.
func eval[T any](t *testing.T, tb *tab, script string) T {
	t.Helper()
	result, err := chromedp.Run(tb, chromedp.Evaluate[T](script))
	if err != nil {
		t.Fatalf("evaluate %.80s: %v", script, err)
	}
	return result
}

// until waits for a script to come true.
func (tb *tab) until(t *testing.T, script string) {
	t.Helper()
	end, look := time.After(patience), time.NewTicker(50*time.Millisecond)
	defer look.Stop()
	for !eval[bool](t, tb, script) {
		select {
		case <-look.C:
		case <-end:
			t.Fatalf("%s did not come true; the page says\n%s", script, eval[string](t, tb, "document.body.innerText"))
		}
	}
}

// shoot leaves a picture of the whole page, or with height only of its top.
func (tb *tab) shoot(t *testing.T, name string, height float64) {
	t.Helper()
	if *shots == "" {
		return
	}
	size := call(t, tb, page.GetLayoutMetrics, cdp.Empty{}).CSSContentSize
	h := min(size.Height, 5000)
	if height > 0 {
		h = min(h, height)
	}
	beyond := true
	picture := call(t, tb, page.CaptureScreenshot, page.CaptureScreenshotParams{
		CaptureBeyondViewport: &beyond, Clip: &page.Viewport{Width: size.Width, Height: h, Scale: 1},
	})
	if err := os.MkdirAll(*shots, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*shots, name+".png"), picture.Data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// serve serves what ask says as the port for operators does.
func serve(t *testing.T, ask admin.Status) string {
	t.Helper()
	logger := logrus.New()
	h, err := admin.New(admin.Config{Gatherer: prometheus.NewRegistry(), Log: logrus.NewEntry(logger), Status: ask})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(s.Close)
	return s.URL
}

func lines(all []string) string { return strings.Join(all, "\n") }
