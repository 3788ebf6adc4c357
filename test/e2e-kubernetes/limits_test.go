package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/kube"
	"github.com/larder-registry/larder/test/process"
)

// manyContainers is a pod with that many containers, each with an image of its
// own that is on no list.
func manyContainers(t testing.TB, n int, annotation string) string {
	t.Helper()
	var containers []any
	for i := range n {
		containers = append(containers, map[string]string{"name": fmt.Sprintf("c-%d", i), "image": fmt.Sprintf("quay.io/a-rather-long-name-of-an-organisation/application-%d:1.2.3", i)})
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "many", "annotations": map[string]string{"a": annotation}},
		"spec": map[string]any{"containers": containers},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestLimits sends what is as large as API servers take: a pod of 500
// containers is denied in a page and warned of within the API server's limits,
// and an object of nearly 3 MiB gets its verdict.
func TestLimits(t *testing.T) {
	w := enforce(t, 1, rules)
	create := func(body string) (int, string) {
		t.Helper()
		status, answer, err := w.call(kube.Admin, http.MethodPost, "/api/v1/namespaces/default/pods?dryRun=All", body)
		if err != nil {
			t.Fatal(err)
		}
		return status, answer
	}
	t.Run("a denial", func(t *testing.T) {
		status, answer := create(manyContainers(t, 500, ""))
		if status != 403 || !strings.Contains(answer, "(500 images):") || !strings.Contains(answer, "more images") || len(answer) > 200<<10 {
			t.Errorf("status %d, %d bytes: %.500s", status, len(answer), answer)
		}
	})
	t.Run("a large object", func(t *testing.T) {
		padding := strings.Repeat("x", 200<<10) // annotations may have 256 KiB
		status, answer := create(manyContainers(t, 1, padding))
		if status != 403 || !strings.Contains(answer, "quay.io/a-rather-long-name") {
			t.Errorf("status %d: %.500s", status, answer)
		}
		var env []any
		for i := range 45 {
			env = append(env, map[string]string{"name": fmt.Sprintf("E%d", i), "value": strings.Repeat("v", 64<<10)})
		}
		body, err := json.Marshal(map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "large"},
			"spec": map[string]any{"containers": []any{map[string]any{"name": "c", "image": "quay.io/evil/app", "env": env}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := create(string(body)); status != 403 || !strings.Contains(answer, `image \"quay.io/evil/app\"`) {
			t.Errorf("%d bytes: status %d: %.500s", len(body), status, answer)
		}
	})
	t.Run("warnings", func(t *testing.T) {
		next := w.write(t, strings.Replace(rules, "default: Deny", "default: Deny\n  mode: warn", 1))
		if err := os.Rename(next, w.config); err != nil {
			t.Fatal(err)
		}
		r := w.replicas[0]
		process.Await(t, "the policy to be in force", func(context.Context) error {
			if line, ok := r.logged("image policy in force"); !ok || line["mode"] != "warn" {
				return fmt.Errorf("it is %v", line)
			}
			return nil
		})
		status, answer := create(manyContainers(t, 500, ""))
		_, answer, _ = strings.Cut(answer, "\nWarning: ")
		warnings := strings.Split(answer, "\nWarning: ")
		for _, text := range warnings {
			if !strings.HasPrefix(text, `299 - "image \"quay.io/a-rather-long-name`) && !strings.HasPrefix(text, `299 - "and `) {
				t.Errorf("the API server passed on %q", text)
			}
		}
		if last := warnings[len(warnings)-1]; status != 201 || len(warnings) < 10 || !strings.HasSuffix(last, ` more images"`) {
			t.Errorf("status %d, %d warnings, the last is %q", status, len(warnings), last)
		}
	})
}
