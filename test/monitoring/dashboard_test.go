package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/larder-registry/larder/test/process"
)

const dashboardFile = "../../manifests/chart/monitoring/larder-dashboard.json"

// dashboard is what matters here of Grafana's model of one.
type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type, Definition string
			AllValue               string
			Datasource             struct{ UID string }
		}
	}
	Panels []panel
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               struct{ UID string }
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct {
		RefID, Expr, LegendFormat string
		Datasource                struct{ UID string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	raw, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// filled puts what Grafana would in place of a dashboard's variables: all of
// them, and an interval that all of the traffic is in.
func filled(expr string) string {
	return strings.NewReplacer("$__rate_interval", "15m", "$job", ".*", "$node", ".*", "$registry", ".*").Replace(expr)
}

// TestDashboardIsWellMade looks at the file alone.
func TestDashboardIsWellMade(t *testing.T) {
	d := readDashboard(t)
	if d.UID != "larder" || d.Title == "" || d.SchemaVersion < 39 {
		t.Errorf("uid %q, title %q, schema version %d", d.UID, d.Title, d.SchemaVersion)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Type+" "+v.Name)
		if v.Type == "query" && (v.AllValue != ".*" || v.Datasource.UID != "${datasource}" || !strings.HasPrefix(v.Definition, "label_values(")) {
			t.Errorf("variable %s is %+v", v.Name, v)
		}
	}
	for _, want := range []string{"datasource datasource", "query job", "query node", "query registry"} {
		if !slices.Contains(variables, want) {
			t.Errorf("there is no variable %s", want)
		}
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("id %d is there twice", p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Errorf("%s lies on %q or beside the page", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("panel %d %q lacks a title, a description, a unit, a query or the datasource", p.ID, p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || target.LegendFormat == "" {
				t.Errorf("%s, %s: datasource %q, legend %q", p.Title, target.RefID, target.Datasource.UID, target.LegendFormat)
			}
			if left := filled(target.Expr); strings.Contains(left, "$") {
				t.Errorf("%s: a variable nobody fills: %s", p.Title, left)
			}
		}
	}
}

// quiet are the queries that may come to nothing but zeros here: what they count
// is not had without an API server.
var quiet = []string{
	"larder_webhook_handshakes_refused_total",
}

// testDashboard evaluates every query of every panel: each has to have an answer
// that is more than zero.
func testDashboard(t *testing.T, w *world) {
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			t.Run(p.Title+"/"+target.RefID, func(t *testing.T) {
				expr := filled(target.Expr)
				answered := w.answered(t, expr, func(s sample) bool {
					return s.value() != "0" && s.value() != "NaN" || slices.ContainsFunc(quiet, func(q string) bool { return strings.Contains(expr, q) })
				})
				for _, label := range legendLabels(target.LegendFormat) {
					for _, s := range answered {
						// What is no review has no resource, and what broke no rule no mode.
						if s.Metric[label] == "" && !strings.Contains(expr, "larder_admission_reviews_total") {
							t.Errorf("the legend names %s, and a series has none: %v", label, s.Metric)
						}
					}
				}
			})
		}
	}
}

// answered evaluates an expression until one of its samples is wanted.
func (w *world) answered(t *testing.T, expr string, wanted func(sample) bool) (answer []sample) {
	t.Helper()
	process.Await(t, "an answer to "+expr, func(context.Context) error {
		var err error
		if answer, err = w.query(t, expr); err == nil && !slices.ContainsFunc(answer, wanted) {
			err = fmt.Errorf("it is %v", answer)
		}
		return err
	})
	return answer
}

// legendLabels are the labels that a legend names: "{{registry}} {{code}}".
func legendLabels(format string) (labels []string) {
	for part := range strings.SplitSeq(format, "{{") {
		if label, _, ok := strings.Cut(part, "}}"); ok {
			labels = append(labels, label)
		}
	}
	return labels
}

// testNames refuses expressions, of panels and of rules, with a metric or a label
// that no process shows.
func testNames(t *testing.T, w *world) {
	known := map[string][]string{"up": {}}
	for _, l := range []*larder{w.mirror, w.central, w.webhooks[0]} {
		for name, f := range families(t, l.metrics(t)) {
			for _, m := range f.GetMetric() {
				for _, label := range m.GetLabel() {
					known[name] = append(known[name], label.GetName())
				}
			}
			known[name] = append(known[name], "")
			if f.GetType() == dto.MetricType_HISTOGRAM {
				known[name+"_bucket"] = append(known[name], "le")
				known[name+"_sum"], known[name+"_count"] = known[name], known[name]
			}
		}
	}
	exprs := map[string]string{}
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			exprs[p.Title+"/"+target.RefID] = filled(target.Expr)
		}
	}
	for _, r := range readRules(t) {
		exprs[r.Alert] = r.Expr
	}
	if len(exprs) < 50 {
		t.Errorf("there are %d expressions", len(exprs))
	}
	for where, expr := range exprs {
		checkNames(t, where, expr, known)
	}
}

// checkNames looks at every selector and every grouping of an expression.
func checkNames(t *testing.T, where, expr string, known map[string][]string) {
	t.Helper()
	parsed, err := parser.ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	targets := []string{"job", "instance", "__name__"}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		var labels []string
		under := node
		switch n := node.(type) {
		case *parser.VectorSelector:
			if known[n.Name] == nil {
				t.Errorf("%s: nobody shows %s", where, n.Name)
			}
			for _, m := range n.LabelMatchers {
				labels = append(labels, m.Name)
			}
		case *parser.AggregateExpr:
			labels = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				labels = n.VectorMatching.MatchingLabels
			}
		default:
			return nil
		}
		for _, label := range labels {
			if !slices.Contains(targets, label) && !selects(under, label, known) {
				t.Errorf("%s: nothing in %s has the label %s", where, under, label)
			}
		}
		return nil
	})
}

// selects reports whether a metric in the expression has the label.
func selects(node parser.Node, label string, known map[string][]string) bool {
	found := false
	parser.Inspect(node, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok && slices.Contains(known[v.Name], label) {
			found = true
		}
		return nil
	})
	return found
}
