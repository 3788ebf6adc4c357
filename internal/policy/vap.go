package policy

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// AdmissionOptions says how a policy is written for the API server. The zero
// value of each field but Exempt means what its comment says.
type AdmissionOptions struct {
	// Name is the name of the objects, with a suffix where there are several;
	// "larder-images" if empty.
	Name string
	// Exempt are namespaces whose pods are not looked at.
	Exempt []string
	// Workloads is what becomes of a Deployment, Job or the like whose pods
	// would be denied: Enforce, Warn or Audit. Empty leaves them alone.
	Workloads Mode
}

// Bounds of the API server: cel-go parses expressions of at most 100,000 code
// points (parser.expressionSizeCodePointLimit), nested at most 250 deep.
const (
	maxExpression = 100_000
	maxNamespaces = 100
)

// WriteAdmissionPolicies writes the policy as ValidatingAdmissionPolicies, each
// with its binding, in YAML (admissionregistration.k8s.io/v1, Kubernetes 1.31
// and later). There is one for each mode that a denial can have. They look at
// pods and ephemeral containers at CREATE and UPDATE, only at images that are
// new in an update, and give every image the verdict that [Policy.DecideImage]
// gives it.
//
// It fails when the policy is too large for the API server's expressions.
func (p *Policy) WriteAdmissionPolicies(w io.Writer, opts AdmissionOptions) error {
	if opts.Name == "" {
		opts.Name = "larder-images"
	}
	if !isSubdomain(opts.Name) {
		return fmt.Errorf("write admission policies: %q is not a name for an object: write lower-case letters, digits and '-'", opts.Name)
	}
	if len(p.namespaces) > maxNamespaces {
		return fmt.Errorf("write admission policies: rules for more than %d namespaces; the webhook knows no such bound", maxNamespaces)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Image policy, revision %s. Made by larder policy render: change the policy, not this.\n", p.revision)
	for i, o := range p.admissionPolicies(opts) {
		if i > 0 {
			b.WriteString("---\n")
		}
		o.variables = append([]variable{{"spec", o.spec("object.spec")}, {"oldspec", o.spec("oldObject.spec")}}, p.variables(o.modes)...)
		for _, v := range o.variables {
			if utf8.RuneCountInString(v.expression) > maxExpression {
				return errors.New("write admission policies: too many entries for an expression of the API server; the webhook knows no such bound")
			}
		}
		o.write(&b, p.revision)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// subject is a kind of object that is looked at.
type subject struct {
	// suffix goes into the names of objects.
	suffix string
	// rules are the resourceRules.
	rules string
	// spec leads from an object's spec to the pod's.
	spec       func(spec string) string
	conditions []variable
}

// variable is a named expression.
type variable struct{ name, expression string }

// notDeleting: a finalizer must come off whatever the images are.
func notDeleting() variable {
	return variable{"not-being-deleted", "!has(object.metadata.deletionTimestamp)"}
}

func pods() subject {
	return subject{
		rules: `    - apiGroups: [""]
      apiVersions: [v1]
      operations: [CREATE, UPDATE]
      resources: [pods, pods/ephemeralcontainers]
`,
		spec: func(spec string) string { return spec },
		conditions: []variable{
			notDeleting(),
			// What the kubelet shows of a static pod runs already.
			{"not-a-mirror-pod", "!(request.userInfo.username.startsWith('system:node:') && 'system:nodes' in request.userInfo.groups && 'kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))"},
		},
	}
}

func workloads() subject {
	return subject{
		suffix: "-workloads",
		rules: `    - apiGroups: [apps]
      apiVersions: [v1]
      operations: [CREATE, UPDATE]
      resources: [deployments, statefulsets, daemonsets, replicasets]
    - apiGroups: [batch]
      apiVersions: [v1]
      operations: [CREATE, UPDATE]
      resources: [jobs, cronjobs]
    - apiGroups: [""]
      apiVersions: [v1]
      operations: [CREATE, UPDATE]
      resources: [replicationcontrollers]
`,
		// The kinds have nothing in common that the type checker knows.
		spec: func(spec string) string {
			spec = "dyn(" + spec + ")"
			return "has(" + spec + ".jobTemplate) ? " + spec + ".jobTemplate.spec.template.spec : " + spec + ".?template.?spec.orValue({})"
		},
		conditions: []variable{
			notDeleting(),
			{"not-owned-by-a-workload", "!object.metadata.?ownerReferences.orValue([]).exists(o, o.?controller.orValue(false))"},
		},
	}
}

// admissionPolicy is one policy with its binding.
type admissionPolicy struct {
	subject
	name   string
	modes  []Mode // the denials it is about
	action string // of the binding
	exempt []string

	variables []variable
}

// admissionPolicies are those that the policy takes.
func (p *Policy) admissionPolicies(opts AdmissionOptions) []admissionPolicy {
	action := map[Mode]string{Enforce: "Deny", Warn: "Warn", Audit: "Audit"}
	possible := p.modes()
	var all []admissionPolicy
	add := func(s subject, m Mode, modes ...Mode) {
		modes = slices.DeleteFunc(modes, func(m Mode) bool { return !slices.Contains(possible, m) })
		if len(modes) == 0 {
			return
		}
		name := opts.Name + s.suffix
		if m != Enforce {
			name += "-" + string(m)
		}
		all = append(all, admissionPolicy{subject: s, name: name, modes: modes, action: action[m], exempt: opts.Exempt})
	}
	for _, m := range []Mode{Enforce, Warn, Audit} {
		add(pods(), m, m)
	}
	switch opts.Workloads {
	case Enforce:
		for _, m := range []Mode{Enforce, Warn, Audit} {
			add(workloads(), m, m)
		}
	case Warn:
		add(workloads(), Warn, Enforce, Warn)
		add(workloads(), Audit, Audit)
	case Audit:
		add(workloads(), Audit, Enforce, Warn, Audit)
	}
	return all
}

// modes are those that a denial by this policy can have.
func (p *Policy) modes() []Mode {
	var modes []Mode
	scopes := []scope{p.general}
	for _, name := range sortedKeys(p.namespaces) {
		scopes = append(scopes, p.namespaces[name])
	}
	for _, s := range scopes {
		modes = append(modes, s.mode) // of what is invalid, if nothing else
		for _, r := range s.rules {
			if r.action == Deny || r.requireDigest {
				modes = append(modes, r.mode)
			}
		}
	}
	return modes
}

// write adds the YAML of the policy and of its binding.
func (o admissionPolicy) write(b *strings.Builder, revision string) {
	fmt.Fprintf(b, `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: %s
  annotations:
    larder/policy-revision: %s
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
%s`, o.name, quoteYAML(revision), o.rules)
	b.WriteString("  matchConditions:\n")
	for _, c := range o.conditions {
		fmt.Fprintf(b, "    - name: %s\n      expression: %s\n", c.name, quoteYAML(c.expression))
	}
	b.WriteString("  variables:\n")
	for _, v := range o.variables {
		fmt.Fprintf(b, "    - name: %s\n      expression: |-\n%s", v.name, indent(v.expression, "        "))
	}
	fmt.Fprintf(b, `  validations:
    - expression: variables.denied.size() == 0
      reason: Forbidden
      message: an image is not allowed here
      messageExpression: |-
%s`, indent(messageExpression, "        "))
	fmt.Fprintf(b, `---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: %s
spec:
  policyName: %s
  validationActions: [%s]
`, o.name, o.name, o.action)
	if len(o.exempt) == 0 {
		return
	}
	b.WriteString(`  matchResources:
    namespaceSelector:
      matchExpressions:
        - key: kubernetes.io/metadata.name
          operator: NotIn
          values:
`)
	for _, namespace := range o.exempt {
		fmt.Fprintf(b, "            - %s\n", quoteYAML(namespace))
	}
}

// quoteYAML writes s as a YAML string that is JSON too.
func quoteYAML(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// indent writes each line of s behind prefix.
func indent(s, prefix string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.Trim(s, "\n"), "\n") {
		b.WriteString(prefix + line + "\n")
	}
	return b.String()
}

// isSubdomain reports whether s can be an object's name, with room for a suffix
// (RFC 1123 subdomain).
func isSubdomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return len(s) <= 200
}
