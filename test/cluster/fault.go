package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kfs-project/kfs/test/cluster/cluster"
	"github.com/kfs-project/kfs/test/cluster/faultproxy"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// This file holds the commands that break a cluster, and those of its fake
// nodes.

func faultCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fault",
		Short: "Break a cluster, and mend it",
		Example: `  cluster fault freeze kube-apiserver; sleep 60; cluster fault thaw kube-apiserver
  cluster fault restart etcd
  cluster fault rule --verb create --path '/pods$' --status 429 --times 3
  cluster fault watches drop
  cluster fault evict default/train-0`,
	}
	for verb, short := range map[string]string{
		"stop":    "End a part in an orderly way",
		"kill":    "End a part as a crash does",
		"start":   "Start a part that was stopped",
		"restart": "Kill a part and start it again",
		"freeze":  "Stop a part by SIGSTOP: it keeps its connections and answers nothing",
		"thaw":    "Let a frozen part go on",
	} {
		cmd.AddCommand(&cobra.Command{
			Use: verb + " PART", Short: short,
			Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), ValidArgs: supervisor.PartNames(),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := o.open()
				if err != nil {
					return err
				}
				return c.Act(cmd.Context(), args[0], verb)
			},
		})
	}
	cmd.AddCommand(ruleCommand(o), rulesCommand(o), clearCommand(o), watchesCommand(o), evictCommand(o), deletePodCommand(o), deleteNodeCommand(o), quotaCommand(o))
	return cmd
}

func ruleCommand(o *options) *cobra.Command {
	var r faultproxy.Rule
	var delay time.Duration
	cmd := &cobra.Command{
		Use:   "rule",
		Short: "Delay, fail, lose or hang requests that go by the fault proxy",
		Long: `Delay, fail, lose or hang requests that go by the fault proxy, which is the
server of the kubeconfig in KFS_FAULTS_KUBECONFIG. Prints the rule's ID.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			r.Delay = faultproxy.Duration(delay)
			added, err := c.Faults().Add(cmd.Context(), r)
			if err == nil {
				fmt.Fprintln(o.stdout, added.ID)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.Verb, "verb", "", "verbs of Kubernetes, as in create,update; all if empty")
	flags.StringVar(&r.Path, "path", "", "regular expression for the path of the URL; all if empty")
	flags.IntVar(&r.Skip, "skip", 0, "leave the first so many alone")
	flags.IntVar(&r.Times, "times", 0, "only so many; 0 is no limit")
	flags.DurationVar(&delay, "delay", 0, "wait before they go on")
	flags.IntVar(&r.Status, "status", 0, "answer with this status, such as 429 or 500")
	flags.StringVar(&r.Message, "message", "", "and with this message")
	flags.IntVar(&r.RetryAfter, "retry-after", 0, "and ask to wait so many seconds")
	flags.BoolVar(&r.Lose, "lose", false, "do it, but lose the answer")
	flags.BoolVar(&r.Hang, "hang", false, "never answer")
	return cmd
}

func rulesCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "rules",
		Short: "List the rules of the fault proxy and how often each was applied, as JSON",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			rules, err := c.Faults().Rules(cmd.Context())
			if err != nil {
				return err
			}
			return printJSON(o.stdout, rules)
		},
	}
}

func clearCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "clear [ID...]",
		Short: "Remove rules of the fault proxy, all if none is named",
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				return c.Faults().Clear(cmd.Context())
			}
			for _, id := range ids {
				if err := c.Faults().Remove(cmd.Context(), id); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func watchesCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "watches drop|expire",
		Short: "End all watches that go by the fault proxy: cut, or by the error 410 Expired",
		Args:  cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"drop", "expire"},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			end := c.Faults().DropWatches
			if args[0] == "expire" {
				end = c.Faults().ExpireWatches
			}
			n, err := end(cmd.Context())
			if err == nil {
				fmt.Fprintln(o.stdout, n, "watches ended")
			}
			return err
		},
	}
}

func evictCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "evict NAMESPACE/POD", Short: "Evict a pod, as draining its node does", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, namespace, pod, err := o.pod(args[0])
			if err != nil {
				return err
			}
			return cluster.Evict(cmd.Context(), client, namespace, pod)
		},
	}
}

func deletePodCommand(o *options) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "delete-pod NAMESPACE/POD", Short: "Delete a pod", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, namespace, pod, err := o.pod(args[0])
			if err != nil {
				return err
			}
			return cluster.DeletePod(cmd.Context(), client, namespace, pod, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "from the API server at once, while it may still run")
	return cmd
}

func deleteNodeCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "delete-node NODE", Short: "Delete a node, as a cloud does that took its machine away", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			return cluster.DeleteNode(cmd.Context(), client, args[0])
		},
	}
}

func quotaCommand(o *options) *cobra.Command {
	var free int
	cmd := &cobra.Command{
		Use: "fill-quota NAMESPACE", Short: "Let a namespace have no more pods than it has, by the quota " + cluster.QuotaName, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			return cluster.FillQuota(cmd.Context(), client, args[0], free)
		},
	}
	cmd.Flags().IntVar(&free, "free", 0, "but so many")
	return cmd
}

// client is a client of the cluster, as its administrator.
func (o *options) client() (kubernetes.Interface, error) {
	c, err := o.open()
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// pod takes NAMESPACE/POD apart.
func (o *options) pod(text string) (client kubernetes.Interface, namespace, name string, err error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok {
		return nil, "", "", fmt.Errorf("pod %q: want NAMESPACE/POD", text)
	}
	client, err = o.client()
	return client, namespace, name, err
}

func nodesCommand(o *options) *cobra.Command {
	var n nodeFlags
	var count int
	add := &cobra.Command{
		Use:     "add",
		Short:   "Add nodes without machines",
		Example: `  cluster nodes add --count 8 --prefix gpu --allocatable nvidia.com/gpu=8 --taint nvidia.com/gpu=present:NoSchedule`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := n.template()
			if err != nil {
				return err
			}
			c, err := o.open()
			if err != nil {
				return err
			}
			return c.AddFakeNodes(cmd.Context(), t, count)
		},
	}
	add.Flags().IntVar(&count, "count", 1, "how many")
	n.add(add.Flags(), "")
	cmd := &cobra.Command{Use: "nodes", Short: "Nodes without machines"}
	cmd.AddCommand(add)
	return cmd
}

func startsCommand(o *options) *cobra.Command {
	var list bool
	cmd := &cobra.Command{
		Use:   "starts",
		Short: "Show how often each pod was started on fake nodes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			starts, err := c.Starts(cmd.Context())
			if err != nil {
				return err
			}
			if list {
				return printJSON(o.stdout, starts)
			}
			counts := map[string]int{}
			for _, s := range starts {
				counts[s.Key]++
			}
			w := tabwriter.NewWriter(o.stdout, 0, 0, 2, ' ', 0)
			for _, key := range slices.Sorted(maps.Keys(counts)) {
				fmt.Fprintf(w, "%s\t%d\n", key, counts[key])
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&list, "list", false, "each start, as JSON")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
