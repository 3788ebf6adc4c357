package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestCentralClients has each client log in, push, pull, copy, list and delete
// at a central registry, as far as it can, with TLS and tokens, and reads back
// what the registry holds.
func TestCentralClients(t *testing.T) {
	up, img := newUpstream(t)
	c := startCentral(t, "")
	from := up.Host() + "/" + repo + ":" + tag
	type row struct {
		name string
		test func(t *testing.T, k kit, from string, img image)
	}
	rows := []row{
		{"skopeo", skopeoAtCentral}, {"podman", podmanAtCentral}, {"crane", craneAtCentral},
		{"oras", orasAtCentral}, {"regctl", regctlAtCentral},
	}
	if *fullFlag { // more to install, and to build
		rows = append(rows, row{"buildah", buildahAtCentral}, row{"helm", helmAtCentral}, row{"docker", dockerAtCentral})
	}
	for _, client := range rows {
		t.Run(client.name, func(t *testing.T) {
			t.Parallel()
			client.test(t, newKit(t, c), from, img)
		})
	}
}

// at is a repository of this client's own in the registry.
func (k kit) at(repository string) string { return k.c.addr + "/" + repository }

func skopeoAtCentral(t *testing.T, k kit, from string, img image) {
	skopeo := "/usr/bin/skopeo"
	k.refused(skopeo, "login", "-u", alice, "-p", "guess", k.c.addr)
	k.refused(skopeo, "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "docker://"+from, "docker://"+k.at("team-a/skopeo:v1"))
	k.run(skopeo, "login", "-u", alice, "-p", alicePassword, k.c.addr)
	k.run(skopeo, "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "docker://"+from, "docker://"+k.at("team-a/skopeo:v1"))
	if dgst, _ := k.c.holds(t, "team-a/skopeo", "v1"); dgst != img.index {
		t.Errorf("it pushed %s, want %s", dgst, img.index)
	}
	// To another repository: the blobs are mounted, not sent.
	k.run(skopeo, "copy", "--all", "docker://"+k.at("team-a/skopeo:v1"), "docker://"+k.at("team-a/skopeo-copy:v2"))
	k.c.holds(t, "team-a/skopeo-copy", "v2")
	if got := k.run(skopeo, "list-tags", "docker://"+k.at("team-a/skopeo-copy")); !strings.Contains(got, `"v2"`) {
		t.Errorf("its tags are %s", got)
	}
	k.run(skopeo, "copy", "docker://"+k.at("team-a/skopeo-copy:v2"), "dir:"+k.dir+"/pulled")
	checkFiles(t, k.dir+"/pulled", img.blobs())
	k.run(skopeo, "delete", "docker://"+k.at("team-a/skopeo-copy:v2"))
	k.c.gone(t, "team-a/skopeo-copy", "v2")
	k.c.holds(t, "team-a/skopeo", "v1")
	// Who may only pull.
	k.run(skopeo, "login", "-u", bob, "-p", bobPassword, k.c.addr)
	k.run(skopeo, "inspect", "docker://"+k.at("team-a/skopeo:v1"))
	k.refused(skopeo, "copy", "docker://"+k.at("team-a/skopeo:v1"), "docker://"+k.at("team-a/skopeo:v3"))
	k.refused(skopeo, "delete", "docker://"+k.at("team-a/skopeo:v1"))
	k.c.holds(t, "team-a/skopeo", "v1")
}

func podmanAtCentral(t *testing.T, k kit, from string, img image) {
	podman := "/usr/bin/podman"
	policy := []string{"--signature-policy", k.dir + "/.config/containers/policy.json"}
	with := func(args ...string) []string { return append(slices.Clone(args[:1]), append(policy, args[1:]...)...) }
	k.run(podman, with("pull", "--tls-verify=false", from)...)
	k.refused(podman, with("push", from, k.at("team-a/podman:v1"))...)
	k.run(podman, "login", "-u", alice, "-p", alicePassword, k.c.addr)
	k.run(podman, with("push", from, k.at("team-a/podman:v1"))...)
	_, m := k.c.holds(t, "team-a/podman", "v1")
	if m.Config == nil || m.Config.Digest != img.config {
		t.Errorf("it pushed %+v, want config %s", m, img.config)
	}
	k.run(podman, "rmi", "--all", "--force")
	k.run(podman, with("pull", k.at("team-a/podman:v1"))...)
	if got := k.run(podman, "image", "inspect", "--format", "sha256:{{.Id}}", k.at("team-a/podman:v1")); got != img.config {
		t.Errorf("it pulled %s, want %s", got, img.config)
	}
	k.run(podman, "logout", k.c.addr)
	k.refused(podman, with("pull", k.at("team-a/podman:v1"))...)
}

func buildahAtCentral(t *testing.T, k kit, _ string, _ image) {
	buildah := "/usr/bin/buildah"
	policy := k.dir + "/.config/containers/policy.json"
	file := write(t, k.dir, "context/file", "made by buildah\n")
	k.run(buildah, "login", "-u", alice, "-p", alicePassword, k.c.addr)
	container := k.run(buildah, "from", "--signature-policy", policy, "scratch")
	k.run(buildah, "copy", container, file, "/file")
	k.run(buildah, "commit", "--signature-policy", policy, container, "built")
	k.run(buildah, "push", "--signature-policy", policy, "built", "docker://"+k.at("team-a/buildah:v1"))
	_, m := k.c.holds(t, "team-a/buildah", "v1")
	k.run(buildah, "rm", container)
	k.run(buildah, "rmi", "--all", "--force")
	k.run(buildah, "pull", "--signature-policy", policy, k.at("team-a/buildah:v1"))
	if got := k.run(buildah, "images", "--no-trunc", "--quiet"); got != m.Config.Digest {
		t.Errorf("it pulled %s, want %s", got, m.Config.Digest)
	}
}

func craneAtCentral(t *testing.T, k kit, from string, img image) {
	crane := bin(t, "crane")
	k.refused(crane, "copy", "--insecure", from, k.at("team-a/crane:v1"))
	k.run(crane, "auth", "login", k.c.addr, "-u", alice, "-p", alicePassword)
	k.run(crane, "copy", from, k.at("team-a/crane:v1"))
	if dgst, _ := k.c.holds(t, "team-a/crane", "v1"); dgst != img.index {
		t.Errorf("it pushed %s, want %s", dgst, img.index)
	}
	if got := k.run(crane, "digest", k.at("team-a/crane:v1")); got != img.index {
		t.Errorf("it reads the digest %s, want %s", got, img.index)
	}
	k.run(crane, "tag", k.at("team-a/crane:v1"), "v2")
	if got := k.run(crane, "ls", k.at("team-a/crane")); got != "v1\nv2" {
		t.Errorf("its tags are %q", got)
	}
	if got := strings.Fields(k.run(crane, "catalog", k.c.addr)); !slices.Contains(got, "team-a/crane") {
		t.Errorf("its catalog is %q", got)
	}
	k.run(crane, "pull", "--format", "oci", k.at("team-a/crane:v1"), k.dir+"/pulled")
	checkFiles(t, k.dir+"/pulled/blobs/sha256", img.all())
	k.run(crane, "push", "--index", k.dir+"/pulled", k.at("team-a/crane-pushed:v1"))
	k.c.holds(t, "team-a/crane-pushed", "v1")
	k.run(crane, "append", "--oci-empty-base", "-f", layerFile(t, k.dir), "-t", k.at("team-a/crane:appended"))
	k.c.holds(t, "team-a/crane", "appended")
	k.run(crane, "delete", k.at("team-a/crane:v2"))
	k.c.gone(t, "team-a/crane", "v2")
	k.run(crane, "validate", "--remote", k.at("team-a/crane:appended"))
}

// layerFile writes a small tar archive.
func layerFile(t *testing.T, dir string) string {
	t.Helper()
	write(t, dir, "layer/hello", "hello\n")
	out, err := run(t.Context(), environ(t, dir), "/bin/tar", "-cf", dir+"/layer.tar", "-C", dir+"/layer", "hello")
	if err != nil {
		t.Fatal(err, out)
	}
	return dir + "/layer.tar"
}

func orasAtCentral(t *testing.T, k kit, from string, img image) {
	oras := bin(t, "oras")
	write(t, k.dir, "files/notes.txt", "notes\n")
	write(t, k.dir, "files/sbom.json", `{"sbom": true}`)
	files := k.dir + "/files/"
	k.refused(oras, "push", "--disable-path-validation", k.at("team-a/oras:v1"), files+"notes.txt:text/plain")
	k.run(oras, "login", "-u", alice, "-p", alicePassword, k.c.addr)
	k.run(oras, "push", "--disable-path-validation", k.at("team-a/oras:v1"), files+"notes.txt:text/plain", "--artifact-type", "test/notes")
	subject, m := k.c.holds(t, "team-a/oras", "v1")
	if m.ArtifactType != "test/notes" {
		t.Errorf("it pushed %+v", m)
	}
	k.run(oras, "attach", "--disable-path-validation", "--artifact-type", "test/sbom", k.at("team-a/oras:v1"), files+"sbom.json:application/json")
	k.run(oras, "attach", "--disable-path-validation", "--artifact-type", "test/signature", k.at("team-a/oras:v1"), files+"notes.txt:text/plain")
	var found struct {
		Referrers []described `json:"referrers"`
	}
	if err := json.Unmarshal([]byte(k.run(oras, "discover", "--format", "json", "--artifact-type", "test/sbom", k.at("team-a/oras:v1"))), &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Referrers) != 1 || found.Referrers[0].ArtifactType != "test/sbom" {
		t.Errorf("it discovers %+v", found)
	}
	// With all that refers to it, to another repository.
	k.run(oras, "cp", "--recursive", k.at("team-a/oras:v1"), k.at("team-a/oras-copy:v1"))
	_, index := k.c.must(t, 200, "GET", "/v2/team-a/oras-copy/referrers/"+subject, nil)
	var referrers manifest
	if err := json.Unmarshal(index, &referrers); err != nil || len(referrers.Manifests) != 2 {
		t.Errorf("the copy is referred to by %s, %v", index, err)
	}
	k.run(oras, "pull", "--allow-path-traversal", "--output", k.dir+"/pulled", k.at("team-a/oras-copy:v1"))
	k.run(oras, "cp", "--recursive", "--from-plain-http", from, k.at("team-a/oras-image:v1"))
	if dgst, _ := k.c.holds(t, "team-a/oras-image", "v1"); dgst != img.index {
		t.Errorf("it copied %s, want %s", dgst, img.index)
	}
	k.run(oras, "tag", k.at("team-a/oras:v1"), "v2", "v3")
	if got := k.run(oras, "repo", "tags", k.at("team-a/oras")); got != "v1\nv2\nv3" {
		t.Errorf("its tags are %q", got)
	}
	if got := strings.Fields(k.run(oras, "repo", "ls", k.c.addr)); !slices.Contains(got, "team-a/oras") {
		t.Errorf("it lists %q", got)
	}
	k.run(oras, "manifest", "delete", "--force", k.at("team-a/oras-copy:v1"))
	k.c.gone(t, "team-a/oras-copy", "v1")
	blob := k.c.pushBlob(t, "team-a/oras", []byte("a loose blob"))
	k.run(oras, "blob", "delete", "--force", k.at("team-a/oras@"+blob))
	if status, _, _ := k.c.do(t, "GET", "/v2/team-a/oras/blobs/"+blob, nil); status != 404 {
		t.Errorf("the blob is still there: %d", status)
	}
}

func regctlAtCentral(t *testing.T, k kit, from string, img image) {
	regctl := bin(t, "regctl")
	upstream, _, _ := strings.Cut(from, "/")
	k.run(regctl, "registry", "set", "--tls", "disabled", upstream)
	k.refused(regctl, "image", "copy", from, k.at("team-a/regctl:v1"))
	k.run(regctl, "registry", "login", "-u", alice, "-p", alicePassword, k.c.addr)
	k.run(regctl, "image", "copy", from, k.at("team-a/regctl:v1"))
	if dgst, _ := k.c.holds(t, "team-a/regctl", "v1"); dgst != img.index {
		t.Errorf("it pushed %s, want %s", dgst, img.index)
	}
	k.run(regctl, "artifact", "put", "--artifact-type", "test/sbom", "--subject", k.at("team-a/regctl:v1"), "--file", write(t, k.dir, "sbom.json", "{}"))
	if got := k.run(regctl, "artifact", "list", k.at("team-a/regctl:v1"), "--format", "{{len .Descriptors}}"); got != "1" {
		t.Errorf("it finds %s referrers", got)
	}
	k.run(regctl, "image", "copy", "--referrers", k.at("team-a/regctl:v1"), k.at("team-a/regctl-copy:v1"))
	if got := k.run(regctl, "artifact", "list", k.at("team-a/regctl-copy:v1"), "--format", "{{len .Descriptors}}"); got != "1" {
		t.Errorf("the copy has %s referrers", got)
	}
	k.run(regctl, "image", "copy", k.at("team-a/regctl:v1"), k.at("team-a/regctl:v2"))
	k.run(regctl, "tag", "delete", k.at("team-a/regctl:v2"))
	if got := k.run(regctl, "tag", "ls", k.at("team-a/regctl")); slices.Contains(strings.Fields(got), "v2") {
		t.Errorf("its tags are %q", got)
	}
	if got := strings.Fields(k.run(regctl, "repo", "ls", k.c.addr)); !slices.Contains(got, "team-a/regctl") {
		t.Errorf("it lists %q", got)
	}
	k.run(regctl, "image", "export", k.at("team-a/regctl:v1"), k.dir+"/image.tar")
	k.run(regctl, "image", "import", k.at("team-a/regctl-import:v1"), k.dir+"/image.tar")
	if dgst, _ := k.c.holds(t, "team-a/regctl-import", "v1"); dgst != img.index {
		t.Errorf("it imported %s, want %s", dgst, img.index)
	}
	k.run(regctl, "manifest", "delete", "--force-tag-dereference", k.at("team-a/regctl:v1"))
	k.c.gone(t, "team-a/regctl", "v1")
}

func helmAtCentral(t *testing.T, k kit, _ string, _ image) {
	helm := bin(t, "helm")
	write(t, k.dir, "chart/Chart.yaml", "apiVersion: v2\nname: thing\nversion: 0.1.0\n")
	write(t, k.dir, "chart/templates/cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: thing}\n")
	k.run(helm, "package", k.dir+"/chart", "--destination", k.dir)
	k.refused(helm, "push", k.dir+"/thing-0.1.0.tgz", "oci://"+k.at("charts"))
	k.run(helm, "registry", "login", k.c.addr, "-u", alice, "-p", alicePassword)
	k.run(helm, "push", k.dir+"/thing-0.1.0.tgz", "oci://"+k.at("charts"))
	k.c.holds(t, "charts/thing", "0.1.0")
	k.run(helm, "pull", "oci://"+k.at("charts/thing"), "--version", "0.1.0", "--destination", scratch(t))
	if got := k.run(helm, "show", "chart", "oci://"+k.at("charts/thing")); !strings.Contains(got, "name: thing") {
		t.Errorf("it shows %q", got)
	}
	k.run(helm, "registry", "logout", k.c.addr)
	k.refused(helm, "pull", "oci://"+k.at("charts/thing"), "--version", "0.1.0", "--destination", scratch(t))
}
