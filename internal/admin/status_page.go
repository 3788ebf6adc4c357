package admin

import (
	"slices"
	"strings"
	"time"

	"github.com/larder-registry/larder/internal/status"
)

// section is a part of the page that is sent anew when it has changed.
type section struct {
	id    string
	title markup
	has   bool // the document has this part at all
	// fixed writes what stands above and is never sent anew, as a form that
	// somebody may be filling in; nil for nothing.
	fixed func(p *page, doc *status.Document, view status.View)
	fill  func(p *page, doc *status.Document, view status.View)
}

// sections are the parts of the page of a document, from top to bottom.
func sections(d *status.Document) []section {
	mirror := d.Mode == "mirror"
	all := []section{
		{id: "state", has: true, fill: state},
		{id: "figures", has: true, fill: figures},
		{id: "plots", title: "The last day", has: d.History != nil, fill: plots},
		{id: "fills", title: "Being fetched", has: d.Fills != nil, fill: fills},
		{id: "disk", title: "Disk", has: d.Disk != nil, fill: disk},
		{id: "upstreams", title: "Upstreams", has: d.Upstreams != nil, fill: upstreams},
		{id: "traffic", title: "Traffic by registry", has: mirror && d.Traffic != nil, fill: traffic},
		{id: "verdicts", title: "Admission reviews", has: d.Reviews != nil, fill: verdicts},
		{id: "repositories", title: "Repositories", has: d.Repositories != nil, fill: repositories},
		{id: "images", title: "Images", has: d.Images != nil, fixed: search, fill: images},
		{id: "errors", title: "Last warnings and errors", has: d.Errors != nil, fill: lastErrors},
	}
	return slices.DeleteFunc(all, func(s section) bool { return !s.has })
}

// icon is a jar with a lid.
const icon markup = `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect x='3' y='1' width='10' height='3' rx='1' fill='%23b45309'/%3E%3Crect x='2' y='5' width='12' height='10' rx='2.5' fill='%230f766e'/%3E%3C/svg%3E`

// whole writes the page.
func (p *page) whole(doc *status.Document, view status.View) {
	p.add(`<!DOCTYPE html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta name=color-scheme content="light dark">
<meta name=robots content=noindex>
<title>%s – Larder %s</title>
<link rel=icon href="%s">
<noscript><meta http-equiv=refresh content=30></noscript>
<style>%s</style>
</head>
<body>
<header>
<h1><span class=brand>Larder</span> %s <bdi class=host>%s</bdi></h1>
<p class=meta>version <bdi>%s</bdi> <span id=live class=live hidden role=status>connecting</span></p>
</header>
<main>
`, doc.Host, doc.Mode, icon, statusStyle, doc.Mode, doc.Host, doc.Version)
	for _, s := range sections(doc) {
		class := markup("card")
		if s.title == "" {
			class = "bare"
		}
		p.add(`<section class="%s s-%s">`, class, s.id)
		if s.title != "" {
			p.add(`<h2>%s</h2>`, s.title)
		}
		if s.fixed != nil {
			s.fixed(p, doc, view)
		}
		p.add(`<div id="%s">`, s.id)
		s.fill(p, doc, view)
		p.add("</div></section>\n")
	}
	p.add(`</main>
<footer><p>Read-only. The same for programs: <a href="status.json">status.json</a>, <a href="metrics">metrics</a>, <a href="readyz">readyz</a>; for terminals: <code>larder status</code>.</p></footer>
<script>%s</script>
</body>
</html>
`, statusScript)
}

// state tells whether all is well, and if not, why.
func state(p *page, doc *status.Document, _ status.View) {
	p.add(`<p class=ready>`)
	if doc.Ready {
		p.badge("good", "ready")
	} else {
		p.badge("bad", "not ready")
	}
	p.add(` running for %s</p>`, status.Span(doc.At.Sub(doc.Started)))
	for _, c := range doc.Checks {
		if c.Problem == "" {
			continue
		}
		kind := markup("bad")
		if c.Advisory {
			kind = "warn"
		}
		p.add(`<p class="notice %s"><b><bdi>%s</bdi></b>: <bdi>%s</bdi></p>`, kind, c.Name, c.Problem)
	}
	if !doc.Names {
		p.add(`<p class="notice none">Names that not everybody may read are left out, as are the words of errors: you are not on this host. Come through a tunnel that ends here, such as <code>kubectl port-forward</code>.</p>`)
	}
}

// figures are what there is to know at a glance.
func figures(p *page, doc *status.Document, _ status.View) {
	p.add(`<dl class=figures>`)
	figure := func(name markup, value, more string) {
		p.add(`<div><dt>%s</dt><dd>%s<small>%s</small></dd></div>`, name, value, more)
	}
	if t := doc.Traffic; t != nil && doc.Mode == "mirror" {
		sum := status.Sum(t.Items)
		figure("Hit ratio", status.Percent(sum.Hits, sum.Requests), count(sum.Hits)+" of "+count(sum.Requests)+" requests")
		figure("Saved", status.Size(sum.Saved), "of "+status.Size(sum.Saved+sum.Passed)+" sent")
	} else if t != nil {
		sum := status.Sum(t.Items)
		figure("Served", status.Size(sum.Saved+sum.Passed), count(sum.Requests)+" requests")
	}
	if doc.Repositories != nil {
		figure("Repositories", count(doc.Repositories.Total), status.Size(doc.Repositories.Bytes)+" held")
	}
	if doc.Images != nil {
		more := ""
		if doc.Disk != nil && doc.Disk.Blobs > 0 {
			more = "in " + count(doc.Disk.Blobs) + " blobs"
		}
		figure("Images", count(doc.Images.Total), more)
	}
	if f := doc.Fills; f != nil {
		var rate int64
		for _, fill := range f.Items {
			rate += fill.Rate
		}
		more := "nothing to wait for"
		if f.Total > 0 {
			more = "at " + status.Size(rate) + "/s"
		}
		figure("Being fetched", count(f.Total), more)
	}
	if r := doc.Reviews; r != nil {
		denied := r.Counts["denied"]
		figure("Denied", count(denied), "of "+count(denied+r.Counts["allowed"]+r.Counts["would_deny"]+r.Counts["skipped"])+" reviews")
	}
	if d := doc.Disk; d != nil {
		more := status.Size(d.Free) + " free"
		if d.Limit > 0 {
			more = "of " + status.Size(d.Limit) + " allowed"
		}
		figure("On disk", status.Size(d.Bytes+d.Arriving), more)
	}
	p.add(`</dl>`)
}

// fills are the blobs being brought in.
func fills(p *page, doc *status.Document, _ status.View) {
	if doc.Fills.Total == 0 {
		p.add(`<p class=dim>Nothing: everything asked for is here.</p>`)
		return
	}
	p.add(`<table><caption>Blobs being fetched from upstream</caption><thead><tr><th scope=col>Blob</th><th scope=col>So far</th><th scope=col class=num>Waiting</th></tr></thead><tbody>`)
	for _, f := range doc.Fills.Items {
		p.add(`<tr><th scope=row>`)
		p.name(f.Repository, f.Registry, status.ShortDigest(f.Digest))
		p.add(`</th><td class=bar>`)
		switch {
		case f.Size < 0:
			p.add(`<progress aria-label="asking for %s"></progress><small>asking</small>`, status.ShortDigest(f.Digest))
		default:
			p.add(`<progress max="%d" value="%d" aria-label="%s of %s"></progress><small>%s of %s`, max(f.Size, 1), min(f.Bytes, f.Size),
				status.ShortDigest(f.Digest), f.Repository, status.Percent(f.Bytes, f.Size), status.Size(f.Size))
			if f.Ahead {
				p.add(`, ahead of the client`)
			} else if f.Rate > 0 {
				p.add(`, %s/s`, status.Size(f.Rate))
				if left := (f.Size - f.Bytes) / f.Rate; left > 0 {
					p.add(`, %s left`, status.Span(time.Duration(left)*time.Second))
				}
			}
			p.add(`</small>`)
		}
		p.add(`</td><td class=num>%d</td></tr>`, f.Followers)
	}
	p.add(`</tbody></table>`)
	p.more(doc.Fills.More(), "more are being fetched")
}

// disk is what lies there, against its limits.
func disk(p *page, doc *status.Document, _ status.View) {
	d := doc.Disk
	if d.Problem != "" {
		p.add(`<p class="notice warn">Nothing can be kept just now: <bdi>%s</bdi></p>`, d.Problem)
	}
	p.add(`<ul class=meters>`)
	if d.Limit > 0 {
		p.meter("Content", d.Bytes+d.Arriving, d.Limit, status.Size(d.Bytes+d.Arriving)+" of "+status.Size(d.Limit)+" allowed", d.Bytes+d.Arriving > d.Limit)
	}
	if d.Total > 0 {
		text := status.Size(d.Free) + " of " + status.Size(d.Total) + " free"
		if d.MinFree > 0 {
			text += ", " + status.Size(d.MinFree) + " to stay so"
		}
		p.meter("File system", d.Total-d.Free, d.Total, text, d.Free < d.MinFree)
	}
	p.add(`</ul><p class=dim>`)
	if d.Arriving > 0 {
		p.add(`%s arriving or to be resumed. `, status.Size(d.Arriving))
	}
	var evicted []string
	for _, reason := range sorted(d.Evictions) {
		evicted = append(evicted, count(d.Evictions[reason])+" "+evictedFor(reason))
	}
	switch {
	case doc.Mode != "mirror":
	case evicted == nil:
		p.add(`Nothing was evicted since the start.`)
	default:
		p.add(`Blobs evicted since the start: %s.`, strings.Join(evicted, ", "))
	}
	p.add(`</p>`)
}

// evictedFor says in words for what reason the store evicted something.
func evictedFor(reason string) string {
	switch reason {
	case "size":
		return "to keep to max_size"
	case "free":
		return "to keep min_free"
	case "manifest":
		return "image manifests whose layers went"
	}
	return reason
}

// meter is how full something is.
func (p *page) meter(name markup, value, most int64, text string, over bool) {
	class := markup("good")
	if over {
		class = "bad"
	}
	most = max(most, 1)
	value = min(value, most)
	p.add(`<li><span>%s</span><div class="meter %s" role=meter aria-valuemin=0 aria-valuemax="%d" aria-valuenow="%d" aria-label="%s: %s">`, name, class, most, value, name, text)
	p.add(`<svg viewBox="0 0 1000 1" preserveAspectRatio=none aria-hidden=true><rect width="%d" height=1 /></svg></div><small>%s</small></li>`, int64(float64(value)/float64(most)*1000), text)
}

// name writes what something is called, large, and what more there is to say of
// it, small.
func (p *page) name(large string, small ...string) {
	p.title(large)
	p.details(small)
}

// title writes what something is called.
func (p *page) title(name string) {
	if name == "" {
		p.add(`<span class=dim>private</span>`)
		return
	}
	p.add(`<bdi>%s</bdi>`, name)
}

// details writes what more there is to say of it, small.
func (p *page) details(small []string) {
	p.add(`<small>`)
	between := markup("")
	for _, s := range small {
		if s != "" {
			p.add(`%s<bdi>%s</bdi>`, between, s)
			between = " · "
		}
	}
	p.add(`</small>`)
}

// more tells that a list goes on.
func (p *page) more(n int, what markup) {
	if n > 0 {
		p.add(`<p class=dim>… and %s %s.</p>`, count(n), what)
	}
}
