// Package workload finds every image that a Kubernetes object names, and where
// in the object it stands.
//
// [Parse] reads one object as the API server sends it; [Read] reads manifests,
// YAML or JSON, one object or many, and what kubectl get prints. Both look at
// all four places a pod has for images: containers, initContainers,
// ephemeralContainers, and volumes of type image. They look for a pod where one
// can be: the object itself, spec.template, spec.jobTemplate, and template, so
// that custom resources built like a Deployment are understood too.
//
// JSON is read as an API server reads it, which is not how encoding/json does: see
// [Lean], which also cuts it down to what is looked at.
//
// The package judges nothing: what an image may be is decided by
// internal/policy. It refuses what is not JSON or YAML, what says something twice,
// and objects of a known kind whose images are not text.
package workload

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Image is an image that an object names.
type Image struct {
	// Path leads to it: "spec.template.spec.initContainers[0].image".
	Path string
	// Ref is what stands there, as it is; it may be empty.
	Ref string
}

// Object is what there is to know of a Kubernetes object.
type Object struct {
	Kind, Namespace string
	// Name is empty for one whose name the API server is to make up, starting
	// with GenerateName.
	Name, GenerateName string
	// Owner is the controller that owns it, such as the Deployment of a
	// ReplicaSet, as Kind/name; empty for none. Anybody who may create an object
	// can claim to have one.
	Owner string
	// Mirror: it says of itself that it is the picture of a static pod.
	Mirror bool
	// Deleting: it is being deleted and only waits for its finalizers.
	Deleting bool
	// Images are in the order of their paths' parts: init containers,
	// containers, ephemeral containers, volumes.
	Images []Image
}

// objectLean cuts one object.
var objectLean = NewLean[Raw]()

// Parse reads one object in JSON, of any kind, with names as a [Lean] takes them.
// It fails where a Lean does, and where what should be a container or its image
// is something else.
func Parse(data []byte) (Object, error) {
	var m manifest
	cut, err := objectLean.Cut(make([]byte, 0, len(data)), data)
	if err == nil {
		err = json.Unmarshal(cut, &m)
	}
	if err != nil {
		return Object{}, fmt.Errorf("read object: %w", err)
	}
	return m.object(), nil
}

// manifest is the part of an object that matters here. Every place where some
// kind has a pod is in it.
type manifest struct {
	Kind     string `json:"kind" yaml:"kind"`
	Metadata struct {
		Name            string `json:"name" yaml:"name"`
		GenerateName    string `json:"generateName" yaml:"generateName"`
		Namespace       string `json:"namespace" yaml:"namespace"`
		OwnerReferences []struct {
			Kind       string `json:"kind" yaml:"kind"`
			Name       string `json:"name" yaml:"name"`
			Controller bool   `json:"controller" yaml:"controller"`
		} `json:"ownerReferences" yaml:"ownerReferences"`
		Annotations struct {
			Mirror any `json:"kubernetes.io/config.mirror" yaml:"kubernetes.io/config.mirror"`
		} `json:"annotations" yaml:"annotations"`
		DeletionTimestamp string `json:"deletionTimestamp" yaml:"deletionTimestamp"`
	} `json:"metadata" yaml:"metadata"`
	Spec struct {
		pod         `yaml:",inline"`
		Template    template `json:"template" yaml:"template"`
		JobTemplate struct {
			Spec struct {
				Template template `json:"template" yaml:"template"`
			} `json:"spec" yaml:"spec"`
		} `json:"jobTemplate" yaml:"jobTemplate"`
	} `json:"spec" yaml:"spec"`
	Template template `json:"template" yaml:"template"` // of a PodTemplate
}

type template struct {
	Spec pod `json:"spec" yaml:"spec"`
}

type pod struct {
	InitContainers      []container `json:"initContainers" yaml:"initContainers"`
	Containers          []container `json:"containers" yaml:"containers"`
	EphemeralContainers []container `json:"ephemeralContainers" yaml:"ephemeralContainers"`
	Volumes             []struct {
		Image *struct {
			Reference string `json:"reference" yaml:"reference"`
		} `json:"image" yaml:"image"`
	} `json:"volumes" yaml:"volumes"`
}

type container struct {
	Image string `json:"image" yaml:"image"`
}

func (m *manifest) object() Object {
	o := Object{
		Kind: m.Kind, Namespace: m.Metadata.Namespace, Name: m.Metadata.Name, GenerateName: m.Metadata.GenerateName,
		Deleting: m.Metadata.DeletionTimestamp != "", Mirror: m.Metadata.Annotations.Mirror != nil,
	}
	for _, owner := range m.Metadata.OwnerReferences {
		if owner.Controller && o.Owner == "" {
			o.Owner = owner.Kind + "/" + owner.Name
		}
	}
	o.Images = m.Spec.images(o.Images, "spec")
	o.Images = m.Spec.Template.Spec.images(o.Images, "spec.template.spec")
	o.Images = m.Spec.JobTemplate.Spec.Template.Spec.images(o.Images, "spec.jobTemplate.spec.template.spec")
	o.Images = m.Template.Spec.images(o.Images, "template.spec")
	return o
}

// images adds the images of a pod that stands at path.
func (p *pod) images(images []Image, path string) []Image {
	add := func(list string, i int, field, ref string) {
		images = append(images, Image{Path: path + "." + list + "[" + strconv.Itoa(i) + "]." + field, Ref: ref})
	}
	for i, c := range p.InitContainers {
		add("initContainers", i, "image", c.Image)
	}
	for i, c := range p.Containers {
		add("containers", i, "image", c.Image)
	}
	for i, c := range p.EphemeralContainers {
		add("ephemeralContainers", i, "image", c.Image)
	}
	for i, v := range p.Volumes {
		if v.Image != nil {
			add("volumes", i, "image.reference", v.Image.Reference)
		}
	}
	return images
}

// String names the object for people: namespace/Kind/name, without what is not
// known.
func (o Object) String() string {
	parts := make([]string, 0, 3)
	for _, part := range []string{o.Namespace, o.Kind, o.Name} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/")
}
