// Command larder keeps container images near the nodes that run them: a mirror on
// each node (larder mirror), a registry and an admission webhook for the cluster
// (larder central), and what sets nodes up and looks after them.
//
// One file holds each subcommand: mirror.go, init.go, policy_try.go. node.go puts
// the mirror's parts together and serve.go runs them; central.go does both for the
// services in central_registry.go and central_webhook.go. status_*.go is what they
// say of themselves. Only this command reads flags and the environment, sets up
// logging and exits; what the parts do is in the packages mirror, central,
// nodeconfig and store, and below internal.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
