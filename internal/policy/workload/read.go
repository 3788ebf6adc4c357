package workload

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxInput bounds what Read takes, in bytes: the pods of a cluster with a
// hundred thousand of them, as kubectl get -o json prints them.
const MaxInput = 1 << 30

// Read reads manifests until r ends: YAML documents, JSON objects, and lists of
// objects as kubectl get prints them. Objects come back in their order, also
// those without any image. An error names the document it is in, counted from
// one.
func Read(r io.Reader) ([]Object, error) {
	limited := &io.LimitedReader{R: r, N: MaxInput + 1}
	in := bufio.NewReaderSize(limited, 64<<10)
	var next func() (*document, error)
	if isJSON(in) {
		next = jsonDocuments(in)
	} else {
		next = yamlDocuments(in)
	}
	var objects []Object
	for n := 1; ; n++ {
		doc, err := next()
		if limited.N <= 0 {
			return nil, fmt.Errorf("read manifests: more than %d bytes", MaxInput)
		}
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err == nil {
			objects, err = doc.objects(objects)
		}
		if err != nil {
			return nil, fmt.Errorf("read document %d: %w", n, err)
		}
	}
}

// isJSON looks at the first byte that is no space. YAML may start with a brace
// too; then it is a stream of JSON objects that is read, or an error.
func isJSON(in *bufio.Reader) bool {
	head, _ := in.Peek(4 << 10) // at the end of a short input there is less, with an error
	head = bytes.TrimLeft(head, " \t\r\n\ufeff")
	return len(head) > 0 && head[0] == '{'
}

// document is an object, or a list of them.
type document struct {
	manifest `yaml:",inline"`
	Items    []document `json:"items" yaml:"items"`
	// err is why some of it could not be read.
	err error
}

// objects adds what the document holds. kubectl takes for a list whatever has
// items, of whatever kind it is.
func (d *document) objects(to []Object) (_ []Object, err error) {
	itemKind, list := strings.CutSuffix(d.Kind, "List")
	for i := range d.Items {
		item := &d.Items[i]
		if item.Kind == "" && list {
			item.Kind = itemKind // the API leaves it out in a list of one kind
		}
		if to, err = item.objects(to); err != nil {
			return to, fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	if list {
		return to, d.err
	}
	if d.Kind == "" && d.err == nil {
		return to, errors.New("not a Kubernetes object: it has no kind")
	}
	if d.err != nil && !ours(d.Kind) {
		return to, nil // a custom resource that only looks like a workload
	}
	return append(to, d.object()), d.err
}

// ours reports whether kind is one of those whose form is known.
func ours(kind string) bool {
	switch kind {
	case "", "Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "PodTemplate":
		return true
	}
	return false
}

// jsonDocuments reads one JSON object after the other.
func jsonDocuments(in io.Reader) func() (*document, error) {
	dec, lean := json.NewDecoder(in), NewLean[document]()
	return func() (*document, error) {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, err
		}
		cut, err := lean.Cut(nil, raw)
		if err != nil {
			return nil, err
		}
		var d document
		err = json.Unmarshal(cut, &d)
		if _, wrongType := errors.AsType[*json.UnmarshalTypeError](err); wrongType {
			d.err, err = err, nil
		}
		return &d, err
	}
}

// yamlDocuments reads one YAML document after the other, and passes over those
// with nothing in them.
func yamlDocuments(in io.Reader) func() (*document, error) {
	dec := yaml.NewDecoder(in)
	return func() (*document, error) {
		for {
			var node yaml.Node
			if err := dec.Decode(&node); err != nil {
				return nil, err
			}
			if len(node.Content) == 1 && node.Content[0].ShortTag() == "!!null" {
				continue
			}
			var d document
			err := node.Decode(&d)
			if _, wrongType := errors.AsType[*yaml.TypeError](err); wrongType {
				d.err, err = err, nil
			}
			return &d, err
		}
	}
}
