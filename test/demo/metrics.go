package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// served is what the mirror counted, in bytes by source, and how many fills it
// had under way.
type served struct{ upstream, join, disk, fills float64 }

func (s served) minus(t served) served {
	return served{upstream: s.upstream - t.upstream, join: s.join - t.join, disk: s.disk - t.disk}
}

// scrape reads larder_served_bytes_total and larder_fills_in_flight from a metrics page (Prometheus text
// format).
func scrape(ctx context.Context, url string) (served, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return served{}, fmt.Errorf("make request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return served{}, fmt.Errorf("read metrics: %w", err)
	}
	defer resp.Body.Close()
	var s served
	sum := map[string]*float64{`source="upstream"`: &s.upstream, `source="join"`: &s.join, `source="disk"`: &s.disk}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || name == "#" {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return served{}, fmt.Errorf("parse metrics: %w", err)
		}
		name, labels, _ := strings.Cut(name, "{")
		switch name {
		case "larder_fills_in_flight":
			s.fills = v
		case "larder_served_bytes_total":
			for label, n := range sum {
				if strings.Contains(labels, label) {
					*n += v
				}
			}
		}
	}
	return s, lines.Err()
}
