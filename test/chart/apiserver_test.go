package chart

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/test/kube"
)

// apiserver is a real API server.
type apiserver struct {
	*kube.Server
	paths map[string]resource // by apiVersion and kind
}

// resource is how objects of a kind are reached.
type resource struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	Namespaced bool   `json:"namespaced"`
}

// startAPIServer starts etcd and the API server, and ends them with the test.
func startAPIServer(t *testing.T) *apiserver {
	t.Helper()
	bin, err := filepath.Abs(*binFlag)
	if err != nil {
		t.Fatal(err)
	}
	return &apiserver{
		// No controller makes the accounts that pods would need.
		Server: kube.Start(t, kube.Options{Bin: bin, Dir: t.TempDir(), Args: []string{"--disable-admission-plugins", "ServiceAccount"}}),
		paths:  map[string]resource{},
	}
}

// path is where an object belongs; an error when its kind is not served.
func (a *apiserver) path(ctx context.Context, o object) (string, error) {
	version := o.text("apiVersion")
	base := "/apis/" + version
	if version == "v1" {
		base = "/api/v1"
	}
	at, ok := a.paths[version+" "+o.kind()]
	if !ok {
		var list struct {
			Resources []resource `json:"resources"`
		}
		if err := a.Get(ctx, base, &list); err != nil {
			return "", err
		}
		for _, r := range list.Resources {
			if r.Kind == o.kind() && filepath.Base(r.Name) == r.Name { // no subresource
				at, ok = r, true
			}
		}
		if !ok {
			return "", fmt.Errorf("%s has no kind %s", version, o.kind())
		}
		a.paths[version+" "+o.kind()] = at
	}
	if at.Namespaced != (o.text("metadata", "namespace") != "") {
		return "", fmt.Errorf("%s: its kind is namespaced: %v", o.id(), at.Namespaced)
	}
	if at.Namespaced {
		base += "/namespaces/" + o.text("metadata", "namespace")
	}
	return base + "/" + at.Name + "/" + o.name(), nil
}

// apply is a server-side apply, as `kubectl apply --server-side` does it: fields
// that are unknown or there twice are errors. A dry run changes nothing, but is
// looked at as if it did.
func (a *apiserver) apply(ctx context.Context, o object, dry bool) (warnings []string, err error) {
	path, err := a.path(ctx, o)
	if err != nil {
		return nil, err
	}
	path += "?fieldManager=larder&fieldValidation=Strict&force=true"
	if dry {
		path += "&dryRun=All"
	}
	body, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.id(), err)
	}
	answer, err := a.Call(ctx, kube.Admin, http.MethodPatch, path, "application/apply-patch+yaml", string(body))
	if err == nil && answer.Status/100 != 2 {
		err = fmt.Errorf("status %d: %s", answer.Status, answer.Body)
	}
	return answer.Warnings, err
}

func marshal(t *testing.T, o object) string {
	t.Helper()
	body, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
