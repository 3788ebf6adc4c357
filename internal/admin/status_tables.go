package admin

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/larder-registry/larder/internal/status"
)

// upstreams tells how the registries behind are doing.
func upstreams(p *page, doc *status.Document, _ status.View) {
	if doc.Upstreams.Total == 0 {
		p.add(`<p class=dim>None was asked yet.</p>`)
		return
	}
	p.add(`<table><caption>Endpoints asked lately</caption><thead><tr><th scope=col>Endpoint</th><th scope=col>State</th><th scope=col class=num>Limit left</th></tr></thead><tbody>`)
	for _, u := range doc.Upstreams.Items {
		p.add(`<tr><th scope=row>`)
		endpoint := strings.TrimPrefix(u.Endpoint, "https://")
		registry := u.Registry
		if strings.HasSuffix(u.Endpoint, "//"+registry) {
			registry = ""
		}
		p.name(endpoint, registry)
		if u.Reason != "" {
			p.add(`<small class=said>`)
			p.ago(u.ErrorAt, doc.At)
			p.add(`: <bdi>%s</bdi></small>`, cmp.Or(u.Error, u.Reason))
		}
		p.add(`</th><td>`)
		switch {
		case u.Breaker == "open":
			p.badge("bad", "left alone")
			p.add(`<small>tried again in `)
			p.until(u.Until, doc.At)
			p.add(`</small>`)
		case u.Breaker == "half-open":
			p.badge("warn", "to be tried again")
		case !u.QuietUntil.IsZero():
			p.badge("warn", "asked for quiet")
			p.add(`<small>for `)
			p.until(u.QuietUntil, doc.At)
			p.add(`</small>`)
		case u.Failures > 0:
			p.badge("warn", "failing")
			p.add(`<small>%d in a row</small>`, u.Failures)
		default:
			p.badge("good", "healthy")
		}
		left := "–"
		if u.Remaining != nil {
			left = count(*u.Remaining)
		}
		p.add(`</td><td class=num>%s</td></tr>`, left)
	}
	p.add(`</tbody></table>`)
	p.more(doc.Upstreams.More(), "more endpoints")
}

// traffic is what was asked of each registry.
func traffic(p *page, doc *status.Document, _ status.View) {
	if doc.Traffic.Total == 0 {
		p.add(`<p class=dim>Nothing was asked for yet.</p>`)
		return
	}
	p.add(`<table><caption>Requests since the start</caption><thead><tr><th scope=col>Registry</th><th scope=col class="num wide">Requests</th><th scope=col class=num>Hits</th><th scope=col class=num>Saved</th><th scope=col class=num>Fetched</th></tr></thead><tbody>`)
	for _, t := range doc.Traffic.Items {
		var more []string
		if t.Misses > 0 {
			more = append(more, count(t.Misses)+" not served")
		}
		if t.Stale > 0 {
			more = append(more, count(t.Stale)+" served stale")
		}
		if t.Denied > 0 {
			more = append(more, count(t.Denied)+" denied")
		}
		p.add(`<tr><th scope=row>`)
		p.name(t.Registry, more...)
		p.add(`</th><td class="num wide">%s</td><td class=num>%s</td><td class=num>%s</td><td class=num>%s</td></tr>`,
			count(t.Requests), status.Percent(t.Hits, t.Requests), status.Size(t.Saved), status.Size(t.Fetched))
	}
	p.add(`</tbody></table>`)
	p.more(doc.Traffic.More(), "more registries")
}

// search is the form that chooses images.
func search(p *page, doc *status.Document, view status.View) {
	view = view.Full()
	p.add(`<form method=get action="status" role=search><label>Name <input type=search name=find value="%s" maxlength=200 placeholder="part of a name"></label> <label>Order <select name=sort>`, view.Find)
	used := markup("last use")
	if doc.Mode != "mirror" {
		used = "last push"
	}
	for _, o := range []struct {
		value string
		text  markup
	}{{status.SortUsed, used}, {status.SortSize, "size"}, {status.SortName, "name"}} {
		p.add(`<option value="%s"%s>%s</option>`, o.value, when(o.value == view.Sort, " selected"), o.text)
	}
	p.add(`</select></label> <label>Show <select name=limit>`)
	limits := []int{25, status.DefaultLimit, 250, status.MaxLimit}
	if !slices.Contains(limits, view.Limit) {
		limits = append(limits, view.Limit)
		slices.Sort(limits)
	}
	for _, n := range limits {
		p.add(`<option value="%d"%s>%d</option>`, n, when(n == view.Limit, " selected"), n)
	}
	p.add(`</select></label> <button>Apply</button></form>`)
}

func when(yes bool, text markup) markup {
	if yes {
		return text
	}
	return ""
}

// images is what is held.
func images(p *page, doc *status.Document, view status.View) {
	l := doc.Images
	if l.Total == 0 {
		if view.Find != "" {
			p.add(`<p class=dim>No name has “<bdi>%s</bdi>” in it.</p>`, view.Find)
		} else {
			p.add(`<p class=dim>None yet.</p>`)
		}
		return
	}
	p.add(`<p class=dim>%s of %s`, count(len(l.Items)), count(l.Total))
	if !l.At.IsZero() {
		p.add(`, as of <time datetime="%s">%s</time>`, l.At.UTC().Format("2006-01-02T15:04:05Z"), l.At.UTC().Format("15:04 UTC"))
	}
	last := markup("Last use")
	if doc.Mode != "mirror" {
		last = "Pushed"
	}
	p.add(`</p><table><caption>Images held</caption><thead><tr><th scope=col>Image</th><th scope=col class=num>Size</th><th scope=col class=num>%s</th></tr></thead><tbody>`, last)
	for i := range l.Items {
		p.image(&l.Items[i], doc)
	}
	p.add(`</tbody></table>`)
	p.more(l.More(), "more: name a part of what you look for, or show more")
}

func (p *page) image(i *status.Image, doc *status.Document) {
	name := i.Repository
	if i.Tag != "" {
		name += ":" + i.Tag
	}
	platforms := strings.Join(i.Platforms, ", ")
	if i.Listed > 1 && i.Listed > len(i.Platforms) {
		platforms = strings.TrimPrefix(platforms+" of "+strconv.Itoa(i.Listed)+" platforms", " of ")
	}
	kind := ""
	if i.Kind != "image" && i.Kind != "index" {
		kind = i.Kind
	}
	p.add(`<tr><th scope=row>`)
	p.title(name)
	p.add(`<span class=badges>`)
	for _, b := range []struct {
		yes  bool
		kind markup
		word markup
	}{
		{i.Pinned, "none", "pinned"},
		{i.Warm, "none", "kept warm"},
		{i.Private && i.Repository != "", "none", "private"},
		{i.Partial, "warn", "in part"},
		{i.Referrers == 1, "none", "1 referrer"},
	} {
		if b.yes {
			p.badge(b.kind, b.word)
		}
	}
	if i.Referrers > 1 {
		p.add(`<span class=badge>%s referrers</span>`, count(i.Referrers))
	}
	p.add(`</span>`)
	p.details([]string{i.Registry, platforms, kind, status.ShortDigest(i.Digest)})
	p.add(`</th><td class=num>%s</td><td class=num>`, status.Size(i.Size))
	if doc.Mode == "mirror" {
		p.ago(i.Used, doc.At)
	} else {
		p.ago(i.Pushed, doc.At)
	}
	p.add(`</td></tr>`)
}

// repositories is what larder central has.
func repositories(p *page, doc *status.Document, _ status.View) {
	l := doc.Repositories
	if l.Total == 0 {
		p.add(`<p class=dim>None yet: nothing was pushed.</p>`)
		return
	}
	p.add(`<table><caption>Repositories</caption><thead><tr><th scope=col>Repository</th><th scope=col class=num>Tags</th><th scope=col class=num>Size</th><th scope=col class="num wide">Pushed</th></tr></thead><tbody>`)
	for _, r := range l.Items {
		p.add(`<tr><th scope=row>`)
		referrers := ""
		if r.Referrers > 0 {
			referrers = count(r.Referrers) + " referrers"
		}
		p.name(r.Name, count(r.Manifests)+" manifests", referrers)
		p.add(`</th><td class=num>%s</td><td class=num>%s</td><td class="num wide">`, count(r.Tags), status.Size(r.Size))
		p.ago(r.Pushed, doc.At)
		p.add(`</td></tr>`)
	}
	p.add(`</tbody></table>`)
	p.more(l.More(), "more")
}

// verdicts is what the webhook was asked and said.
func verdicts(p *page, doc *status.Document, _ status.View) {
	r := doc.Reviews
	p.add(`<p class=dim>Since the start: `)
	for i, decision := range sorted(r.Counts) {
		p.add(`%s%s %s`, when(i > 0, ", "), count(r.Counts[decision]), strings.ReplaceAll(decision, "_", " "))
	}
	p.add(`. Policy <bdi>%s</bdi>.</p>`, r.Revision)
	if len(r.Denied)+len(r.Allowed) == 0 {
		p.add(`<p class=dim>Nothing was asked yet.</p>`)
		return
	}
	all := slices.SortedStableFunc(slices.Values(slices.Concat(r.Denied, r.Allowed)), func(a, b status.Verdict) int { return b.At.Compare(a.At) })
	p.add(`<table><caption>The last verdicts</caption><thead><tr><th scope=col>Object</th><th scope=col>Verdict</th><th scope=col class=num>When</th></tr></thead><tbody>`)
	for _, v := range all {
		p.add(`<tr><th scope=row>`)
		p.name(cmp.Or(v.Object, v.Resource), v.Namespace, v.Operation)
		if v.Image != "" {
			p.add(`<small class=said><bdi>%s</bdi>`, v.Image)
			if v.Images > 1 {
				p.add(` and %d more`, v.Images-1)
			}
			p.add(`: <bdi>%s</bdi></small>`, v.Rule)
		}
		p.add(`</th><td>`)
		switch v.Decision {
		case "denied":
			p.badge("bad", "denied")
		case "would_deny":
			p.badge("warn", "would be denied")
		case "allowed":
			p.badge("good", "allowed")
		default:
			p.add(`<bdi>%s</bdi>`, v.Decision)
		}
		p.add(`<small>%s%s</small></td><td class=num>`, v.Mode, when(v.DryRun, " dry run"))
		p.ago(v.At, doc.At)
		p.add(`</td></tr>`)
	}
	p.add(`</tbody></table>`)
}

// lastErrors is what the log has that is worth a look.
func lastErrors(p *page, doc *status.Document, _ status.View) {
	if doc.Errors.Total == 0 {
		p.add(`<p class=dim>None since the start.</p>`)
		return
	}
	p.add(`<table><caption>From the log, the latest first</caption><thead><tr><th scope=col>What</th><th scope=col class=num>When</th></tr></thead><tbody>`)
	for _, e := range doc.Errors.Items {
		p.add(`<tr><th scope=row>`)
		if e.Level == "warning" {
			p.badge("warn", "warning")
		} else {
			p.badge("bad", "error")
		}
		p.add(` <bdi>%s</bdi>`, e.Message)
		if e.Count > 1 {
			p.add(` <span class=dim>%s times</span>`, count(e.Count))
		}
		if e.Error != "" {
			p.add(`<small class=said><bdi>%s</bdi></small>`, e.Error)
		}
		if e.Subject != "" {
			p.add(`<small><bdi>%s</bdi></small>`, e.Subject)
		}
		p.add(`</th><td class=num>`)
		p.ago(e.At, doc.At)
		p.add(`</td></tr>`)
	}
	p.add(`</tbody></table>`)
}

// sorted gives the keys of a map in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
