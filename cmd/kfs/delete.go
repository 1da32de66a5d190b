package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/backend/k8s"
)

func newDelete() *cobra.Command {
	var kube kubeFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "delete RUN",
		Short: "Delete a run of the cluster, and all that is left of it",
		Long: `Delete lets the pods of a run go, and deletes its state and its pods. Objects
that a resource_op has made stay, unless the script gives them to the run. A run
that a kfs drives is not deleted without --force.`,
		Example: `  kfs delete mnist-x7k2q -n ml`,
		Args:    oneRun,
		RunE: func(cmd *cobra.Command, args []string) error {
			project, err := readProject(".")
			if err != nil {
				return err
			}
			cluster, err := kube.cluster(project)
			if err != nil {
				return err
			}
			cluster.Notice = func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) }
			if err := k8s.Delete(cmd.Context(), cluster, args[0], force); err != nil {
				return clusterError(err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "run %s deleted\n", args[0])
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "delete it even if a kfs drives it, which then ends")
	kube.add(cmd)
	return cmd
}
