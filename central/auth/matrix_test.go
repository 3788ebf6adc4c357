package auth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/central/auth"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/store"
)

// registry is the central registry as it is put together, over HTTP.
type registry struct {
	t      *testing.T
	base   string
	client *http.Client
	tokens map[string]string // by user and repositories
	idle   map[string]string // an upload of root's by repository, which nobody touches
}

// passwordHash is of "b", everybody's password, at bcrypt's least cost.
const passwordHash = "$2a$04$ez8UNGXpo3tJUrLbRCDHVut1qMTTopOLpe2xrJC/Y0e3/HoHP1crq"

// The repositories.
const (
	team  = "team-a/app"  // what the rules are about
	other = "team-b/app"  // what nobody but root may see
	none  = "team-b/none" // what is not there, and nobody may see either
	open  = "public/app"  // what everybody may pull
)

// users are who asks, with their rights in team-a.
func users() map[string][]oci.Action {
	pull, push, remove := oci.ActionPull, oci.ActionPush, oci.ActionDelete
	return map[string][]oci.Action{
		"owner": {pull, push, remove}, "writer": {pull, push}, "reader": {pull},
		"blind": {push}, "sweeper": {remove}, "guest": nil,
	}
}

func start(t *testing.T) *registry {
	t.Helper()
	l := logrus.New()
	l.SetOutput(io.Discard)
	log := logrus.NewEntry(l)
	dir := t.TempDir()
	settings := auth.Settings{
		Users: []auth.User{{Name: "root", PasswordHash: passwordHash}},
		Rules: []auth.Rule{
			{Subjects: []string{"user:root"}, Repositories: []string{"*"}, Actions: []oci.Action{oci.ActionPull, oci.ActionPush, oci.ActionDelete}},
			{Subjects: []string{"*"}, Repositories: []string{"public"}, Actions: []oci.Action{oci.ActionPull}},
		},
	}
	for name, actions := range users() {
		settings.Users = append(settings.Users, auth.User{Name: name, PasswordHash: passwordHash})
		if len(actions) > 0 {
			settings.Rules = append(settings.Rules, auth.Rule{Subjects: []string{"user:" + name}, Repositories: []string{"team-a"}, Actions: actions})
		}
	}
	key := filepath.Join(dir, "token.key")
	if err := auth.EnsureKey(key); err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(auth.Config{Settings: settings, KeyFile: key, TokenLifetime: time.Hour, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := store.OpenLedger(filepath.Join(dir, "index"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	depot, err := store.OpenDepot(store.DepotConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := central.New(t.Context(), central.Config{Ledger: ledger, Content: depot, Drafts: depot, Log: log, CollectEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	h, err := ociserver.NewOwn(ociserver.OwnConfig{
		Reader: c, Lister: c, Uploader: c, Writer: c, Referrals: c, Authorizer: a, Log: log,
		// Who is let in to what is pulled through reaches this.
		Foreign: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				t.Error("what a caller logged in with is passed on")
			}
			w.WriteHeader(http.StatusTeapot)
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(a.Handler(h))
	t.Cleanup(server.Close)
	return &registry{t, server.URL, server.Client(), map[string]string{}, map[string]string{}}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request with an Authorization header, or none if that is empty.
func (r *registry) do(authorization, method, path, body string, header ...string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.base+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	for pair := range slices.Chunk(header, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(content)}
}

func basic(user string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":b"))
}

// token gets a token for a user, or for nobody, that is good for all it may do
// in the repositories.
func (r *registry) token(user string, repositories ...string) string {
	r.t.Helper()
	key := user + " " + strings.Join(repositories, " ")
	if token, ok := r.tokens[key]; ok {
		return token
	}
	query := url.Values{}
	for _, name := range repositories {
		query.Add("scope", "repository:"+name+":pull,push,delete")
	}
	query.Add("scope", "registry:catalog:*")
	authorization := ""
	if user != "" {
		authorization = basic(user)
	}
	got := r.do(authorization, "GET", auth.TokenPath+"?"+query.Encode(), "")
	var parsed struct{ Token string }
	if err := json.Unmarshal([]byte(got.body), &parsed); err != nil || got.status != 200 {
		r.t.Fatalf("token for %s: %d %s", user, got.status, got.body)
	}
	r.tokens[key] = "Bearer " + parsed.Token
	return r.tokens[key]
}

// asRoot does what has to work.
func (r *registry) asRoot(method, path, body string, status int, header ...string) answer {
	r.t.Helper()
	got := r.do(basic("root"), method, path, body, header...)
	if got.status != status {
		r.t.Fatalf("%s %s: %d %s", method, path, got.status, got.body)
	}
	return got
}

// content is what one repository holds: all of it is nowhere else.
type content struct{ blob, config, image, signature string }

const imageType = "application/vnd.oci.image.manifest.v1+json"

func sum(s string) string { return digest.FromString(s).String() }

// secrets are the content of a repository.
func secrets(repository string) content {
	c := content{blob: "layer of " + repository, config: `{"of":"` + repository + `"}`}
	described := func(kind, content string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, kind, sum(content), len(content))
	}
	c.image = fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, imageType,
		described("application/vnd.oci.image.config.v1+json", c.config), described("application/vnd.oci.image.layer.v1.tar", c.blob))
	c.signature = fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"test/signature","config":%s,"layers":[],"subject":%s}`, imageType,
		described("application/vnd.oci.image.config.v1+json", c.config), described(imageType, c.image))
	return c
}

// fill puts a repository's content where it was.
func (r *registry) fill(repository string) {
	r.t.Helper()
	c := secrets(repository)
	for _, blob := range []string{c.blob, c.config} {
		r.asRoot("POST", "/v2/"+repository+"/blobs/uploads/?digest="+sum(blob), blob, 201, "Content-Type", "application/octet-stream")
	}
	r.asRoot("PUT", "/v2/"+repository+"/manifests/v1", c.image, 201, "Content-Type", imageType)
	r.asRoot("PUT", "/v2/"+repository+"/manifests/"+sum(c.signature), c.signature, 201, "Content-Type", imageType)
}

// upload begins one as root and gives its path in the repository.
func (r *registry) upload(repository string) string {
	r.t.Helper()
	return r.asRoot("POST", "/v2/"+repository+"/blobs/uploads/", "", 202).header.Get("Location")
}

// noUpload is the path of an upload that nobody began.
func noUpload(repository string) string {
	return "/v2/" + repository + "/blobs/uploads/" + strings.Repeat("A", 26)
}

// request is one endpoint of the API, in a repository.
type request struct {
	name   string
	needs  oci.Action
	method string
	// path is where. What is allowed gets an upload of its own.
	path func(r *registry, repository string, allowed bool) string
	body func(repository string) string
}

func fixed(format string, of func(content) string) func(*registry, string, bool) string {
	return func(_ *registry, repository string, _ bool) string {
		return fmt.Sprintf("/v2/%s/"+format, repository, of(secrets(repository)))
	}
}

func requests() []request {
	blob := func(c content) string { return sum(c.blob) }
	image := func(c content) string { return sum(c.image) }
	nothing := func(content) string { return "" }
	session := func(suffix string) func(*registry, string, bool) string {
		return func(r *registry, repository string, allowed bool) string {
			switch {
			case allowed:
				return r.upload(repository) + suffix
			case repository == none:
				return noUpload(none) + suffix
			case r.idle[repository] == "":
				r.idle[repository] = r.upload(repository)
			}
			return r.idle[repository] + suffix
		}
	}
	imageOf := func(repository string) string { return secrets(repository).image }
	return []request{
		{name: "end-2 GET blob", needs: oci.ActionPull, method: "GET", path: fixed("blobs/%s", blob)},
		{name: "end-2 HEAD blob", needs: oci.ActionPull, method: "HEAD", path: fixed("blobs/%s", blob)},
		{name: "end-3 GET manifest by tag", needs: oci.ActionPull, method: "GET", path: fixed("manifests/v1%s", nothing)},
		{name: "end-3 HEAD manifest by tag", needs: oci.ActionPull, method: "HEAD", path: fixed("manifests/v1%s", nothing)},
		{name: "end-3 GET manifest by digest", needs: oci.ActionPull, method: "GET", path: fixed("manifests/%s", image)},
		{name: "end-4a POST upload", needs: oci.ActionPush, method: "POST", path: fixed("blobs/uploads/%s", nothing)},
		{name: "end-4b POST blob", needs: oci.ActionPush, method: "POST", path: fixed("blobs/uploads/?digest=%s", func(content) string { return sum("new") }), body: func(string) string { return "new" }},
		{name: "end-5 PATCH upload", needs: oci.ActionPush, method: "PATCH", path: session(""), body: func(string) string { return "new" }},
		{name: "end-6 PUT upload", needs: oci.ActionPush, method: "PUT", path: session("?digest=" + sum("new")), body: func(string) string { return "new" }},
		{name: "end-7a PUT manifest by tag", needs: oci.ActionPush, method: "PUT", path: fixed("manifests/v1%s", nothing), body: imageOf},
		{name: "end-7b PUT manifest by digest", needs: oci.ActionPush, method: "PUT", path: fixed("manifests/%s", image), body: imageOf},
		{name: "end-8 GET tags", needs: oci.ActionPull, method: "GET", path: fixed("tags/list%s", nothing)},
		{name: "end-8 GET tags, a page", needs: oci.ActionPull, method: "GET", path: fixed("tags/list?n=1&last=a%s", nothing)},
		{name: "end-9 DELETE tag", needs: oci.ActionDelete, method: "DELETE", path: fixed("manifests/v1%s", nothing)},
		{name: "end-9 DELETE manifest", needs: oci.ActionDelete, method: "DELETE", path: fixed("manifests/%s", image)},
		{name: "end-10 DELETE blob", needs: oci.ActionDelete, method: "DELETE", path: fixed("blobs/%s", func(content) string { return sum("loose") })},
		{name: "end-11 POST mount", needs: oci.ActionPush, method: "POST", path: fixed("blobs/uploads/?from=public/app&mount=%s", func(content) string { return sum(secrets(open).blob) })},
		{name: "end-12 GET referrers", needs: oci.ActionPull, method: "GET", path: fixed("referrers/%s", image)},
		{name: "end-12 GET referrers, filtered", needs: oci.ActionPull, method: "GET", path: fixed("referrers/%s?artifactType=test/signature", image)},
		{name: "end-13 GET upload", needs: oci.ActionPush, method: "GET", path: session("")},
		{name: "end-14 DELETE upload", needs: oci.ActionPush, method: "DELETE", path: session("")},
	}
}

// TestTheMatrix crosses every subject with every endpoint in its own repository,
// in one it must not see, and in one that is not there, by password and by token.
// What is allowed works; what is not is refused, and alike whether or not it is
// there.
func TestTheMatrix(t *testing.T) {
	r := start(t)
	all := users()
	all[""] = nil // nobody
	all["impostor"] = nil
	for _, repository := range []string{team, other, open} {
		r.fill(repository)
	}
	for _, req := range requests() {
		for _, user := range slices.Sorted(maps.Keys(all)) {
			for _, way := range []string{"password", "token"} {
				authorization, unknown := "", user == "" || user == "impostor"
				switch {
				case way == "token" && user == "impostor":
					authorization = "Bearer " + strings.Repeat("x", 40) + ".y.z"
				case user == "impostor":
					authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte("owner:guess"))
				case way == "token":
					authorization = r.token(user, team, other, none, open)
				case user != "":
					authorization = basic(user)
				}
				if user == "impostor" && way == "password" && req.name != "end-2 GET blob" {
					continue // one guess is enough; more would be limited
				}
				name := fmt.Sprintf("%s by %s, %s", req.name, user, way)
				allowed := slices.Contains(all[user], req.needs)
				r.ask(name+", own", req, authorization, team, allowed, unknown)
				there := r.ask(name+", another's", req, authorization, other, false, unknown)
				absent := r.ask(name+", nothing there", req, authorization, none, false, unknown)
				if a, b := strip(there, other), strip(absent, none); a != b {
					t.Errorf("%s: it shows whether something is there:\n%s\n%s", name, a, b)
				}
				pulls := req.needs == oci.ActionPull && user != "impostor"
				r.ask(name+", public", req, authorization, open, pulls, unknown)
			}
		}
	}
}

// ask sends a request and checks that it is allowed, or refused in the way it
// should be.
func (r *registry) ask(name string, req request, authorization, repository string, allowed, unknown bool) answer {
	r.t.Helper()
	if req.needs == oci.ActionDelete && allowed {
		r.asRoot("POST", "/v2/"+repository+"/blobs/uploads/?digest="+sum("loose"), "loose", 201)
	}
	body := ""
	if req.body != nil {
		body = req.body(repository)
	}
	header := []string{}
	if req.method == "PUT" && strings.Contains(req.name, "manifest") {
		header = append(header, "Content-Type", imageType)
	}
	got := r.do(authorization, req.method, req.path(r, repository, allowed), body, header...)
	switch {
	case allowed && (got.status < 200 || got.status > 299):
		r.t.Errorf("%s: %d %s", name, got.status, got.body)
	case !allowed && unknown && (got.status != 401 || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer realm=")):
		r.t.Errorf("%s: %d %q %s, want a challenge", name, got.status, got.header.Get("WWW-Authenticate"), got.body)
	case !allowed && !unknown && got.status != 403:
		r.t.Errorf("%s: %d %s, want 403", name, got.status, got.body)
	}
	if !allowed {
		r.hides(name, got)
	}
	if req.needs == oci.ActionDelete && allowed {
		r.fill(repository)
	}
	return got
}

// hides checks that an answer holds nothing of what only root may see.
func (r *registry) hides(name string, got answer) {
	r.t.Helper()
	text := got.body + fmt.Sprint(got.header)
	c := secrets(other)
	for _, secret := range []string{c.blob, c.config, "test/signature", sum(c.blob)[7:], sum(c.config)[7:], sum(c.signature)[7:]} {
		if strings.Contains(text, secret) {
			r.t.Errorf("%s: the answer has %q in it: %s", name, secret, text)
		}
	}
}

// strip gives an answer without the repository's name, the time, and the digests
// that the request itself held.
func strip(a answer, repository string) string {
	header := a.header.Clone()
	header.Del("Date")
	text := fmt.Sprint(a.status, header, a.body)
	text = strings.ReplaceAll(text, repository, "<repository>")
	c := secrets(repository)
	for _, s := range []string{c.blob, c.image} {
		text = strings.ReplaceAll(text, sum(s), "<digest>")
	}
	// Content-Length follows the length of the name.
	return strings.ReplaceAll(text, fmt.Sprintf("Content-Length:[%d]", len(a.body)), "")
}

// TestNothingLeaksByDigest asks in a repository of one's own for what another
// holds: a digest is no key.
func TestNothingLeaksByDigest(t *testing.T) {
	r := start(t)
	for _, repository := range []string{team, other, open} {
		r.fill(repository)
	}
	c, missing := secrets(other), secrets(none)
	image := func(of content) string {
		return strings.ReplaceAll(secrets(team).image, sum(secrets(team).blob), sum(of.blob))
	}
	upload := strings.Replace(r.upload(other), other, team, 1)
	for _, by := range []string{basic("owner"), r.token("owner", team, other, open)} {
		for _, q := range []struct {
			name, method, there, absent, bodyThere, bodyAbsent string
			status                                             int
		}{
			{"GET blob", "GET", "blobs/" + sum(c.blob), "blobs/" + sum(missing.blob), "", "", 404},
			{"HEAD blob", "HEAD", "blobs/" + sum(c.blob), "blobs/" + sum(missing.blob), "", "", 404},
			{"GET manifest", "GET", "manifests/" + sum(c.image), "manifests/" + sum(missing.image), "", "", 404},
			{"GET referrers", "GET", "referrers/" + sum(c.image), "referrers/" + sum(missing.image), "", "", 200},
			{"DELETE manifest", "DELETE", "manifests/" + sum(c.image), "manifests/" + sum(missing.image), "", "", 404},
			{"DELETE blob", "DELETE", "blobs/" + sum(c.blob), "blobs/" + sum(missing.blob), "", "", 404},
			{"mount", "POST", "blobs/uploads/?from=" + other + "&mount=" + sum(c.blob), "blobs/uploads/?from=" + other + "&mount=" + sum(missing.blob), "", "", 202},
			{"mount of what is not there", "POST", "blobs/uploads/?from=" + other + "&mount=" + sum(c.blob), "blobs/uploads/?from=" + none + "&mount=" + sum(c.blob), "", "", 202},
			{"mount without from", "POST", "blobs/uploads/?mount=" + sum(c.blob), "blobs/uploads/?mount=" + sum(missing.blob), "", "", 202},
			{"an image of another's layers", "PUT", "manifests/stolen", "manifests/stolen", image(c), image(missing), 400},
			{"another's upload", "GET", strings.TrimPrefix(upload, "/v2/"+team+"/"), "blobs/uploads/" + strings.Repeat("A", 26), "", "", 404},
			{"finishing another's upload", "PUT", strings.TrimPrefix(upload, "/v2/"+team+"/") + "?digest=" + sum("x"), "blobs/uploads/" + strings.Repeat("A", 26) + "?digest=" + sum("x"), "x", "x", 404},
			{"ending another's upload", "DELETE", strings.TrimPrefix(upload, "/v2/"+team+"/"), "blobs/uploads/" + strings.Repeat("A", 26), "", "", 404},
		} {
			there := r.do(by, q.method, "/v2/"+team+"/"+q.there, q.bodyThere, "Content-Type", imageType)
			absent := r.do(by, q.method, "/v2/"+team+"/"+q.absent, q.bodyAbsent, "Content-Type", imageType)
			if there.status != q.status || absent.status != q.status {
				t.Errorf("%s: %d %s, and %d %s of what nobody has, want %d", q.name, there.status, there.body, absent.status, absent.body, q.status)
			}
			if a, b := anonymised(there, c), anonymised(absent, missing); a != b {
				t.Errorf("%s: it shows whether somebody has it:\n%s\n%s", q.name, a, b)
			}
		}
	}
	// The other way round: what may be pulled may be mounted.
	if got := r.do(basic("owner"), "POST", "/v2/"+team+"/blobs/uploads/?from="+open+"&mount="+sum(secrets(open).blob), ""); got.status != 201 {
		t.Errorf("mount of what is public: %d %s", got.status, got.body)
	}
	if got := r.asRoot("GET", r.uploadStill(upload, other), "", 204); got.header.Get("Location") == "" {
		t.Error("the other's upload was harmed")
	}
}

// uploadStill gives an upload's path in its own repository again.
func (r *registry) uploadStill(path, repository string) string {
	return strings.Replace(path, team, repository, 1)
}

// anonymised gives an answer without what was asked for and the ids of uploads.
func anonymised(a answer, c content) string {
	header := a.header.Clone()
	for _, name := range []string{"Date", "Location", "Docker-Upload-Uuid", "Content-Length"} {
		header.Del(name)
	}
	text := fmt.Sprint(a.status, header, a.body)
	for _, s := range []string{c.blob, c.image} {
		text = strings.ReplaceAll(text, sum(s), "<digest>")
	}
	return text
}

// TestTheCatalogShowsWhatMayBePulled looks at each page, too, and at where the
// next one starts.
func TestTheCatalogShowsWhatMayBePulled(t *testing.T) {
	r := start(t)
	for _, repository := range []string{"public/a", "public/b", "public/c", "secret/a", "secret/b", "team-a/x", "team-a/y", "team-b/x"} {
		r.fill(repository)
	}
	public := []string{"public/a", "public/b", "public/c"}
	for user, want := range map[string][]string{
		"root":    {"public/a", "public/b", "public/c", "secret/a", "secret/b", "team-a/x", "team-a/y", "team-b/x"},
		"owner":   append(slices.Clone(public), "team-a/x", "team-a/y"),
		"reader":  append(slices.Clone(public), "team-a/x", "team-a/y"),
		"blind":   public, // who pushes without pulling is shown nothing
		"sweeper": public,
		"guest":   public,
		"":        public,
	} {
		ways := []string{r.token(user, "public/a")}
		if user != "" {
			ways = append(ways, basic(user))
		}
		for _, by := range ways {
			for _, n := range []int{0, 1, 2, 100} {
				var got []string
				next := "/v2/_catalog"
				if n > 0 {
					next += fmt.Sprintf("?n=%d", n)
				}
				for pages := 0; next != "" && pages < 20; pages++ {
					page := r.do(by, "GET", next, "")
					var parsed struct{ Repositories []string }
					if err := json.Unmarshal([]byte(page.body), &parsed); err != nil || page.status != 200 {
						t.Fatalf("%s: %d %s", user, page.status, page.body)
					}
					if n > 0 && len(parsed.Repositories) > n {
						t.Errorf("%s: a page of %d has %v", user, n, parsed.Repositories)
					}
					got = append(got, parsed.Repositories...)
					link := page.header.Get("Link")
					if user != "root" && (strings.Contains(link, "secret") || strings.Contains(link, "team-b")) {
						t.Errorf("%s: a hidden name is where the next page starts: %s", user, link)
					}
					next, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
				}
				if !slices.Equal(got, want) {
					t.Errorf("%q sees, %d to a page, %v, want %v", user, n, got, want)
				}
			}
		}
	}
	if got := r.do("Basic "+base64.StdEncoding.EncodeToString([]byte("root:x")), "GET", "/v2/_catalog", ""); got.status != 401 {
		t.Errorf("with a wrong password: %d", got.status)
	}
}

// TestNothingIsPlantedUnderAnotherRegistrysName pushes to names that mean what is
// pulled through, in every spelling there is, as somebody who may do everything.
func TestNothingIsPlantedUnderAnotherRegistrysName(t *testing.T) {
	r := start(t)
	root := basic("root")
	evil := secrets("evil")
	for _, prefix := range []string{
		"/v2/f/docker.io/library/nginx/", "/v2/%66/docker.io/library/nginx/", "/v2/f/docker%2Eio/library/nginx/",
		"/v2/f/localhost/library/nginx/", "/v2/f/127.0.0.1:5000/library/nginx/", "/v2/f/127.0.0.1%3A5000/library/nginx/",
		"/v2/%66/localhost/library/nginx/", "/v2/f/DOCKER.IO/library/nginx/", "/v2/f%2Fdocker.io/library/nginx/",
	} {
		for _, q := range []struct{ method, path, body string }{
			{"POST", "blobs/uploads/", ""},
			{"POST", "blobs/uploads/?digest=" + sum(evil.blob), evil.blob},
			{"PUT", "manifests/latest", evil.image},
			{"PUT", "manifests/" + sum(evil.image), evil.image},
			{"DELETE", "manifests/latest", ""},
		} {
			got := r.do(root, q.method, prefix+q.path, q.body, "Content-Type", imageType)
			if got.status < 400 || got.status >= 500 || got.status == http.StatusTeapot {
				t.Errorf("%s %s: %d %s", q.method, prefix+q.path, got.status, got.body)
			}
		}
	}
	// The same with the registry's name beside the path.
	for _, q := range []struct{ method, path string }{
		{"POST", "/v2/library/nginx/blobs/uploads/?ns=docker.io"},
		{"PUT", "/v2/library/nginx/manifests/latest?ns=docker.io"},
		{"PUT", "/v2/library/nginx/manifests/latest?ns=docker.io&ns=x"},
		{"DELETE", "/v2/library/nginx/manifests/latest?ns=docker.io"},
	} {
		got := r.do(root, q.method, q.path, evil.image, "Content-Type", imageType)
		if got.status < 400 || got.status >= 500 || got.status == http.StatusTeapot {
			t.Errorf("%s %s: %d %s", q.method, q.path, got.status, got.body)
		}
	}
	if got := r.asRoot("GET", "/v2/_catalog", "", 200); strings.Contains(got.body, "nginx") {
		t.Errorf("there is now %s", got.body)
	}
	// What is the registry's own is not served as another's, and the other
	// way round: the latter goes to who pulls through.
	r.fill("library/nginx")
	if got := r.do(root, "GET", "/v2/library/nginx/manifests/v1?ns=docker.io", ""); got.status != http.StatusTeapot {
		t.Errorf("a pull of docker.io's is answered %d %s", got.status, got.body)
	}
	if got := r.do(root, "GET", "/v2/f/docker.io/library/nginx/manifests/v1", ""); got.status != http.StatusTeapot {
		t.Errorf("a pull of docker.io's by path is answered %d %s", got.status, got.body)
	}
	if got := r.do(root, "POST", "/v2/team-a/app/blobs/uploads/?from=f/docker.io/library/nginx&mount="+sum(evil.blob), ""); got.status == 201 {
		t.Error("a blob is mounted from what is pulled through")
	}
}

// TestWhoMayPullThrough asks for another registry's content.
func TestWhoMayPullThrough(t *testing.T) {
	r := start(t)
	for by, want := range map[string]int{"": 401, basic("owner"): 403, basic("root"): http.StatusTeapot, r.token("root", "f/docker.io/library/nginx"): http.StatusTeapot} {
		for _, path := range []string{"/v2/library/nginx/manifests/v1?ns=docker.io", "/v2/f/docker.io/library/nginx/manifests/v1"} {
			got := r.do(by, "GET", path, "")
			if got.status != want {
				t.Errorf("%.8q, %s: %d %s, want %d", by, path, got.status, got.body, want)
			}
			if want == 401 && !bytes.Contains([]byte(got.header.Get("WWW-Authenticate")), []byte(`scope="repository:f/docker.io/library/nginx:pull"`)) {
				t.Errorf("the challenge is %s", got.header.Get("WWW-Authenticate"))
			}
		}
	}
}
