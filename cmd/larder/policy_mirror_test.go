package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// TestTheMirrorServesWhatThePolicyAllows pulls an image that is allowed and one
// that is not.
func TestTheMirrorServesWhatThePolicyAllows(t *testing.T) {
	r, img, base := image(t)
	other := r.AddImage("team/other", "v1", registry.NewLayer(2, 1000))
	config := writeFile(t, t.TempDir(), "larder.yaml", fmt.Sprintf(`
registry_proxies: {max_size: 1GiB, min_free: '0', registries: [{host: %q, insecure: true}]}
image_validation: {default: Deny, allow: [%q]}
`, r.Host(), r.Host()+"/team/app"))
	p := startMirror(t, t.TempDir(), r.Host(), "--config", config)
	if status, body, err := p.get(t.Context(), base+"manifests/v1"); status != http.StatusOK || err != nil || string(body) != string(img.Bytes()) {
		t.Errorf("the allowed image: %d %v", status, err)
	}
	denied := "/v2/f/" + r.Host() + "/team/other/"
	for _, path := range []string{denied + "manifests/v1", denied + "manifests/" + other.Digest.String(), denied + "blobs/" + other.Layers[0].Digest.String(), denied + "tags/list"} {
		status, body, err := p.get(t.Context(), path)
		if status != http.StatusForbidden || err != nil || !strings.Contains(string(body), `"code":"DENIED"`) || !strings.Contains(string(body), "denied by default") {
			t.Errorf("%s: %d %s %v", path, status, body, err)
		}
	}
	if said := p.output(); !strings.Contains(said, `"allow":"`+r.Host()+`/team/app","default":"Deny","deny":"","mode":"enforce","namespaces":"","require_digest":false,"revision":"`) {
		t.Errorf("the policy in force is not told:\n%s", said)
	}
	for {
		line := p.waitFor(t, "request")
		if line["repository"] != "team/other" {
			continue
		}
		if line["outcome"] != "miss" || line["reason"] != "policy" || fmt.Sprint(line["status"]) != "403" {
			t.Errorf("%v", line)
		}
		break
	}
	_, metrics, err := p.get(t.Context(), "http://"+p.admin+"/metrics")
	if err != nil || !strings.Contains(string(metrics), `larder_policy_denied_total{mode="enforce",registry="`+r.Host()+`"} 4`) {
		t.Errorf("%v\n%s", err, metrics)
	}
}
