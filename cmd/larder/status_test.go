package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/status"
	"github.com/larder-registry/larder/test/registry"
)

func TestTheUsageOfStatus(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	t.Cleanup(page.Close)
	none := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(none.Close)
	away := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	t.Cleanup(away.Close)
	addr := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"no port", []string{"--admin", "127.0.0.1"}, 2, []string{`--admin "127.0.0.1": write host:port`}},
		{"a format", []string{"-o", "yaml"}, 2, []string{`--output "yaml": write table or json`}},
		{"an order", []string{"--sort", "age"}, 2, []string{`--sort "age": write used, size or name`}},
		{"a limit", []string{"--limit", "0"}, 2, []string{`--limit "0": write a number from 1 to 1000`}},
		{"too often", []string{"--watch", "--every", "1ms"}, 2, []string{"--every 1ms: it has to be 100ms or more"}},
		{"an argument", []string{"all"}, 2, []string{"unknown command"}},
		{"nobody there", []string{"--admin", closed}, 1, []string{"ask " + closed, "connection refused", "is larder mirror running, and is this its --admin-listen?", "kubectl -n larder port-forward"}},
		{"no such name", []string{"--admin", "nobody.invalid:8001"}, 1, []string{"ask nobody.invalid:8001", "can it be reached from here?"}},
		{"another port", []string{"--admin", addr(none)}, 1, []string{addr(none) + " answers 404 Not Found", "--admin-listen"}},
		{"another server", []string{"--admin", addr(page)}, 1, []string{"what " + addr(page) + " answers is no status", "--admin-listen"}},
		{"sent elsewhere", []string{"--admin", addr(away)}, 1, []string{addr(away) + " answers 302 Found"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := larder(append([]string{"status"}, c.args...)...)
			if code != c.code || out != "" {
				t.Errorf("exit code %d, want %d, and %q", code, c.code, out)
			}
			for _, want := range c.want {
				if !strings.Contains(errs, want) {
					t.Errorf("said %q, want %q in it", errs, want)
				}
			}
		})
	}
}

// TestStatusOfAMirror asks a running mirror in every way.
func TestStatusOfAMirror(t *testing.T) {
	up, img, _ := image(t)
	p := startMirror(t, t.TempDir(), up.Host())
	p.pullWhole(t, up.Host(), registry.Image{Repo: "team/app", Tag: "v1", Blob: img.Blob, Config: img.Config, Layers: img.Layers})
	p.pullWhole(t, up.Host(), img)
	var doc status.Document
	// What is counted is a second old at most, and longer where that takes long. A
	// layer is on disk a moment after its client has it.
	pending := func() bool {
		return doc.Traffic == nil || status.Sum(doc.Traffic.Items).Requests < 6 || len(doc.Images.Items) == 0 || doc.Images.Items[0].Partial
	}
	for deadline := time.Now().Add(patience); pending(); {
		code, out, errs := larder("status", "--admin", p.admin, "--output", "json", "--find", "team/app")
		doc = status.Document{}
		if err := json.Unmarshal([]byte(out), &doc); code != 0 || errs != "" || err != nil || time.Now().After(deadline) {
			t.Fatalf("%d %s %s %v", code, out, errs, err)
		}
	}
	if doc.Schema != status.Schema || doc.Mode != "mirror" || !doc.Names || !doc.Ready || doc.Version == "" || doc.Started.IsZero() || doc.At.Before(doc.Started) {
		t.Errorf("%+v", doc)
	}
	if doc.Images.Total != 1 || doc.Images.Items[0].Name() != up.Host()+"/team/app" || doc.Images.Items[0].Size < 4<<20 || doc.Images.Items[0].Partial || !slices.Equal(doc.Images.Items[0].Platforms, []string{"linux/amd64"}) {
		t.Errorf("images: %+v", doc.Images)
	}
	// The blobs of the first pull came from upstream, those of the second not; what
	// was started ahead of the first client may have been there when it asked.
	sum := status.Sum(doc.Traffic.Items)
	if sum.Requests != 6 || sum.Hits < 2 || sum.Hits > 5 || sum.Saved < 4<<20 || sum.Passed < 4<<20 || sum.Fetched < 4<<20 || sum.Misses != 0 {
		t.Errorf("traffic: %+v", sum)
	}
	if c := doc.History.Counts; !slices.Equal(c["requests"], []int64{6}) || !slices.Equal(c["hits"], []int64{sum.Hits}) {
		t.Errorf("history: %+v", c)
	}
	if doc.Disk.Bytes < 4<<20 || doc.Disk.Limit != 1<<30 || doc.Disk.Blobs != 3 || doc.Disk.Total <= 0 || doc.Upstreams.Total != 1 || doc.Upstreams.Items[0].Breaker != "closed" || doc.Errors.Total != 0 {
		t.Errorf("%+v %+v %+v", doc.Disk, doc.Upstreams, doc.Errors)
	}
	if _, out, _ := larder("status", "--admin", p.admin, "--find", "nothing like it", "-o", "json"); !strings.Contains(out, `"images": {`) || strings.Contains(out, `"tag"`) {
		t.Errorf("found: %s", out)
	}
	code, out, _ := larder("status", "--admin", p.admin)
	for _, want := range []string{"larder mirror on ", ": ready, running for ", " % of 6 requests", "of 1.0 GiB allowed", "IMAGE ", up.Host() + "/team/app:v1", "linux/amd64", "UPSTREAM", "healthy"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%d, no %q in\n%s", code, want, out)
		}
	}

	// An upstream that is gone is told of, and what the log said of it.
	up.Stop()
	for range 4 {
		if code, _, err := p.get(t.Context(), "/v2/team/app/manifests/v2?ns="+up.Host()); err != nil || code == http.StatusOK {
			t.Fatal(code, err)
		}
	}
	deadline := time.Now().Add(patience)
	for {
		_, out, _ := larder("status", "--admin", p.admin)
		if strings.Contains(out, "left alone for") && strings.Contains(out, "503") && strings.Contains(out, "LAST ERRORS") && strings.Contains(out, "refused") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing is told of the upstream:\n%s", out)
		}
	}
}

// TestWatchedStatus shows it again and again, until it is interrupted.
func TestWatchedStatus(t *testing.T) {
	p := startMirror(t, t.TempDir(), "127.0.0.1:1")
	for _, format := range []string{"json", "table"} {
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "status", "--admin", p.admin, "--watch", "--every", "100ms", "--output", format)
		cmd.Env = append(os.Environ(), asLarder+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Stdout, cmd.Stderr = in, in
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in.Close()
		seen := 0
		for lines := bufio.NewScanner(out); seen < 3 && lines.Scan(); {
			var doc status.Document
			if format == "table" && strings.HasPrefix(lines.Text(), "larder mirror on ") || json.Unmarshal(lines.Bytes(), &doc) == nil && doc.Mode == "mirror" {
				seen++
			}
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		rest, _ := io.ReadAll(out)
		if err := cmd.Wait(); err != nil || seen != 3 {
			t.Errorf("%s: shown %d times, then %v: %s", format, seen, err, rest)
		}
		out.Close()
	}
}

// TestStatusOfTheRegistry tells of repositories and tags, and of their names only
// those who may know them.
func TestStatusOfTheRegistry(t *testing.T) {
	c := startRegistry(t, t.TempDir(), "central: {access: [{subjects: [anonymous], repositories: [open], actions: [pull]}]}\n", "--plain-http", "--admin-listen", "127.0.0.1:0")
	c.push(t, "open/app", "v1", "content")
	c.push(t, "team-secret/app", "v2", "other content")
	admin := strings.TrimPrefix(regexp.MustCompile(`"admin":"[^"]*"`).FindString(c.output()), `"admin":"`)
	admin = strings.TrimSuffix(admin, `"`)
	ask := func(host string) (doc status.Document, text string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin+"/status.json?sort=name", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := c.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || json.Unmarshal(body, &doc) != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return doc, string(body)
	}
	doc, _ := ask("")
	if doc.Mode != "central" || !doc.Names || doc.Repositories.Total != 2 || doc.Repositories.Items[0].Name != "open/app" || doc.Repositories.Items[0].Private || !doc.Repositories.Items[1].Private ||
		doc.Images.Total != 2 || doc.Images.Items[1].Tag != "v2" || doc.Images.Items[1].Pushed.IsZero() || !doc.Images.Items[1].Private || doc.Images.Items[1].Size < int64(len("other content")) ||
		doc.Disk.Blobs != 4 || doc.Disk.Total <= 0 || doc.History.Counts["received"][0] != int64(len("content")+len("other content")) {
		t.Errorf("%+v %+v %+v %+v", doc.Repositories, doc.Images, doc.Disk, doc.History)
	}
	public, text := ask("central.example")
	if public.Names || strings.Contains(text, "secret") || strings.Contains(text, "v2") || !strings.Contains(text, "open/app") || public.Images.Total != 2 {
		t.Errorf("a stranger is told %s", text)
	}
	code, out, errs := larder("status", "--admin", admin)
	for _, want := range []string{"larder central on ", "REPOSITORY", "team-secret/app", "open/app:v1", "PUSHED"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%d, no %q in\n%s%s", code, want, out, errs)
		}
	}
}

// TestATableIsSafeAndFits writes a document of hostile and long texts.
func TestATableIsSafeAndFits(t *testing.T) {
	bad := "\x1b[2Jred\x1b]0;title\x07 \u202eexe.gpj\u202c \u009b31m\r\n" + strings.Repeat("long/", 60)
	now := time.Now()
	d := &status.Document{
		Mode: bad, Host: bad, Version: bad, At: now, Started: now, Checks: []status.Check{{Name: bad, Problem: bad}},
		Traffic:   status.First([]status.Traffic{{Registry: bad}}, 5),
		Fills:     &status.List[status.Fill]{Total: 4, Items: []status.Fill{{Registry: bad, Repository: bad, Digest: bad, Size: 10, Bytes: 4}}},
		Upstreams: status.First([]status.Upstream{{Endpoint: bad, Reason: bad, ErrorAt: now}}, 5),
		Images:    &status.List[status.Image]{Total: 9, Items: []status.Image{{Registry: bad, Repository: bad, Tag: bad, Platforms: []string{bad}}, {Registry: "quay.io", Private: true}}},
		Reviews:   &status.Reviews{Counts: map[string]int64{bad: 1}, Revision: bad, Denied: []status.Verdict{{Object: bad, Namespace: bad, Decision: bad, Image: bad, At: now}}},
		Errors:    status.First([]status.Event{{Message: bad, Error: bad, Subject: bad, At: now, Count: 2}}, 5),
	}
	for _, width := range []int{60, 80, 200} {
		var b bytes.Buffer
		writeStatus(&b, d, width)
		for _, r := range b.String() {
			if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e) {
				t.Fatalf("%U is in\n%q", r, b.String())
			}
		}
		inTable := false
		for line := range strings.Lines(b.String()) {
			inTable = inTable && line != "\n" || strings.HasPrefix(line, "FETCHING") || strings.HasPrefix(line, "IMAGE")
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); inTable && n > max(width, 90) {
				t.Errorf("%d columns where there are %d: %q", n, width, line)
			}
		}
		for _, want := range []string{"NOT READY", "quay.io/(private)", "… and 3 more", "… and 7 more", "Names of private images are left out"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in\n%s", want, b.String())
			}
		}
	}
}

// TestTheLogIsRemembered takes warnings and errors from the log, and leaves the log
// as it is.
func TestTheLogIsRemembered(t *testing.T) {
	var plain, noted bytes.Buffer
	for _, out := range []*bytes.Buffer{&plain, &noted} {
		log, err := newLogger(out, "info", "json")
		if err != nil {
			t.Fatal(err)
		}
		log.Logger.SetFormatter(timeless{log.Logger.Formatter})
		var o *observer
		if out == &noted {
			o = newObserver(log, prometheus.NewRegistry(), "mirror", "registry", "webhook")
		}
		log.Info("not remembered")
		log.WithError(errors.New("no room")).WithField("digest", "sha256:1").Warn("blob is dropped")
		log.WithField("rule", "deny").Warn("image denied")
		log.WithFields(logrus.Fields{"registry": "docker.io", "repository": "library/nginx", "tag": "1", "method": "GET", "kind": "manifest", "status": 502, "client": "10.1.1.1:1", "user": "someone", "reason": "dns"}).WithError(errors.New("dns")).Warn("request")
		log.WithField("endpoint", "https://quay.io").Error("left alone")
		if o == nil {
			continue
		}
		l := o.events.List()
		for i := range l.Items {
			l.Items[i].At = time.Time{}
		}
		want := []status.Event{
			{Level: "error", Message: "left alone", Subject: "https://quay.io", Count: 1},
			{Level: "warning", Message: "GET manifest answered with 502", Error: "dns", Subject: "docker.io/library/nginx:1 dns", Count: 1},
			{Level: "warning", Message: "blob is dropped", Error: "no room", Subject: "sha256:1", Count: 1},
		}
		if !slices.Equal(l.Items, want) {
			t.Errorf("%+v\nwant %+v", l.Items, want)
		}
	}
	if plain.String() != noted.String() || plain.Len() == 0 {
		t.Errorf("the log was\n%s\nand is\n%s", &plain, &noted)
	}
}

// timeless writes lines as if no time passed.
type timeless struct{ logrus.Formatter }

func (f timeless) Format(e *logrus.Entry) ([]byte, error) {
	e.Time = time.Unix(0, 0)
	return f.Formatter.Format(e)
}
