package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// served is what the mirror counted, in bytes by source.
type served struct{ upstream, join, disk float64 }

func (s served) minus(t served) served {
	return served{s.upstream - t.upstream, s.join - t.join, s.disk - t.disk}
}

// scrape reads larder_served_bytes_total from a metrics page (Prometheus text
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
		labels, value, ok := strings.Cut(lines.Text(), "} ")
		if !ok || !strings.HasPrefix(labels, "larder_served_bytes_total{") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return served{}, fmt.Errorf("parse metrics: %w", err)
		}
		for label, n := range sum {
			if strings.Contains(labels, label) {
				*n += v
			}
		}
	}
	return s, lines.Err()
}
