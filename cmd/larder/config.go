package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/internal/config"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or print the configuration",
	}
	needCommand(cmd)
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check FILE",
			Short: "Report every mistake in a configuration file",
			Long: `Reads a configuration file and the files it names, and reports every mistake
with its file, line, key and fix. Contacts nobody.

Exit codes: 0 the file can be used (warnings may be printed), 2 it cannot.`,
			Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				_, warnings, err := readConfig(args[0])
				warn(cmd.ErrOrStderr(), warnings)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
				return err
			},
		},
		&cobra.Command{
			Use:   "print [FILE]",
			Short: "Print what is in force, defaults included, secrets masked",
			Long: `Prints the configuration that is in force with FILE, or without any file, as
YAML: every key, defaults included, passwords masked.`,
			Args: cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if len(args) == 0 {
					return config.Default().Print(cmd.OutOrStdout())
				}
				cfg, warnings, err := readConfig(args[0])
				warn(cmd.ErrOrStderr(), warnings)
				if err != nil {
					return err
				}
				return cfg.Print(cmd.OutOrStdout())
			},
		},
	)
	return cmd
}

// loadConfig reads file, or takes the defaults when it is empty.
func loadConfig(file string) (cfg *config.Config, warnings []config.Problem, err error) {
	if file == "" {
		return config.Default(), nil, nil
	}
	return readConfig(file)
}

// readConfig reads file. One that is not there is a mistake in how larder was
// called.
func readConfig(file string) (cfg *config.Config, warnings []config.Problem, err error) {
	cfg, warnings, err = config.Load(file)
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		err = usageErrorf("%v", err)
	}
	return cfg, warnings, err
}

func warn(w io.Writer, warnings []config.Problem) {
	for _, warning := range warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
}
