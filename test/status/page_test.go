package status

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/larder-registry/larder/internal/status"
)

// fits reports elements that stand out of the page to the right.
const fits = `[...document.querySelectorAll("body *")].filter(e => !e.closest("#hours") && getComputedStyle(e).position !== "absolute" && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).slice(0, 5).map(e => e.outerHTML.slice(0, 120))`

// faint reports texts whose contrast with what is behind them is below 4.5
// (WCAG 2.2, 1.4.3), and how many were looked at.
const faint = `(() => {
	const parse = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
	const light = c => { const f = c.slice(0, 3).map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
	const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0) return c; } return [255, 255, 255, 1]; };
	const bad = []; let seen = 0;
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n; (n = walk.nextNode());) {
		const e = n.parentElement;
		if (!n.data.trim() || ["SCRIPT", "STYLE", "OPTION"].includes(e.tagName)) continue;
		seen++;
		const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) bad.push(ratio.toFixed(2) + " " + n.data.trim().slice(0, 60));
	}
	return {bad, seen};
})()`

// nameless reports what a screen reader would have no name for.
const nameless = `[
	...[...document.querySelectorAll("table")].filter(t => !t.caption || !t.caption.textContent.trim()),
	...[...document.querySelectorAll("th")].filter(t => !t.scope),
	...[...document.querySelectorAll("progress, [role=meter], svg:not([aria-hidden])")].filter(p => !p.ariaLabel),
	...[...document.querySelectorAll("input, select")].filter(i => i.labels.length === 0),
	...[...document.querySelectorAll("[id]")].filter(e => document.querySelectorAll("#" + CSS.escape(e.id)).length > 1),
].slice(0, 5).map(e => e.outerHTML.slice(0, 120))`

// TestScreens looks at every kind of node on every kind of screen.
func TestScreens(t *testing.T) {
	in := browser(t)
	images := many()
	for name, of := range map[string]func(status.View) *status.Document{
		"empty":    func(status.View) *status.Document { return empty() },
		"busy":     func(status.View) *status.Document { return busy() },
		"central":  func(status.View) *status.Document { return central() },
		"attacked": func(status.View) *status.Document { return attacked() },
		"many": func(v status.View) *status.Document {
			d := busy()
			d.Images = status.Select(images, v)
			d.Images.At = now()
			return d
		},
	} {
		url := serve(t, of) + "/status"
		for _, s := range screens() {
			t.Run(name+"/"+s.name, func(t *testing.T) {
				tb := open(t, in, url, s)
				if !s.noScript {
					tb.until(t, `document.getElementById("live").textContent === "live"`)
				}
				tb.shoot(t, name+"-"+s.name, 0)
				if s.noScript {
					// The test's own scripts need what the page is denied.
					tb.plain(t)
					return
				}
				if stand := eval[[]string](t, tb, fits); len(stand) > 0 {
					t.Errorf("does not fit:\n%s", lines(stand))
				}
				text := eval[struct {
					Bad  []string
					Seen int
				}](t, tb, faint)
				if len(text.Bad) > 0 || text.Seen < 20 {
					t.Errorf("of %d texts these are hard to read:\n%s", text.Seen, lines(text.Bad))
				}
				if noNames := eval[[]string](t, tb, nameless); len(noNames) > 0 {
					t.Errorf("has no name, or one that is there twice:\n%s", lines(noNames))
				}
				if eval[bool](t, tb, `window.stolen !== undefined || document.querySelectorAll("img, iframe, link:not([rel=icon])").length > 0 || document.scripts.length !== 1`) {
					t.Error("text became markup")
				}
				if bad := tb.complaints(); len(bad) > 0 {
					t.Errorf("the browser complains:\n%s", lines(bad))
				}
			})
		}
	}
}

// plain checks a page whose scripts do not run: it has its tables, and says that
// it loads itself anew.
func (tb *tab) plain(t *testing.T) {
	t.Helper()
	html := outer(t, tb)
	if bad := tb.complaints(); len(bad) > 0 {
		t.Errorf("the browser complains:\n%s", lines(bad))
	}
	for _, part := range []string{`http-equiv="refresh"`, `id="images"`, `id="errors"`} {
		if !strings.Contains(html, part) {
			t.Errorf("the page has no %s", part)
		}
	}
}

// outer is the page as it is now.
func outer(t *testing.T, tb *tab) string {
	t.Helper()
	html, err := chromedp.Run(tb, chromedp.OuterHTML("html"))
	if err != nil {
		t.Fatal(err)
	}
	return html
}

// maxPicture bounds a picture in the docs, in bytes.
const maxPicture = 150 << 10

// TestPicturesForTheDocs takes the two that docs/status.md shows, and holds those
// that are there to their bound.
func TestPicturesForTheDocs(t *testing.T) {
	in := browser(t)
	url := serve(t, func(status.View) *status.Document { return busy() }) + "/status"
	for name, s := range map[string]screen{
		"phone": {width: 390, height: 844, scale: 1.5},
		"desk":  {width: 1180, height: 900, scale: 1, dark: true},
	} {
		tb := open(t, in, url, s)
		tb.until(t, `document.getElementById("live").textContent === "live"`)
		tb.shoot(t, "docs-"+name, 1000)
		picture, err := os.ReadFile("../../docs/images/status-" + name + ".png")
		if err != nil || len(picture) > maxPicture || !bytes.HasPrefix(picture, []byte("\x89PNG")) {
			t.Errorf("docs/images/status-%s.png has %d bytes (%v): make it by test/status/run -docs", name, len(picture), err)
		}
	}
}
