package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const policyFile = `
image_validation:
  default: Deny
  allow: [docker.io/library/, ghcr.io/org]
  deny: [docker.io/library/secret, {image: ghcr.io/org/old, mode: warn}]
  namespaces: {team-a: {allow: [quay.io/a]}}
`

func TestPolicyTest(t *testing.T) {
	dir := t.TempDir()
	config := writeFile(t, dir, "larder.yaml", policyFile)
	none := writeFile(t, dir, "none.yaml", "registry_proxies: {}\n")
	bad := writeFile(t, dir, "bad.yaml", "image_validation: {allow: [ubuntu]}\n")
	manifest := writeFile(t, dir, "manifest.yaml", `
kind: Deployment
metadata: {name: web, namespace: team-a}
spec: {template: {spec: {initContainers: [{image: quay.io/a/init}], containers: [{image: nginx}]}}}
---
kind: Service
metadata: {name: web}
---
kind: Pod
metadata: {name: p}
spec: {containers: [{image: quay.io/a/x}], volumes: [{image: {reference: ghcr.io/org/data:1}}]}
`)
	text := writeFile(t, dir, "text.yaml", "just text")
	for _, c := range []struct {
		name     string
		args     []string
		code     int
		out, err string
	}{
		{"allowed", []string{"nginx"}, 0, "allow    nginx  docker.io/library/nginx:latest  allow docker.io/library/*  -\n", ""},
		{"denied", []string{"nginx", "quay.io.evil.com/x"}, 1, "deny     quay.io.evil.com/x  quay.io.evil.com/x:latest       default Deny               -      denied by default: no entry allows it\n", "larder: 1 of 2 images denied\n"},
		{"warned of", []string{"ghcr.io/org/old"}, 0, "warn     ghcr.io/org/old  ghcr.io/org/old:latest  deny ghcr.io/org/old  -      denied by the entry \"ghcr.io/org/old\"\n", ""},
		{"no image", []string{"a//b"}, 1, "deny     a//b   -           invalid  -      not a valid image reference: invalid reference format\n", "larder: 1 of 1 images denied\n"},
		{"control characters", []string{"a\x1b[2K\nb"}, 1, `deny     "a\x1b[2K\nb"  -           invalid`, "larder: 1 of 1 images denied\n"},
		{"in a namespace", []string{"--namespace", "team-a", "quay.io/a/x"}, 0, "allow quay.io/a in namespace team-a", ""},
		{"a manifest", []string{"-f", manifest}, 1, "" +
			"VERDICT  IMAGE               DECIDED AS                      RULE                                 WHERE                                                             REASON\n" +
			"allow    quay.io/a/init      quay.io/a/init:latest           allow quay.io/a in namespace team-a  team-a/Deployment/web spec.template.spec.initContainers[0].image\n" +
			"allow    nginx               docker.io/library/nginx:latest  allow docker.io/library/*            team-a/Deployment/web spec.template.spec.containers[0].image\n" +
			"deny     quay.io/a/x         quay.io/a/x:latest              default Deny                         default/Pod/p spec.containers[0].image                            denied by default: no entry allows it\n" +
			"allow    ghcr.io/org/data:1  ghcr.io/org/data:1              allow ghcr.io/org                    default/Pod/p spec.volumes[0].image.reference\n", "larder: 1 of 4 images denied\n"},
		{"no policy named", []string{"nginx", "--config", ""}, 2, "", "larder: --config is needed"},
		{"no policy there", []string{"nginx", "--config", none}, 2, "", "none.yaml has no image_validation"},
		{"a policy that is none", []string{"nginx", "--config", bad}, 2, "", `bad.yaml:1:28: image_validation.allow[0]: "ubuntu" names no registry; as an image it is on Docker Hub; did you mean "docker.io/library/ubuntu"?`},
		{"no such manifest", []string{"-f", dir + "/missing"}, 2, "", "no such file"},
		{"a manifest that is none", []string{"-f", text}, 2, "", "text.yaml: read document 1: "},
		{"a manifest of nothing", []string{"-f", os.DevNull}, 2, "", "/dev/null: no object in it"},
		{"an unknown format", []string{"nginx", "--output", "xml"}, 2, "", `--output "xml": write text or json`},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := larder(append([]string{"policy", "test", "--config", config}, c.args...)...)
			if code != c.code || !strings.Contains(out, c.out) || c.out == "" && out != "" {
				t.Errorf("exit code %d, want %d; output\n%s\nwant\n%s", code, c.code, out, c.out)
			}
			if !strings.Contains(errs, c.err) || c.err == "" && errs != "" {
				t.Errorf("error output %q, want %q", errs, c.err)
			}
		})
	}
}

// TestPolicyTestReadsStandardInput pipes in what kubectl prints.
func TestPolicyTestReadsStandardInput(t *testing.T) {
	config := writeFile(t, t.TempDir(), "larder.yaml", policyFile)
	for _, more := range [][]string{nil, {"-f", "-"}} {
		cmd := exec.Command(os.Args[0], append([]string{"policy", "test", "--config", config, "--output", "json"}, more...)...)
		cmd.Env = append(os.Environ(), asLarder+"=1")
		cmd.Stdin = strings.NewReader(`{"apiVersion":"v1","kind":"List","items":[
			{"kind":"Pod","metadata":{"name":"p","namespace":"team-a"},"spec":{"containers":[{"image":"secret"}],"ephemeralContainers":[{"image":"ghcr.io/organisation/x"}]}}]}`)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, _ := cmd.Output()
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "2 of 2 images denied") {
			t.Errorf("%v: %s", cmd.ProcessState, errs.String())
		}
		var got []tried
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		want := []tried{
			{"deny", "secret", "docker.io/library/secret:latest", "team-a", "deny docker.io/library/secret", `denied by the entry "docker.io/library/secret"`, "", "team-a/Pod/p", "spec.containers[0].image"},
			{"deny", "ghcr.io/organisation/x", "ghcr.io/organisation/x:latest", "team-a", "default Deny", `denied by default: no entry allows it; the nearest that is allowed is "ghcr.io/org"`, "ghcr.io/org", "team-a/Pod/p", "spec.ephemeralContainers[0].image"},
		}
		if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("got %+v", got)
		}
	}
}

func TestPolicyRender(t *testing.T) {
	config := writeFile(t, t.TempDir(), "larder.yaml", policyFile)
	code, out, errs := larder("policy", "render", "--config", config, "--format=vap", "--exempt", "kube-system,team-a")
	if code != 0 || errs != "warning: namespace team-a is not exempt, since the policy has rules for it\n" {
		t.Errorf("exit code %d, %s", code, errs)
	}
	for _, want := range []string{
		"  name: larder-images\n", "  name: larder-images-warn\n", "  name: larder-images-workloads-warn\n",
		"validationActions: [Deny]", "validationActions: [Warn]", "          values:\n            - \"kube-system\"\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output has no %q", want)
		}
	}
	if strings.Contains(out, "-audit\n") || strings.Contains(out, `- "team-a"`) {
		t.Error("the output has a policy for what cannot be, or exempts what has rules")
	}
	for _, args := range [][]string{{"--format", "rego"}, {"--workloads", "maybe"}} {
		if code, _, errs := larder(append([]string{"policy", "render", "--config", config}, args...)...); code != 2 || !strings.Contains(errs, args[0]+" \""+args[1]+"\": write ") {
			t.Errorf("%v: exit code %d, %s", args, code, errs)
		}
	}
	if code, _, errs := larder("policy", "render", "--config", config, "--name", "Not A Name"); code != 1 || !strings.Contains(errs, `"Not A Name" is not a name for an object`) {
		t.Errorf("exit code %d, %s", code, errs)
	}
}
