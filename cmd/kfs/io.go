package main

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/artifact"
	"github.com/kfs-project/kfs/internal/launch"
)

// newIO returns what the sidecar kfs-io of a step's pod runs. It is not for
// people.
func newIO() *cobra.Command {
	cfg := launch.Config{Open: artifact.Open}
	cmd := &cobra.Command{
		Use:    "io",
		Short:  "Bring the outputs of a step out of its pod",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			cfg.Log = cmd.OutOrStdout()
			return launch.Serve(ctx, cfg)
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "prepare",
		Short: "Bring the files that a step takes into its pod",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return launch.Prepare(cmd.Context(), cfg) },
	})
	return cmd
}
