package vap

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/larder-registry/larder/internal/policy"
)

// evaluator is a policy as the API server has it in force.
type evaluator struct {
	name      string
	action    admissionv1.ValidationAction
	resources []admissionv1.NamedRuleWithOperations
	validator validating.Validator
}

// evaluators compiles what a policy is written as, as an API server does that is
// one minor version above minor: for new objects it keeps to what the version
// before it knows.
func evaluators(t testing.TB, cfg policy.Config, opts policy.AdmissionOptions, minor uint) []evaluator {
	t.Helper()
	p, err := policy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var written bytes.Buffer
	if err := p.WriteAdmissionPolicies(&written, opts); err != nil {
		t.Fatal(err)
	}
	var all []evaluator
	docs := yaml.NewYAMLOrJSONDecoder(&written, 4096)
	for {
		var vap admissionv1.ValidatingAdmissionPolicy
		var binding admissionv1.ValidatingAdmissionPolicyBinding
		if err := docs.Decode(&vap); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if err := docs.Decode(&binding); err != nil {
			t.Fatal(err)
		}
		if vap.Kind != "ValidatingAdmissionPolicy" || binding.Kind != "ValidatingAdmissionPolicyBinding" || binding.Spec.PolicyName != vap.Name || len(binding.Spec.ValidationActions) != 1 {
			t.Fatalf("%+v, %+v", vap, binding)
		}
		e := compile(t, &vap, minor)
		e.action = binding.Spec.ValidationActions[0]
		all = append(all, e)
	}
	if len(all) == 0 {
		t.Fatal("nothing was written")
	}
	return all
}

// compile does what the API server does with a policy.
func compile(t testing.TB, vap *admissionv1.ValidatingAdmissionPolicy, minor uint) evaluator {
	t.Helper()
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(version.MajorMinor(1, minor)))
	if err != nil {
		t.Fatal(err)
	}
	options := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	var variables []cel.NamedExpressionAccessor
	for _, v := range vap.Spec.Variables {
		variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	// One by one, since errors come with each.
	for _, v := range variables {
		if result := compiler.CompileAndStoreVariable(v, options, environment.NewExpressions); result.Error != nil {
			t.Fatalf("%s: variable %s: %v", vap.Name, v.GetName(), result.Error)
		}
	}
	validation := vap.Spec.Validations[0]
	check := &validating.ValidationCondition{Expression: validation.Expression, Message: validation.Message, Reason: validation.Reason}
	message := &validating.MessageExpressionCondition{MessageExpression: validation.MessageExpression}
	for _, e := range []cel.ExpressionAccessor{check, message} {
		if result := compiler.CompileCELExpression(e, options, environment.NewExpressions); result.Error != nil {
			t.Fatalf("%s: %v", vap.Name, result.Error)
		}
	}
	var conditions []cel.ExpressionAccessor
	for i := range vap.Spec.MatchConditions {
		c := (*matchconditions.MatchCondition)(&vap.Spec.MatchConditions[i])
		if result := compiler.CompileCELExpression(c, options, environment.NewExpressions); result.Error != nil {
			t.Fatalf("%s: %v", vap.Name, result.Error)
		}
		conditions = append(conditions, c)
	}
	matcher := matchconditions.NewMatcher(compiler.CompileCondition(conditions, options, environment.NewExpressions), vap.Spec.FailurePolicy, "policy", "validate", vap.Name)
	return evaluator{
		name:      vap.Name,
		resources: vap.Spec.MatchConstraints.ResourceRules,
		validator: validating.NewValidator(
			compiler.CompileCondition([]cel.ExpressionAccessor{check}, options, environment.NewExpressions),
			matcher,
			compiler.CompileCondition(nil, options, environment.NewExpressions),
			compiler.CompileCondition([]cel.ExpressionAccessor{message}, cel.OptionalVariableDeclarations{}, environment.NewExpressions),
			vap.Spec.FailurePolicy, nil,
		),
	}
}

// review is what a user asks of the API server.
type review struct {
	object, old runtime.Object
	kind        schema.GroupVersionKind
	resource    string
	subresource string
	namespace   string
	user        string
}

// info is who asks; a kubelet is in the group of its kind.
func (r review) info() user.Info {
	info := &user.DefaultInfo{Name: r.user}
	if strings.HasPrefix(r.user, "system:node:") {
		info.Groups = []string{"system:nodes"}
	}
	return info
}

// decide evaluates the review. It returns the denial's message, or nothing.
func (e evaluator) decide(t testing.TB, r review) string {
	t.Helper()
	operation := admission.Create
	if r.old != nil {
		operation = admission.Update
	}
	resource := r.kind.GroupVersion().WithResource(r.resource)
	attributes := admission.NewAttributesRecord(r.object, r.old, r.kind, r.namespace, "x", resource, r.subresource, operation, nil, false, r.info())
	versioned := &admission.VersionedAttributes{Attributes: attributes, VersionedKind: r.kind}
	versioned.VersionedObject.Set(r.object)
	if r.old != nil {
		versioned.VersionedOldObject.Set(r.old)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}}
	result := e.validator.Validate(context.Background(), resource, versioned, nil, namespace, celconfig.RuntimeCELCostBudget, nil)
	for _, d := range result.Decisions {
		switch d.Evaluation {
		case validating.EvalAdmit:
		case validating.EvalDeny:
			return d.Message
		default:
			t.Fatalf("%s: %s", e.name, d.Message)
		}
	}
	return ""
}

// matches reports whether the policy looks at a resource.
func (e evaluator) matches(group, resource string) bool {
	for _, rule := range e.resources {
		for i := range rule.APIGroups {
			if rule.APIGroups[i] != group {
				continue
			}
			for _, name := range rule.Resources {
				if name == resource {
					return true
				}
			}
		}
	}
	return false
}

// pod makes a pod of containers with these images.
func pod(images ...string) *corev1.Pod {
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	for _, image := range images {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "c", Image: image})
	}
	return p
}

func podReview(namespace string, object, old *corev1.Pod) review {
	r := review{object: object, kind: corev1.SchemeGroupVersion.WithKind("Pod"), resource: "pods", namespace: namespace, user: "someone"}
	if old != nil {
		r.old = old
	}
	return r
}

// word asks all evaluators, and says which action was taken in the words of
// policy.Verdict.
func word(t testing.TB, all []evaluator, r review) (word, message string) {
	t.Helper()
	word = "allow"
	for _, e := range all {
		if !e.matches(r.kind.Group, strings.TrimSuffix(r.resource+"/"+r.subresource, "/")) {
			continue
		}
		text := e.decide(t, r)
		if text == "" {
			continue
		}
		if word != "allow" {
			t.Errorf("two policies deny: %s, and %s of %s", message, text, e.name)
		}
		word, message = strings.ToLower(string(e.action)), text
	}
	return word, message
}
