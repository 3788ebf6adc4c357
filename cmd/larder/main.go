// Command larder keeps container images near the nodes that run them. This
// build has the node mirror (larder mirror), a pull-through caching registry.
//
// One file holds each subcommand: mirror.go, config.go, version.go. node.go puts
// the mirror's parts together, serve.go runs them and takes them apart again.
// Only this command reads flags and the environment, sets up logging and exits;
// what the parts do is in package mirror, package store and below internal.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
