package admin

import (
	"strconv"
	"time"

	"github.com/larder-registry/larder/internal/status"
)

const (
	// plotHeight is in units of the drawing, whose width is a unit for each
	// part of time.
	plotHeight = 100
	// plotLeast is how many parts a plot has at least, so that a process that
	// has just been started is not drawn as one bar.
	plotLeast = 36
)

// plot is one drawing: bars over time, the parts of a bar on top of each other.
type plot struct {
	title markup
	parts []plotPart
	// top is what the height stands for; 0 for the highest bar.
	top int64
	// text writes a value for people.
	text func(int64) string
}

type plotPart struct {
	name   markup
	class  markup
	values []int64
}

// plots are the last day.
func plots(p *page, doc *status.Document, _ status.View) {
	s := doc.History
	var all []plot
	if requests, ok := s.Counts["requests"]; ok {
		all = append(all, plot{
			title: "Hit ratio", top: 100, text: func(n int64) string { return count(n) + " %" },
			parts: []plotPart{{"answered without fetching", "a", ratios(s.Counts["hits"], requests)}},
		})
	}
	if saved, ok := s.Counts["saved"]; ok {
		all = append(all, plot{title: "Sent to clients", text: status.Size, parts: []plotPart{{"saved", "a", saved}, {"fetched for it", "b", s.Counts["passed"]}}})
	}
	if served, ok := s.Counts["served"]; ok {
		all = append(all, plot{title: "Served", text: status.Size, parts: []plotPart{{"pulled", "a", served}}},
			plot{title: "Received", text: status.Size, parts: []plotPart{{"pushed", "b", s.Counts["received"]}}})
	}
	if reviews, ok := s.Counts["reviews"]; ok {
		all = append(all, plot{title: "Admission reviews", text: count[int64], parts: []plotPart{{"let through", "a", minus(reviews, s.Counts["denied"])}, {"denied", "c", s.Counts["denied"]}}})
	}
	p.add(`<div class=plots>`)
	for _, one := range all {
		p.draw(one, s)
	}
	p.add(`</div><details id=hours><summary>By the hour</summary><table><caption>By the hour, the latest first</caption><thead><tr><th scope=col>Until</th>`)
	for _, one := range all {
		for _, part := range one.parts {
			p.add(`<th scope=col class=num>%s: %s</th>`, one.title, part.name)
		}
	}
	p.add(`</tr></thead><tbody>`)
	p.hours(all, s)
	p.add(`</tbody></table></details>`)
}

// ratios is each part in hundredths of each whole; -1 where that is nothing.
func ratios(parts, wholes []int64) []int64 {
	list := make([]int64, len(wholes))
	for i, whole := range wholes {
		list[i] = -1
		if whole > 0 && i < len(parts) {
			list[i] = parts[i] * 100 / whole
		}
	}
	return list
}

func minus(a, b []int64) []int64 {
	list := make([]int64, len(a))
	for i := range a {
		list[i] = a[i]
		if i < len(b) {
			list[i] = max(a[i]-b[i], 0)
		}
	}
	return list
}

// draw writes a plot. What it shows is also said in words, below and for those
// who see no pictures.
func (p *page) draw(one plot, s *status.Series) {
	n, top := 0, one.top
	for _, part := range one.parts {
		n = max(n, len(part.values))
	}
	if top == 0 {
		for i := range n {
			top = max(top, one.height(i))
		}
	}
	slots := max(n, plotLeast)
	span := status.Span(time.Duration(slots*s.Every) * time.Second)
	p.add(`<figure><figcaption><b>%s</b>`, one.title)
	for _, part := range one.parts {
		p.add(` <span class="key %s">%s</span>`, part.class, part.name)
	}
	p.add(`</figcaption><div class=frame><span class=top>%s</span>`, one.text(max(top, 0)))
	p.add(`<svg viewBox="0 0 %d %d" preserveAspectRatio=none role=img aria-label="%s over the last %s, at most %s in five minutes">`,
		slots, plotHeight, one.title, span, one.text(max(top, 0)))
	base := make([]int64, n)
	for _, part := range one.parts {
		p.add(`<path class=%s d="`, part.class)
		for i, v := range part.values {
			if v <= 0 || top <= 0 {
				continue
			}
			from, to := base[i], base[i]+v
			base[i] = to
			p.bar(slots-n+i, from, to, top)
		}
		p.add(`"/>`)
	}
	p.add(`</svg><span class=from>%s ago</span><span class=to>now</span></div></figure>`, span)
}

// height is the height of the i-th bar.
func (one plot) height(i int) (sum int64) {
	for _, part := range one.parts {
		if i < len(part.values) {
			sum += max(part.values[i], 0)
		}
	}
	return sum
}

// bar adds a rectangle to a path, one unit wide, from and to parts of top.
func (p *page) bar(x int, from, to, top int64) {
	y := func(v int64) float64 { return plotHeight - float64(v)/float64(top)*plotHeight }
	// A little is still to be seen.
	height := max(y(from)-y(to), 1)
	b := p.AvailableBuffer()
	b = append(strconv.AppendInt(append(b, 'M'), int64(x), 10), ' ')
	b = strconv.AppendFloat(b, y(from), 'f', 1, 64)
	b = strconv.AppendFloat(append(b, "v-"...), height, 'f', 1, 64)
	b = strconv.AppendFloat(append(b, "h.9v"...), height, 'f', 1, 64)
	p.Write(append(b, 'z'))
}

// hours writes a row for each hour.
func (p *page) hours(all []plot, s *status.Series) {
	n := 0
	for _, counts := range s.Counts {
		n = max(n, len(counts))
	}
	hour := max(int(time.Hour/time.Second)/max(s.Every, 1), 1)
	for end := n; end > 0; end -= hour {
		from := max(end-hour, 0)
		at := s.Until.Add(-time.Duration((n-end)*s.Every) * time.Second).UTC()
		p.add(`<tr><th scope=row><time datetime="%s">%s</time></th>`, at.Format(time.RFC3339), at.Format("15:04 UTC"))
		for _, one := range all {
			for _, part := range one.parts {
				p.add(`<td class=num>%s</td>`, one.hour(part, s, from, end))
			}
		}
		p.add(`</tr>`)
	}
}

// hour is what a part of a plot comes to from one part of time to another.
func (one plot) hour(part plotPart, s *status.Series, from, end int) string {
	if one.top == 100 {
		return status.Percent(total(s.Counts["hits"], from, end), total(s.Counts["requests"], from, end))
	}
	return one.text(total(part.values, from, end))
}

func total(values []int64, from, end int) (sum int64) {
	for _, v := range values[min(from, len(values)):min(end, len(values))] {
		sum += max(v, 0)
	}
	return sum
}
