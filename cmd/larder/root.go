package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/internal/config"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // also a configuration that cannot be used
)

// errInterrupted ends a command that a signal kept from doing what it was asked.
var errInterrupted = errors.New("interrupted")

// usageError is a mistake in how larder was called.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usageErrorf(format string, args ...any) error {
	return usageError{fmt.Sprintf(format, args...)}
}

// run is main without the process: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	// Cobra's own errors (an unknown flag, too many arguments) come before
	// any command starts, and carry no type of their own.
	started := false
	root := newRoot()
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	if problems, ok := errors.AsType[config.Problems](err); ok {
		fmt.Fprintln(stderr, problems)
		return exitUsage
	}
	fmt.Fprintf(stderr, "larder: %v\n", err)
	if _, usage := errors.AsType[usageError](err); usage || !started {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "larder",
		Short: "Keeps container images near the nodes that run them",
		Long: `Larder keeps container images near the nodes that run them.

A node with Larder is never worse off than a node without it: when the mirror
cannot answer, it says so at once and the container runtime goes upstream.

Exit codes: 0 ok, 1 failed, 2 usage or configuration.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	needCommand(root)
	root.SetHelpCommand(newHelp())
	root.AddCommand(newMirror(), newCentral(), newInit(), newDoctor(), newPull(), newStatus(), newPolicy(), newConfig(), newVersion())
	return root
}

// newHelp makes larder help COMMAND, which is larder COMMAND --help. Cobra's own
// shows all there is for a command it does not know, and succeeds.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usageErrorf("there is no command %q", strings.Join(args, " "))
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// needCommand makes a call without a subcommand, or with an unknown one, an
// error instead of a page of help and success.
func needCommand(cmd *cobra.Command) {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(*cobra.Command, []string) error {
		return usageErrorf("a command is needed")
	}
}
