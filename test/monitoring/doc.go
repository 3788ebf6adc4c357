// Package monitoring holds what operators look at to what the processes show: the
// table of metrics in docs/monitoring.md, the dashboard and the alert rules in
// manifests/chart/monitoring, and the traces.
//
// world_test.go starts what there is in a cluster, each as the program it is:
// mirrors, central registries, webhooks, upstreams that misbehave, and Debian's
// Prometheus, which scrapes them and evaluates the rules. traffic_test.go has
// everything happen to them that a panel or a rule is about. Then
// metrics_test.go compares the pages they serve with the table, dashboard_test.go
// asks Prometheus for every panel, and alerts_test.go for the state of every
// rule. rules.yaml has those rules on series made up for them, for promtool.
// traces_test.go has a collector, which reads spans with OpenTelemetry's own
// definition of them.
//
// The package has tests only. The script named run installs what they need.
// Nothing leaves loopback.
package monitoring
