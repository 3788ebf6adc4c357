package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestWrongValues: each is refused, by an error that names the value.
func TestWrongValues(t *testing.T) {
	for _, c := range []struct {
		name string
		sets []string
		want []string // what the error says
	}{
		{"a value that is none", []string{"mirrors.enabled=true"}, []string{"additional properties 'mirrors' not allowed"}},
		{"a misspelt value", []string{"mirror.prot=8000"}, []string{"/mirror'", "'prot' not allowed"}},
		{"sharing between nodes", []string{"peers.enabled=true"}, []string{"'peers' not allowed"}},
		{"a port that is none", []string{"mirror.port=70000"}, []string{"/mirror/port'", "65,535"}},
		{"a port in letters", []string{"mirror.port=http"}, []string{"/mirror/port'", "want integer"}},
		{"one port for two", []string{"mirror.adminPort=8000"}, []string{"mirror.adminPort: 8000 is mirror.port already"}},
		{"a directory that is not absolute", []string{"mirror.dataDir=cache"}, []string{"/mirror/dataDir'", "does not match"}},
		{"the root of the node", []string{"mirror.dataDir=/"}, []string{"/mirror/dataDir'"}},
		{"a section of the configuration that is none", []string{"mirror.config.registry_proxy.offline=true"}, []string{"/mirror/config'", "'registry_proxy' not allowed"}},
		{"the registry's section for the mirror", []string{"mirror.config.central.anonymous_pull=true"}, []string{"/mirror/config'", "'central' not allowed"}},
		{"no promise of memory", []string{"mirror.resources.requests.memory=null"}, []string{"/mirror/resources/requests'", "'memory'"}},
		{"memory in words", []string{"mirror.resources.limits.memory=lots"}, []string{"/mirror/resources/limits/memory'"}},
		{"all mirrors down at once", []string{"mirror.maxUnavailable=0"}, []string{"/mirror/maxUnavailable'"}},
		{"a toleration that is text", []string{"mirror.tolerations[0]=all"}, []string{"/mirror/tolerations/0'", "want object"}},
		{"somebody else's DNS", []string{"mirror.dnsPolicy=None"}, []string{"/mirror/dnsPolicy'", "ClusterFirstWithHostNet"}},
		{"memory by the environment", []string{"mirror.env[0].name=GOMEMLIMIT"}, []string{"/mirror/env/0/name'"}},
		{"a Secret's name", []string{"mirror.secrets[0]=My_Secret"}, []string{"/mirror/secrets/0'"}},
		{"a runtime no kubelet uses", []string{"init.target=docker"}, []string{"/init/target'", "'containerd', 'k3s'"}},
		{"a port by a flag", []string{"init.args[0]=--port=1"}, []string{"/init/args/0'"}},
		{"no flag", []string{"init.args[0]=restart"}, []string{"/init/args/0'"}},
		{"undo without mirror", []string{"init.undo=true", "mirror.enabled=false"}, []string{"init.undo: nothing is taken back while mirror.enabled is false"}},
		{"a digest that is none", []string{"image.tag=v1@latest"}, []string{"/image/tag'"}},
		{"a repository with a tag's name", []string{"image.repository=Registry/larder"}, []string{"/image/repository'"}},
		{"a pull secret without a key", []string{"imagePullSecrets[0]=pull"}, []string{"/imagePullSecrets/0'"}},
		{"a volume of no size", []string{"central.storage.size=large"}, []string{"/central/storage/size'"}},
		{"two replicas of the registry", []string{"central.replicas=2"}, []string{"/central'", "'replicas' not allowed"}},
		{"TLS for no name", []string{"central.ingress.tlsSecret=tls"}, []string{"central.ingress.host: it is empty"}},
		{"a webhook without a policy", []string{"webhook.enabled=true", "webhook.config.image_validation=null"}, []string{"/webhook/config'", "'image_validation'"}},
		{"a registration by another name", []string{"webhook.config.webhook.registration=x"}, []string{"/webhook/config/webhook/registration'"}},
		{"a failure policy", []string{"webhook.failurePolicy=Deny"}, []string{"/webhook/failurePolicy'", "'Ignore', 'Fail'"}},
		{"Fail with one replica", []string{"webhook.failurePolicy=Fail", "webhook.replicas=1"}, []string{"webhook.replicas: 1 is too few"}},
		{"a namespace with a capital", []string{"webhook.exemptNamespaces[0]=Team"}, []string{"/webhook/exemptNamespaces/0'"}},
		{"a certificate from nowhere", []string{"webhook.certificate.source=vault"}, []string{"/webhook/certificate/source'", "'cert-manager'"}},
		{"a certificate that is not named", []string{"webhook.certificate.source=secret"}, []string{"webhook.certificate.secretName: it is empty"}},
		{"a certificate nobody trusts", []string{"webhook.certificate.source=secret", "webhook.certificate.secretName=s"}, []string{"webhook.certificate.caBundle: it is empty"}},
		{"an authority in base64", []string{"webhook.certificate.caBundle=LS0tLS1CRUdJTg=="}, []string{"/webhook/certificate/caBundle'"}},
		{"a switch in words", []string{"metrics.operator=yes please"}, []string{"/metrics/operator'", "want boolean"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var args []string
			for _, set := range c.sets {
				args = append(args, "--set", set)
			}
			out := template(t, release, args...)
			if out.code == 0 {
				t.Fatal("it is taken")
			}
			for _, want := range c.want {
				if !strings.Contains(out.stderr, want) {
					t.Errorf("the error does not say %q: %s", want, out.stderr)
				}
			}
		})
	}
}

// The table of values stands between these in docs/kubernetes.md.
const (
	tableBegins = "<!-- the values, written by make manifests -->\n"
	tableEnds   = "<!-- the end of the values -->\n"
)

// TestValuesAreDocumented holds docs/kubernetes.md to values.yaml, and values.yaml
// to the schema: each value has a comment, a place in the table and a rule.
func TestValuesAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "manifests/chart/values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "manifests/chart/values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema rule
	if err := json.Unmarshal(raw, &schema); err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| value | default | meaning |\n|---|---|---|\n")
	tabulate(t, &table, "", doc.Content[0], schema)
	file := filepath.Join(root, "docs/kubernetes.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), tableBegins)
	is, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		t.Fatal("docs/kubernetes.md has no place for the values")
	}
	if is == table.String() {
		return
	}
	if !*updateFlag {
		t.Fatal("docs/kubernetes.md does not list the values as values.yaml has them: run make manifests")
	}
	if err := os.WriteFile(file, []byte(before+tableBegins+table.String()+tableEnds+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// rule is what is looked at of a schema.
type rule struct {
	Closed     any                        `json:"additionalProperties"`
	Properties map[string]json.RawMessage `json:"properties"`
}

// tabulate writes a line for each value below node, and compares it with what the
// schema has.
func tabulate(t *testing.T, w *strings.Builder, prefix string, node *yaml.Node, schema rule) {
	t.Helper()
	if schema.Closed != false {
		t.Errorf("the schema allows anything in %q", prefix)
	}
	there := map[string]bool{"global": true}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := prefix + key.Value
		there[key.Value] = true
		var below rule
		if err := json.Unmarshal(schema.Properties[key.Value], &below); err != nil {
			t.Errorf("the schema does not know %s (%v)", name, err)
			continue
		}
		comment := strings.Join(strings.Fields(strings.ReplaceAll(key.HeadComment, "#", " ")), " ")
		if comment == "" && value.Kind == yaml.MappingNode && len(below.Properties) > 0 {
			tabulate(t, w, name+".", value, below)
			continue
		}
		if comment == "" {
			t.Errorf("values.yaml does not say what %s is", name)
		}
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", name, defaultOf(t, value), strings.ReplaceAll(comment, "|", `\|`))
	}
	for key := range schema.Properties {
		if !there[key] {
			t.Errorf("the schema has %s%s, and values.yaml does not", prefix, key)
		}
	}
}

// defaultOf is a value as it is written on one line.
func defaultOf(t *testing.T, node *yaml.Node) string {
	t.Helper()
	if node.Kind == yaml.ScalarNode && node.Value == "" {
		return ""
	}
	var v any
	if err := node.Decode(&v); err != nil {
		t.Fatal(err)
	}
	if text, ok := v.(string); ok {
		return "`" + text + "`"
	}
	line, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return "`" + string(line) + "`"
}
