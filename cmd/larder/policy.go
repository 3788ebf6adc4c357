package main

import (
	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/internal/policy"
)

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Try the image policy, or render it for the API server",
	}
	needCommand(cmd)
	cmd.AddCommand(newPolicyTest(), newPolicyRender())
	return cmd
}

// loadPolicy reads the section image_validation of a configuration file.
func loadPolicy(cmd *cobra.Command, file string) (*policy.Policy, error) {
	if file == "" {
		return nil, usageErrorf("--config is needed: the file whose image_validation is meant")
	}
	cfg, warnings, err := loadConfig(file)
	warn(cmd.ErrOrStderr(), warnings)
	if err != nil {
		return nil, err
	}
	if cfg.ImageValidation == nil {
		return nil, usageErrorf("%s has no image_validation", file)
	}
	return policy.New(*cfg.ImageValidation)
}
