package workload_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/policy/workload"
)

// podSpec names an image in every place a pod has for one.
const podSpec = `{initContainers: [{name: i, image: init:1}], containers: [{name: a, image: a:1}, {name: b, image: "b:2"}],
  ephemeralContainers: [{name: d, image: debug}], volumes: [{name: e, emptyDir: {}}, {name: v, image: {reference: vol:1}}]}`

func paths(prefix string) []string {
	return []string{
		prefix + ".initContainers[0].image=init:1",
		prefix + ".containers[0].image=a:1",
		prefix + ".containers[1].image=b:2",
		prefix + ".ephemeralContainers[0].image=debug",
		prefix + ".volumes[1].image.reference=vol:1",
	}
}

func shown(images []workload.Image) []string {
	var out []string
	for _, i := range images {
		out = append(out, i.Path+"="+i.Ref)
	}
	return out
}

func TestEveryImageOfEveryKind(t *testing.T) {
	for _, c := range []struct{ kind, form, prefix string }{
		{"Pod", "spec: %s", "spec"},
		{"Deployment", "spec: {template: {spec: %s}}", "spec.template.spec"},
		{"StatefulSet", "spec: {template: {spec: %s}}", "spec.template.spec"},
		{"DaemonSet", "spec: {template: {spec: %s}}", "spec.template.spec"},
		{"ReplicaSet", "spec: {template: {spec: %s}}", "spec.template.spec"},
		{"ReplicationController", "spec: {template: {spec: %s}}", "spec.template.spec"},
		{"Job", "spec: {template: {spec: %s}}", "spec.template.spec"},
		{"CronJob", "spec: {jobTemplate: {spec: {template: {spec: %s}}}}", "spec.jobTemplate.spec.template.spec"},
		{"PodTemplate", "template: {spec: %s}", "template.spec"},
		{"Rollout", "spec: {template: {spec: %s}}", "spec.template.spec"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			manifest := fmt.Sprintf("kind: %s\nmetadata: {name: x, namespace: y}\n"+c.form, c.kind, podSpec)
			objects, err := workload.Read(strings.NewReader(manifest))
			if err != nil || len(objects) != 1 {
				t.Fatal(objects, err)
			}
			if got := shown(objects[0].Images); !slices.Equal(got, paths(c.prefix)) {
				t.Errorf("got %q", got)
			}
			if objects[0].String() != "y/"+c.kind+"/x" {
				t.Error(objects[0])
			}
		})
	}
}

func TestParse(t *testing.T) {
	o, err := workload.Parse([]byte(`{"kind":"ReplicaSet","metadata":{"name":"x","namespace":"n","deletionTimestamp":"2026-01-01T00:00:00Z",
		"ownerReferences":[{"kind":"Other"},{"kind":"Deployment","name":"d","controller":true}]},
		"spec":{"template":{"spec":{"containers":[{"image":""},{}]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"spec.template.spec.containers[0].image=", "spec.template.spec.containers[1].image="}
	if got := shown(o.Images); !slices.Equal(got, want) || o.Owner != "Deployment/d" || !o.Deleting || o.Namespace != "n" {
		t.Errorf("%+v", o)
	}
	for _, bad := range []string{"", "{", `[]`, `{"spec":{"containers":[{"image":1}]}}`, `{"spec":{"containers":"x"}}`} {
		if o, err := workload.Parse([]byte(bad)); err == nil {
			t.Errorf("%s was read as %+v", bad, o)
		}
	}
	if o, err := workload.Parse([]byte(`null`)); err != nil || len(o.Images) != 0 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		in, want, err string
	}{
		"nothing":               {"", "", ""},
		"comments":              {"# a\n---\n# b\n---\n", "", ""},
		"documents":             {"---\n# x\nkind: Pod\nspec: {containers: [{image: a}]}\n---\nkind: Service\nspec: {ports: [{port: 1}]}\n---\n---\nkind: Pod\nspec: {containers: [{image: b}]}\n...\n", "a b", ""},
		"a list as YAML":        {"apiVersion: v1\nkind: List\nitems:\n- kind: Pod\n  spec: {containers: [{image: a}]}\n- kind: CronJob\n  spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: b}]}}}}}\n", "a b", ""},
		"a list as JSON":        {`{"apiVersion":"v1","kind":"List","items":[{"kind":"Pod","spec":{"containers":[{"image":"a"}]}}]}`, "a", ""},
		"the API's list":        {`{"kind":"PodList","items":[{"metadata":{"name":"p"},"spec":{"containers":[{"image":"a"}]}}]}`, "a", ""},
		"a list in disguise":    {`{"kind":"ConfigMap","items":[{"kind":"Pod","spec":{"containers":[{"image":"a"}]}}]}`, "a", ""},
		"an item of no kind":    {`{"kind":"List","items":[{"spec":{"containers":[{"image":"a"}]}}]}`, "", "read document 1: items[0]: not a Kubernetes object"},
		"JSON after JSON":       {"{\"kind\":\"Pod\",\"spec\":{\"containers\":[{\"image\":\"a\"}]}}\n{\"kind\":\"Pod\"}", "a", ""},
		"an anchor":             {"kind: Pod\nspec: {containers: [{image: &i a}, {image: *i}]}", "a a", ""},
		"a number":              {"kind: Pod\nspec: {containers: [{image: 1.50}]}", "1.50", ""},
		"a look-alike":          {"kind: ExternalSecret\nspec: {template: some text}\n---\nkind: Pod\nspec: {containers: [{image: b}]}", "b", ""},
		"a look-alike as JSON":  {`{"kind":"X","spec":{"template":"t"}}{"kind":"Pod","spec":{"containers":[{"image":"a"}]}}`, "a", ""},
		"spec is text":          {"kind: ConfigMap\nspec: text", "", ""},
		"containers are text":   {"kind: Pod\nspec: {containers: text}", "", "read document 1: "},
		"no kind":               {"a: b", "", "read document 1: not a Kubernetes object: it has no kind"},
		"a scalar":              {"kind: Pod\n---\ntext", "", "read document 2: "},
		"not YAML":              {"kind: Pod\n---\na: [", "", "read document 2: yaml: "},
		"not JSON":              {`{"kind": "Pod",}`, "", "read document 1: invalid character"},
		"JSON that is cut":      {`{"kind": "Pod"`, "", "read document 1: unexpected EOF"},
		"JSON that never comes": {"{", "", "read document 1: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := workload.Read(strings.NewReader(c.in))
			if c.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.err) {
					t.Fatalf("%v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range objects {
				for _, i := range o.Images {
					got = append(got, i.Ref)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// FuzzRead holds reading to not panicking, and to finding nothing but what is
// there.
func FuzzRead(f *testing.F) {
	f.Add("kind: Pod\nspec: " + podSpec)
	f.Add(`{"kind":"List","items":[{"kind":"Pod","spec":{"containers":[{"image":"a"}]}}]}`)
	f.Add("kind: List\nitems: [{kind: List, items: [{kind: Pod}]}]")
	f.Add("kind: Pod\nspec: {volumes: [{image: }, null]}")
	f.Fuzz(func(t *testing.T, in string) {
		objects, err := workload.Read(strings.NewReader(in))
		if err != nil {
			return
		}
		for _, o := range objects {
			for _, i := range o.Images {
				if i.Path == "" || o.Kind == "" {
					t.Errorf("%q: %+v", in, o)
				}
			}
		}
	})
}
