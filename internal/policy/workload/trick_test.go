package workload_test

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/policy/workload"
)

// TestNothingHides: what an API server takes for an image is found, or the object
// is refused; what it passes over does not stand in for something else.
func TestNothingHides(t *testing.T) {
	const image = `[{"image":"i"}]`
	for _, c := range []struct{ name, in, want string }{
		{"another case behind", `{"spec":{"containers":` + image + `,"Containers":[]}}`, "i"},
		{"another case before", `{"Spec":{"containers":[{"image":"no"}]},"spec":{"containers":` + image + `}}`, "i"},
		{"of the image itself", `{"spec":{"containers":[{"image":"i","IMAGE":"no"}]}}`, "i"},
		{"of a volume's", `{"spec":{"volumes":[{"image":{"reference":"i","Reference":"no"},"Image":null}]}}`, "i"},
		{"only another case", `{"spec":{"containers":[{"Image":"no"}]}}`, ""},
		{"another script", `{"ſpec":{"containers":[{"image":"no"}]},"spec":{"containers":` + image + `}}`, "i"},
		{"escapes", `{"\u0073pec":{"con\u0074ainers":[{"\u0069mage":"i"}]}}`, "i"},
		{"twice", `{"spec":{"containers":` + image + `,"containers":[]}}`, "twice"},
		{"twice, once with escapes", `{"spec":{"containers":` + image + `,"\u0063ontainers":[]}}`, "twice"},
		{"a part twice", `{"spec":{"containers":` + image + `},"spec":{"restartPolicy":"Never"}}`, "twice"},
		{"the image twice", `{"spec":{"containers":[{"image":"i","image":"no"}]}}`, "twice"},
		{"nothing behind", `{"spec":{"containers":` + image + `,"containers":null}}`, "twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := strings.Replace(c.in, "{", `{"kind":"Pod",`, 1)
			for _, in := range []string{in, `{"kind":"List","items":[` + in + `]}`} {
				objects, err := workload.Read(strings.NewReader(in))
				if got := found(objects, err); got != c.want {
					t.Errorf("read %q, want %q: %v", got, c.want, err)
				}
			}
			o, err := workload.Parse([]byte(in))
			if got := found([]workload.Object{o}, err); got != c.want {
				t.Errorf("parsed %q, want %q: %v", got, c.want, err)
			}
		})
	}
}

// found lists the images, or says that something was there twice.
func found(objects []workload.Object, err error) string {
	if err != nil {
		return err.Error()[strings.LastIndexByte(err.Error(), ' ')+1:]
	}
	var refs []string
	for _, o := range objects {
		for _, i := range o.Images {
			refs = append(refs, i.Ref)
		}
	}
	return strings.Join(refs, " ")
}

// FuzzParse compares what is found with what plain maps hold, in input as it is
// and in objects that it chooses the parts of.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"kind":"Pod","metadata":{"name":"n","ownerReferences":[{"kind":"A","name":"b","controller":true}],"deletionTimestamp":"x"},"spec":{"containers":[{"image":"i"},null,{"image":3}],"volumes":[{"image":{"reference":"r"}}]}}`,
		`{"spec":{"template":{"spec":{"initContainers":[{"image":"i","x":[{}]}]}},"jobTemplate":{"spec":{"template":{}}}},"template":{"SPEC":{"Containers":[{"Image":"i"}]}},"ſpec":{}}`,
		`{"spec":{"containers":[{"image":"a"}],"Containers":[]},"spec":null}`, `{"spec":{"ephemeralContainers":[{"im\u0061ge":"a\ud800"}]}}`,
		"\ufeff{}", "{}{}", "{} ", `{"spec":1e999}`, "\x05\x01\x10\x02\x07\x01\x08\x04\x01",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		compare(t, string(in))
		choices := chooser(in)
		compare(t, choices.value(0))
	})
}

// compare holds Parse to what plain maps hold.
func compare(t *testing.T, in string) {
	t.Helper()
	o, err := workload.Parse(slices.Clip([]byte(in)))
	switch {
	case !json.Valid([]byte(in)):
		if err == nil {
			t.Fatalf("%q is not JSON, and read as %+v", in, o)
		}
		return
	case err != nil:
		// It may be of wrong types, which its images' places are then too, or
		// something is there twice: both are refused, and hide nothing.
		return
	}
	whole, _ := decode(t, in).(map[string]any)
	if got, want := shown(o.Images), everyImage(whole); !slices.Equal(got, want) {
		t.Fatalf("found %q, there are %q in %s", got, want, in)
	}
	metadata := object(whole, "metadata")
	if deleting := text(metadata["deletionTimestamp"]) != ""; o.Deleting != deleting {
		t.Fatalf("deleting %v: %s", o.Deleting, in)
	}
	if mirror := object(metadata, "annotations")["kubernetes.io/config.mirror"] != nil; o.Mirror != mirror {
		t.Fatalf("mirror %v: %s", o.Mirror, in)
	}
	owned := slices.ContainsFunc(list(metadata, "ownerReferences"), func(owner any) bool {
		o, _ := owner.(map[string]any)
		return o["controller"] == true
	})
	if owned != (o.Owner != "") {
		t.Fatalf("owner %q: %s", o.Owner, in)
	}
}

// everyImage is a second way to find the images, in the order of Images.
func everyImage(whole map[string]any) (found []string) {
	spec := object(whole, "spec")
	for _, pod := range []struct {
		path string
		spec map[string]any
	}{
		{"spec", spec},
		{"spec.template.spec", object(spec, "template", "spec")},
		{"spec.jobTemplate.spec.template.spec", object(spec, "jobTemplate", "spec", "template", "spec")},
		{"template.spec", object(whole, "template", "spec")},
	} {
		for _, name := range []string{"initContainers", "containers", "ephemeralContainers"} {
			for i, c := range list(pod.spec, name) {
				container, _ := c.(map[string]any)
				found = append(found, pod.path+"."+name+"["+strconv.Itoa(i)+"].image="+text(container["image"]))
			}
		}
		for i, v := range list(pod.spec, "volumes") {
			volume, _ := v.(map[string]any)
			if volume["image"] != nil {
				found = append(found, pod.path+".volumes["+strconv.Itoa(i)+"].image.reference="+text(object(volume, "image")["reference"]))
			}
		}
	}
	return found
}

func object(of map[string]any, path ...string) map[string]any {
	for _, name := range path {
		of, _ = of[name].(map[string]any)
	}
	return of
}

func list(of map[string]any, name string) []any {
	l, _ := of[name].([]any)
	return l
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// chooser makes objects that are like those of a cluster and a little wrong: each
// byte is a choice.
type chooser []byte

func (c *chooser) pick(of ...string) string {
	if len(*c) == 0 {
		return of[0]
	}
	n := int((*c)[0])
	*c = (*c)[1:]
	return of[n%len(of)]
}

// value is JSON, but for some spaces and words now and then.
func (c *chooser) value(depth int) string {
	if depth > 8 {
		return "null"
	}
	switch c.pick("null", "{", "[", `"`, "{", "[", "{", "1") {
	case "{":
		var members []string
		for c.pick("", "more", "more", "more", "more") != "" {
			members = append(members, `"`+c.name()+`"`+c.pick(":", " : ")+c.value(depth+1))
		}
		return "{" + strings.Join(members, ",") + "}"
	case "[":
		var elements []string
		for c.pick("", "more", "more") != "" {
			elements = append(elements, c.value(depth+1))
		}
		return "[" + strings.Join(elements, ",") + "]"
	case `"`:
		return c.pick(`"quay.io/x"`, `""`, `"a\ud800"`, "\"\xff\"", `"\\"`, `"\u0069"`, `"2026-01-01T00:00:00Z"`)
	case "1":
		return c.pick("true", "0", "-1e400", "tru", "\n1", "false")
	}
	return "null"
}

// name is one that matters, and at times not quite.
func (c *chooser) name() string {
	name := c.pick("spec", "containers", "image", "initContainers", "ephemeralContainers", "volumes", "reference", "template", "jobTemplate",
		"metadata", "deletionTimestamp", "ownerReferences", "controller", "annotations", "kubernetes.io/config.mirror", "x")
	switch c.pick("", "", "", "", "upper", "title", "escaped", "script", "longer") {
	case "upper":
		return strings.ToUpper(name)
	case "title":
		return strings.ToUpper(name[:1]) + name[1:]
	case "escaped":
		return `\u00` + strconv.FormatInt(int64(name[0]), 16) + name[1:]
	case "script":
		return strings.Replace(name, "s", "ſ", 1)
	case "longer":
		return name + c.pick(" ", "\xff", `\u0000`, "s")
	}
	return name
}
