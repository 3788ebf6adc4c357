package workload_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/policy/workload"
)

// reads is a type with every form that a Lean has to understand.
type reads struct {
	Text   string `json:"text"`
	Number *int   `json:"number,omitempty"`
	Plain  bool
	Inner  *struct {
		List []struct{ A, B any } `json:"list"`
		Any  any                  `json:"any"`
	} `json:"inner"`
	embedded
	Kept json.RawMessage `json:"kept"`
	Pod  workload.Raw    `json:"pod"`
}

type embedded struct {
	Deep [][]struct {
		X string `json:"x"`
	} `json:"deep"`
}

func TestCut(t *testing.T) {
	lean := workload.NewLean[reads]()
	for _, c := range []struct{ name, in, want string }{
		{"nothing of it", `{"a": 1, "b": {"text": 2}, "c": [1, {}, []]}`, `{}`},
		{"all of it", `{"text":"x","Number":1,"PLAIN":true}`, `{"text":"x","Number":1,"PLAIN":true}`},
		{"space", " {\n\t\"text\" : \"a b\" ,\r\n \"x\" : 1 , \"plain\" : null } ", `{"text":"a b","plain":null}`},
		{"within", `{"inner": {"list": [{"a": 1, "c": 2}, 7, {"C": 1}], "any": {"z": [1, 2]}, "other": 3}}`, `{"inner":{"list":[{"a":1},7,{}],"any":{"z": [1, 2]}}}`},
		{"embedded", `{"deep": [[{"x": "y", "z": 1}], []], "embedded": 1}`, `{"deep":[[{"x":"y"}],[]]}`},
		{"another type", `{"inner": [1, {"a": 2}], "deep": {"x": 1}}`, `{"inner":[1, {"a": 2}],"deep":{"x": 1}}`},
		{"kept as it is", `{"kept": {"a": 1}}`, `{"kept":{"a": 1}}`},
		{"a name that needs care", `{"t\u0065xt": "x", "ſ": 1, "z": 2}`, `{"t\u0065xt":"x","ſ":1}`},
		{"twice", `{"inner": {"any": 1}, "inner": {"list": []}}`, `{"inner":{"any":1},"inner":{"list":[]}}`},
		{"a long name", `{"` + strings.Repeat("x", 100) + `": 1}`, `{}`},
		{
			"an object", `{"pod": {"metadata": {"name": "n", "labels": {"a": "b"}, "annotations": {"x": "y", "kubernetes.io/config.mirror": "z"}}, "spec": {"containers": [{"name": "c", "image": "i", "env": []}], "nodeName": "n"}, "status": {}}}`,
			`{"pod":{"metadata":{"name":"n","annotations":{"kubernetes.io/config.mirror":"z"}},"spec":{"containers":[{"image":"i"}]}}}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, ok := lean.Cut([]byte("before "), []byte(c.in)); !ok || string(got) != "before "+c.want {
				t.Errorf("got %s, %v, want %s", got, ok, c.want)
			}
		})
	}
	for _, bad := range notJSON() {
		if got, ok := lean.Cut(nil, slices.Clip([]byte(bad))); ok {
			t.Errorf("%q is JSON, and is cut to %q", bad, got)
		}
	}
}

func notJSON() []string {
	return []string{
		``, ` `, `{`, `}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `[1,]`, `[,]`, `{} {}`, `{"a":1 "b":2}`, `"`, `"\`, `"12345\`, `"\x"`, `"\u12g4"`, `"\u12`,
		"\"\n\"", `01`, `1.`, `.5`, `1e`, `1e+`, `-`, `+1`, `tru`, `nul`, `True`, `{"x":"\ud8"}`, "\x00", `{"a":[}]}`,
		strings.Repeat("[", 10001) + strings.Repeat("]", 10001), strings.Repeat(`{"a":`, 10001) + "1" + strings.Repeat("}", 10001),
	}
}

// FuzzCut holds cutting to what encoding/json says: of what is JSON, and of what
// is read from it.
func FuzzCut(f *testing.F) {
	for _, seed := range notJSON() {
		f.Add(seed)
	}
	for _, seed := range []string{
		`{"text":"x","number":1.5e-7,"inner":{"list":[{"a":"\u00e9\ud83d\ude00"}]},"deep":[[{"x":"1"}]]}`, `{"tEXt":"\ud800","plain":tRue}`, `-0.0E+1`,
		`{"kind":"Pod","metadata":{"name":"n","ownerReferences":[{"kind":"A","name":"b","controller":true}],"deletionTimestamp":"x"},"spec":{"containers":[{"image":"i"},null,{"image":3}],"volumes":[{"image":{"reference":"r"}}]}}`,
		`{"spec":{"template":{"spec":{"initContainers":[{"image":"i","x":[{}]}]}},"jobTemplate":{"spec":{"template":{}}}},"template":{"SPEC":{"Containers":[{"Image":"i"}]}},"ſpec":{}}`,
		strings.Repeat("[", 10000) + strings.Repeat("]", 10000), `{"a":` + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + `}`,
	} {
		f.Add(seed)
	}
	typed, object := workload.NewLean[reads](), workload.NewLean[workload.Raw]()
	f.Fuzz(func(t *testing.T, in string) {
		// Without room behind it, what reads beyond the end is noticed.
		cut, ok := typed.Cut(nil, slices.Clip([]byte(in)))
		if ok != json.Valid([]byte(in)) {
			t.Fatalf("is it JSON? %v", ok)
		}
		if !ok {
			return
		}
		var whole, part reads
		wholeErr, partErr := json.Unmarshal([]byte(in), &whole), json.Unmarshal(cut, &part)
		if fmt.Sprint(wholeErr) != fmt.Sprint(partErr) {
			t.Fatalf("error %v, of what was cut %v: %s", wholeErr, partErr, cut)
		}
		// What stands for an object is cut itself: what Parse makes of it is
		// compared below.
		whole.Pod, part.Pod = nil, nil
		if !reflect.DeepEqual(whole, part) {
			t.Fatalf("%+v, of what was cut %+v", whole, part)
		}
		cut, _ = object.Cut(nil, []byte(in))
		wholeObject, wholeErr := workload.Parse([]byte(in))
		partObject, partErr := workload.Parse(cut)
		if fmt.Sprint(wholeErr) != fmt.Sprint(partErr) || !reflect.DeepEqual(wholeObject, partObject) {
			t.Fatalf("%+v, %v, of what was cut %+v, %v", wholeObject, wholeErr, partObject, partErr)
		}
	})
}
