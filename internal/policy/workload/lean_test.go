package workload_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
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
		{"all of it", `{"text":"x","number":1,"Plain":true}`, `{"text":"x","number":1,"Plain":true}`},
		{"other letters", `{"Text":"x","text":"y","NUMBER":1,"plain":true,"ſ":2}`, `{"text":"y"}`},
		{"space", " {\n\t\"text\" : \"a b\" ,\r\n \"x\" : 1 , \"Plain\" : null } ", `{"text":"a b","Plain":null}`},
		{"within", `{"inner": {"list": [{"A": 1, "c": 2}, 7, {"C": 1}], "any": {"z": [1, 2]}, "other": 3}}`, `{"inner":{"list":[{"A":1},7,{}],"any":{"z": [1, 2]}}}`},
		{"embedded", `{"deep": [[{"x": "y", "z": 1}], []], "embedded": 1}`, `{"deep":[[{"x":"y"}],[]]}`},
		{"another type", `{"inner": [1, {"a": 2}], "deep": {"x": 1}}`, `{"inner":[1, {"a": 2}],"deep":{"x": 1}}`},
		{"kept as it is", `{"kept": {"a": 1}}`, `{"kept":{"a": 1}}`},
		{"escapes in a name", `{"t\u0065xt": "x", "T\u0065xt": 1, "\ud800": 2}`, `{"t\u0065xt":"x"}`},
		{"twice where it is of no matter", `{"z": 1, "z": 2, "inner": {"any": {"a": 1, "a": 2}}}`, `{"inner":{"any":{"a": 1, "a": 2}}}`},
		{"a long name", `{"` + strings.Repeat("x", 100) + `": 1}`, `{}`},
		{
			"an object", `{"pod": {"metadata": {"name": "n", "labels": {"a": "b"}, "annotations": {"x": "y", "kubernetes.io/config.mirror": "z"}}, "spec": {"containers": [{"name": "c", "image": "i", "env": []}], "nodeName": "n"}, "status": {}}}`,
			`{"pod":{"metadata":{"name":"n","annotations":{"kubernetes.io/config.mirror":"z"}},"spec":{"containers":[{"image":"i"}]}}}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := lean.Cut([]byte("before "), []byte(c.in)); err != nil || string(got) != "before "+c.want {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
		})
	}
	for _, bad := range notJSON() {
		if got, err := lean.Cut(nil, slices.Clip([]byte(bad))); err == nil {
			t.Errorf("%q is JSON, and is cut to %q", bad, got)
		}
	}
	for _, twice := range []string{
		`{"text":1,"text":1}`, `{"inner":{},"z":0,"inner":{}}`, `{"inner":{"list":[{"A":1,"\u0041":1}]}}`, `{"deep":[[{"x":"","x":""}]]}`,
		`{"pod":{"spec":{"containers":[],"containers":null}}}`,
	} {
		if got, err := lean.Cut(nil, []byte(twice)); err == nil || !strings.HasSuffix(err.Error(), " is there twice") {
			t.Errorf("%s is cut to %s, %v", twice, got, err)
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

// FuzzCut holds cutting to what encoding/json says of what is JSON, and to what it
// reads where there is nothing but what is read.
func FuzzCut(f *testing.F) {
	for _, seed := range slices.Concat(notJSON(), []string{
		`{"text":"x","number":1.5e-7,"inner":{"list":[{"A":"\u00e9\ud83d\ude00"}]},"deep":[[{"x":"1"}]]}`, `{"tEXt":"\ud800","Plain":tRue}`, `-0.0E+1`,
		`{"text":"x","inner":{"list":[{"A":1,"a":2},null,{"B":[{}]}],"Any":1},"Plain":true,"Deep":0}`, `{"text":"x","inner":{},"\u0074ext":1}`,
		strings.Repeat("[", 10000) + strings.Repeat("]", 10000), `{"a":` + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + `}`,
	}) {
		f.Add(seed)
	}
	lean := workload.NewLean[reads]()
	f.Fuzz(func(t *testing.T, in string) {
		// Without room behind it, what reads beyond the end is noticed.
		cut, err := lean.Cut(nil, slices.Clip([]byte(in)))
		if !json.Valid([]byte(in)) {
			if err == nil {
				t.Fatalf("not JSON, and cut to %s", cut)
			}
			return
		}
		if err != nil {
			if !repeats(t, in) {
				t.Fatal(err)
			}
			return
		}
		only, err := json.Marshal(exactly(decode(t, in), reflect.TypeFor[reads]()))
		if err != nil {
			t.Fatal(err)
		}
		var want, got reads
		wantErr, gotErr := json.Unmarshal(only, &want), json.Unmarshal(cut, &got)
		if (wantErr == nil) != (gotErr == nil) {
			t.Fatalf("error %v, of what was cut %v: %s", wantErr, gotErr, cut)
		}
		// These are text, and written otherwise now.
		want.Kept, want.Pod, got.Kept, got.Pod = nil, nil, nil, nil
		if wantErr == nil && !reflect.DeepEqual(want, got) {
			t.Fatalf("%+v, of what was cut %+v", want, got)
		}
	})
}

// decode reads JSON as it is, with maps for objects: their names count letter by
// letter.
func decode(t *testing.T, in string) (v any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(in))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// exactly leaves of v what is read into a typ.
func exactly(v any, typ reflect.Type) any {
	switch v := v.(type) {
	case map[string]any:
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return v
		}
		left := map[string]any{}
		for _, f := range reflect.VisibleFields(typ) {
			name := cmp.Or(f.Tag.Get("json"), f.Name)
			name, _, _ = strings.Cut(name, ",")
			if member, ok := v[name]; ok && !f.Anonymous {
				left[name] = exactly(member, f.Type)
			}
		}
		return left
	case []any:
		for i := range v {
			if typ.Kind() == reflect.Slice {
				v[i] = exactly(v[i], typ.Elem())
			}
		}
	}
	return v
}

// repeats reports whether an object anywhere in JSON has two members of a name.
func repeats(t *testing.T, in string) bool {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(in))
	dec.UseNumber()
	var open []map[string]bool // of objects; nil for an array
	isName := false
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token {
		case json.Delim('{'):
			open = append(open, map[string]bool{})
		case json.Delim('['):
			open = append(open, nil)
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		default:
			if name, ok := token.(string); ok && isName {
				if last := open[len(open)-1]; last[name] {
					return true
				}
				open[len(open)-1][name] = true
				isName = false
				continue
			}
		}
		isName = len(open) > 0 && open[len(open)-1] != nil
	}
}
