package nodeconfig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// probePatience bounds each question to the mirror.
const probePatience = 5 * time.Second

// checkListener finds out who answers where the mirror is looked for.
func (d *doctor) checkListener(ctx context.Context) {
	at := d.mirror
	if !at.IsValid() {
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), d.cfg.Port)
		if d.cfg.Address.IsValid() {
			at = netip.AddrPortFrom(d.cfg.Address, d.cfg.Port)
		}
	}
	if err := CheckListener(ctx, at); err != nil {
		d.say("port", Bad, err.Error(), "give the mirror another port, there and to larder init")
		return
	}
	conn, err := (&net.Dialer{Timeout: dialPatience}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		d.say("port", Bad, "nobody listens at "+at.String()+": pulls go upstream", "start larder mirror there")
		return
	}
	conn.Close()
	d.say("port", Good, "larder answers at "+at.String(), "")
}

// checkAdmin asks the mirror how it is, and returns its metrics, nil without an
// answer.
func (d *doctor) checkAdmin(ctx context.Context) samples {
	if d.cfg.Admin == "" {
		d.say("mirror", Unknown, "its port for operators was not named", "")
		return nil
	}
	var state struct {
		Ready  bool              `json:"ready"`
		Checks map[string]string `json:"checks"`
	}
	raw, err := probe(ctx, "http://"+d.cfg.Admin+"/readyz", http.StatusOK, http.StatusServiceUnavailable)
	if err == nil {
		err = json.Unmarshal(raw, &state)
	}
	if err != nil {
		d.say("mirror", Unknown, fmt.Sprintf("ask its port for operators: %v", err), "name that port by --admin; in a cluster run this in the mirror's own pod")
		return nil
	}
	var complaints []string
	for _, name := range slices.Sorted(maps.Keys(state.Checks)) {
		if state.Checks[name] != "ok" {
			complaints = append(complaints, name+": "+state.Checks[name])
		}
	}
	switch {
	case !state.Ready:
		d.say("mirror", Bad, "it is not ready: "+joined(complaints, "it does not say why"), "see its log")
	case len(complaints) > 0:
		d.say("mirror", Doubtful, "it is ready, but "+strings.Join(complaints, "; "), "see its log")
	default:
		d.say("mirror", Good, "it is ready", "")
	}
	metrics, err := scrape(ctx, d.cfg.Admin)
	if err != nil {
		d.say("metrics", Unknown, err.Error(), "")
		return nil
	}
	if n := metrics.sum("larder_bypassed", nil); n > 0 {
		d.say("bypassed", Doubtful, fmt.Sprintf("the mirror was asked for %.0f image manifests lately and for none of their layers", n), "look at snapshotter and shadowing; layers the node had already are counted, too")
	}
	return metrics
}

// kubeletDefaults are kubelet's marks where it is not told others
// (KubeletConfiguration, v1beta1): it deletes images when their disk is fuller
// than this, and evicts pods when less than this is free.
const (
	kubeletHighPercent = 85
	kubeletImageFree   = 15
	kubeletNodeFree    = 10
)

// checkDisk compares what the mirror leaves free with what makes kubelet delete
// images and evict pods: the mirror has to give way first.
func (d *doctor) checkDisk(metrics samples) {
	if !d.node.exists("/var/lib/kubelet") {
		d.say("disk", Good, "there is no kubelet here to share the disk with", "")
		return
	}
	marks := d.kubeletMarks()
	lowest := slices.MaxFunc(marks, func(a, b diskMark) int { return int(100 * (a.free - b.free)) })
	evidence := fmt.Sprintf("kubelet acts when less than %.0f%% is free (%s)", 100*lowest.free, lowest.name)
	if len(metrics) > 0 {
		evidence += fmt.Sprintf("; %.0f%% is free where the mirror keeps its data", 100*metrics.sum("larder_fs_free_ratio", nil))
	}
	switch {
	case d.cfg.MinFree == 0:
		d.say("disk", Unknown, evidence+"; what the mirror leaves free is not known as a share", "name its configuration by --config, and write min_free in per cent")
	case d.cfg.MinFree <= lowest.free:
		d.say("disk", Doubtful, fmt.Sprintf("%s, and the mirror leaves only %.0f%%: kubelet deletes images before the mirror gives way", evidence, 100*d.cfg.MinFree), fmt.Sprintf("set min_free to %.0f%% or more", 100*lowest.free+5))
	default:
		d.say("disk", Good, fmt.Sprintf("%s; the mirror leaves %.0f%%", evidence, 100*d.cfg.MinFree), "")
	}
}

// diskMark is a share of free space below which kubelet acts.
type diskMark struct {
	name string
	free float64
}

// kubeletMarks reads kubelet's marks from where distributions keep them.
// Thresholds in bytes are not compared.
func (d *doctor) kubeletMarks() []diskMark {
	cfg := struct {
		High  *float64          `yaml:"imageGCHighThresholdPercent"`
		Evict map[string]string `yaml:"evictionHard"`
	}{}
	files := []string{"/var/lib/kubelet/config.yaml", "/etc/kubernetes/kubelet/config", "/etc/kubernetes/kubelet/kubelet-config.json", "/etc/kubernetes/kubelet/config.json"}
	drops, err := d.node.list("/etc/kubernetes/kubelet/config.json.d")
	if err == nil {
		for _, base := range drops {
			files = append(files, "/etc/kubernetes/kubelet/config.json.d/"+base)
		}
	}
	source := "its default"
	for _, name := range files {
		content, err := d.node.read(name)
		if err != nil || blank(content) {
			continue
		}
		if yaml.Unmarshal(content, &cfg) == nil { // JSON is YAML, too
			source = name
		}
	}
	high := float64(kubeletHighPercent)
	if cfg.High != nil {
		high = *cfg.High
	}
	marks := []diskMark{{"imageGCHighThresholdPercent, " + source, (100 - high) / 100}}
	for signal, byDefault := range map[string]float64{"imagefs.available": kubeletImageFree, "nodefs.available": kubeletNodeFree} {
		text, ok := cfg.Evict[signal]
		if !ok && cfg.Evict != nil {
			continue // a map that is given replaces the defaults
		}
		free, from := byDefault, "its default"
		if ok {
			percent, isPercent := strings.CutSuffix(text, "%")
			n, err := strconv.ParseFloat(percent, 64)
			if !isPercent || err != nil {
				continue
			}
			free, from = n, source
		}
		marks = append(marks, diskMark{signal + ", " + from, free / 100})
	}
	return marks
}

// probe gets a page of at most 8 MiB from the mirror itself, past any proxy.
func probe(ctx context.Context, target string, statuses ...int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if !slices.Contains(statuses, resp.StatusCode) {
		return nil, fmt.Errorf("%s answers %s", target, resp.Status)
	}
	const most = 8 << 20
	raw, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && len(raw) > most {
		err = errors.New("the answer is longer than 8 MiB")
	}
	return raw, err
}
