package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/backend/k8s"
)

func newResume() *cobra.Command {
	var kube kubeFlags
	var parallelism int
	cmd := &cobra.Command{
		Use:   "resume RUN",
		Short: "Carry a run on that has no driver",
		Long: `Resume carries on a run of the cluster whose kfs has left it or died. What has
ended stays as it is, what runs is watched, and the rest is started. If another
kfs drives the run, its place is told and the exit status is 4.`,
		Example: `  kfs resume mnist-x7k2q -n ml`,
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
			run, err := k8s.Open(cmd.Context(), cluster, args[0])
			if err != nil {
				return clusterError(err)
			}
			if !cmd.Flags().Changed("parallelism") {
				parallelism = run.Options().Parallelism
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "run %s in %s\n", args[0], where(cluster))
			r := clusterRun{cmd: cmd, run: run, cluster: cluster, parallelism: parallelism}
			return r.drive(cmd.Context())
		},
	}
	cmd.Flags().IntVar(&parallelism, "parallelism", 0, "how many steps run at once; 0 is no limit (default: as the run was begun)")
	kube.add(cmd)
	return cmd
}

// oneRun is the arguments of a command on a run.
func oneRun(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: want the name of one run, as in\n%s", cmd.Name(), cmd.Example)
	}
	return nil
}
