package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/test/cluster/cluster"
	"github.com/kfs-project/kfs/test/cluster/parts"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// This file holds the commands that show a cluster.

func statusCommand(o *options) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the parts of a cluster and where it is reached; status 1 if one is missing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			switch output {
			case "json":
				err = json.NewEncoder(o.stdout).Encode(s)
			case "":
				err = printStatus(o.stdout, c, s)
			default:
				err = fmt.Errorf("output %q: want json, or nothing for a table", output)
			}
			return errors.Join(err, missing(s))
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table if empty")
	return cmd
}

// missing is an error if the cluster is not up as a whole.
func missing(s supervisor.Status) error {
	var errs []error
	if !s.Ready {
		errs = append(errs, errors.New("it is still being brought up"))
	}
	for _, p := range s.Parts {
		if p.State != supervisor.Running {
			errs = append(errs, fmt.Errorf("%s is %s", p.Name, p.State))
		}
	}
	return errors.Join(errs...)
}

func printStatus(out io.Writer, c *cluster.Cluster, s supervisor.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PART\tVERSION\tSTATE\tPID\tAGE\tMEMORY")
	versions := versions()
	for _, p := range s.Parts {
		state := p.State
		if p.How != "" {
			state += " (" + p.How + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%v\t%d MiB\n", p.Name, versions[p.Name], state, p.PID,
			time.Since(p.Started).Round(time.Second), p.Memory>>20)
	}
	fmt.Fprintf(w, "\nAPI server\thttps://127.0.0.1:%d\n", c.Spec.Ports.API)
	fmt.Fprintf(w, "with faults\thttps://127.0.0.1:%d\n", c.Spec.Ports.Faults)
	fmt.Fprintf(w, "registry\t%s, for who logs in %s\n", c.Registry(), c.PrivateRegistry())
	fmt.Fprintf(w, "object store\t%s, for pods http://%s\n", c.S3(), supervisor.S3Endpoint)
	fmt.Fprintf(w, "enter it\tnsenter -t %d -a\n", c.PID())
	return w.Flush()
}

// versions are the versions of the parts' programs, by program.
func versions() map[string]string {
	out := map[string]string{}
	for _, p := range parts.All() {
		for program := range p.Programs {
			out[program] = p.Version
		}
	}
	return out
}

func envCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "env",
		Short:   "Print shell lines that point kubectl, and tests, at a cluster",
		Example: `  eval "$(cluster env)"`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			for _, v := range variables(c) {
				fmt.Fprintf(o.stdout, "export %s=%s\n", v.name, quote(v.value))
			}
			fmt.Fprintf(o.stdout, "export PATH=%s:\"$PATH\"\n", quote(c.Spec.Programs.PATH()))
			return nil
		},
	}
}

type variable struct{ name, value string }

// variables are what tests are told of a cluster, besides PATH.
func variables(c *cluster.Cluster) []variable {
	return []variable{
		{"KUBECONFIG", c.Kubeconfig()},
		{"KFS_CLUSTER", c.Spec.Name},
		{"KFS_CLUSTER_DIR", filepath.Dir(c.Spec.Dir)},
		{"KFS_FAULTS_KUBECONFIG", c.FaultsKubeconfig()},
		{"KFS_REGISTRY", c.Registry()},
		{"KFS_PRIVATE_REGISTRY", c.PrivateRegistry()},
		{"KFS_PRIVATE_REGISTRY_USER", c.Spec.PullLogin.User},
		{"KFS_PRIVATE_REGISTRY_PASSWORD", c.Spec.PullLogin.Password},
		{"KFS_S3_IN_CLUSTER", "http://" + supervisor.S3Endpoint},
		{"AWS_ENDPOINT_URL", c.S3()},
		{"AWS_ACCESS_KEY_ID", c.Spec.Access.User},
		{"AWS_SECRET_ACCESS_KEY", c.Spec.Access.Password},
		{"AWS_REGION", "us-east-1"},
	}
}

// quote makes text one word of a POSIX shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func logsCommand(o *options) *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:   "logs [PART...]",
		Short: "Print the logs of parts, of all if none is named",
		Long:  "Print the logs of parts, of all if none is named.\n\nThe parts are " + strings.Join(logNames(), ", ") + ".",
		Args:  cobra.OnlyValidArgs, ValidArgs: logNames(),
		RunE: func(cmd *cobra.Command, names []string) error {
			dir, err := cluster.StateDir(o.dir, o.name) // of one that has crashed too
			if err != nil {
				return err
			}
			prefix := func(name string) string { return name + " | " }
			if len(names) == 1 {
				prefix = func(string) string { return "" }
			}
			if len(names) == 0 {
				names = logNames()
			}
			f := follower{out: o.stdout, last: lines}
			for _, name := range names {
				f.files = append(f.files, &logFile{path: supervisor.LogFile(dir, name), prefix: prefix(name)})
			}
			return f.print(cmd.Context(), follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on")
	cmd.Flags().IntVar(&lines, "tail", 0, "only so many lines of each; 0 prints all")
	return cmd
}

// logNames are the names of the logs: of the parts and of the supervisor.
func logNames() []string { return append(supervisor.PartNames(), "supervisor") }

// A follower prints files that grow.
type follower struct {
	files []*logFile
	last  int // lines of each to begin with; 0 means all
	out   io.Writer
}

// A logFile is how far a file has been printed.
type logFile struct {
	path, prefix string
	offset       int64
}

// print prints the files, and what is added to them until ctx ends.
func (f *follower) print(ctx context.Context, follow bool) error {
	for first := true; ; first = false {
		for _, file := range f.files {
			lines, err := file.read()
			if err != nil {
				return err
			}
			if first && f.last > 0 {
				lines = lines[max(0, len(lines)-f.last):]
			}
			for _, line := range lines {
				fmt.Fprintln(f.out, file.prefix+line)
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// read returns the whole lines that were added since the last read. A part
// that never started has no file, and no lines.
func (l *logFile) read() ([]string, error) {
	f, err := os.Open(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, l.offset, 1<<62))
	if err != nil {
		return nil, err
	}
	end := strings.LastIndexByte(string(data), '\n')
	if end < 0 {
		return nil, nil
	}
	l.offset += int64(end) + 1
	return strings.Split(string(data[:end]), "\n"), nil
}
