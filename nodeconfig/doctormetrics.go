package nodeconfig

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
)

// sample is one line of the mirror's metrics.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

// samples are the mirror's metrics at one moment.
type samples []sample

// scrape reads the metrics of the mirror whose port for operators is at addr.
func scrape(ctx context.Context, addr string) (samples, error) {
	raw, err := probe(ctx, "http://"+addr+"/metrics", http.StatusOK)
	if err != nil {
		return nil, fmt.Errorf("read the mirror's metrics: %w", err)
	}
	return parseMetrics(string(raw)), nil
}

// sum adds up the samples of a metric whose labels have all the values given.
func (s samples) sum(name string, labels map[string]string) float64 {
	var sum float64
	for _, one := range s {
		if one.name != name {
			continue
		}
		fits := true
		for label, value := range labels {
			fits = fits && one.labels[label] == value
		}
		if fits {
			sum += one.value
		}
	}
	return sum
}

// since are the samples that differ from what they were before, by how much.
func (s samples) since(before samples) samples {
	var changed samples
	for _, one := range s {
		was := 0.0
		for _, old := range before {
			if old.name == one.name && maps.Equal(old.labels, one.labels) {
				was = old.value
			}
		}
		if one.value != was {
			one.value -= was
			changed = append(changed, one)
		}
	}
	return changed
}

// parseMetrics reads Larder's own metrics from Prometheus' text format 0.0.4.
// Lines beyond the form are passed over.
func parseMetrics(text string) samples {
	var all samples
	for line := range strings.Lines(text) {
		if one, ok := parseSample(strings.TrimSpace(line)); ok {
			all = append(all, one)
		}
	}
	return all
}

func parseSample(line string) (sample, bool) {
	if !strings.HasPrefix(line, "larder_") {
		return sample{}, false
	}
	s := sample{labels: map[string]string{}}
	end := strings.IndexAny(line, "{ ")
	if end < 0 {
		return sample{}, false
	}
	var rest string
	s.name, rest = line[:end], line[end:]
	if rest[0] == '{' {
		for rest = rest[1:]; !strings.HasPrefix(rest, "}"); {
			name, value, ok := strings.Cut(rest, "=")
			quoted, err := strconv.QuotedPrefix(value)
			if !ok || err != nil || quoted[0] != '"' {
				return sample{}, false
			}
			text, err := strconv.Unquote(quoted)
			if err != nil {
				return sample{}, false
			}
			s.labels[strings.TrimSpace(name)] = text
			rest = strings.TrimPrefix(value[len(quoted):], ",")
		}
		rest = rest[1:]
	}
	fields := strings.Fields(rest) // a time may follow
	if len(fields) == 0 {
		return sample{}, false
	}
	var err error
	s.value, err = strconv.ParseFloat(fields[0], 64)
	return s, err == nil
}
