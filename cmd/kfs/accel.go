package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/backend/accel"
)

func newAccel() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "accel",
		Short: "Show which accelerators there are names for",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "Show the names that accelerator(...) knows",
		Long: `List shows the hardware that accelerator(...), gpu(model = ...) and
mig(model = ...) know by name: the memory of a device as on the box, how many
are in the largest machine, the extended resource, and the profiles of MIG. The
vendor before a name can be left out.`,
		Example: `  kfs accel list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tMEMORY\tMOST\tRESOURCE\tPARTS")
			for _, m := range accel.Models() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", m.Name, known(m.MemoryGB, "G"), known(m.Most, ""), m.Resource, cmp.Or(strings.Join(m.Parts, " "), "-"))
			}
			return w.Flush()
		},
	})
	return cmd
}

// known is a number with its unit, or a hyphen for one that is not known.
func known(n int, unit string) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n) + unit
}
