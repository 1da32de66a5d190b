package main

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/backend/accel"
	"github.com/kfs-project/kfs/backend/argo"
	"github.com/kfs-project/kfs/backend/k8s"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/images"
	"github.com/kfs-project/kfs/internal/spell"
)

// A target writes pipelines as manifests.
type target struct {
	name, doc string

	// check reports what the target cannot say of a valid pipeline, as a
	// dag.Errors; warnings are about what is probably not meant; write writes
	// it, where file is the name of the output.
	check    func(p *dag.Pipeline, opts compileOptions) error
	warnings func(p *dag.Pipeline, opts compileOptions) dag.Errors
	write    func(p *dag.Pipeline, opts compileOptions, file string) ([]byte, error)
}

// compileOptions are what the targets know beside the pipeline.
type compileOptions struct {
	argo.Options
	runName string // "" is the pipeline's
	cluster k8s.Options
}

// stepsTarget is the target that is written by the options of a run.
const stepsTarget = "steps"

// targets are the values of --target.
var targets = []*target{
	{"argo", "the Argo Workflow that KFP 1.8.22 would write", checkArgo, warnArgo, compileArgo},
	{stepsTarget, "the pods that kfs run would make in a cluster", checkSteps, warnProfile, compileSteps},
	{"json", "the pipeline itself as JSON", checkJSON, warnProfile, compileJSON},
}

// clusterFlags say what is known of the cluster that a manifest is for.
type clusterFlags struct {
	accelProfile string
}

func (f *clusterFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.accelProfile, "accel-profile", "", "whose labels the nodes with accelerators have: "+strings.Join(accel.Profiles(), ", ")+" (default: those of each vendor)")
}

func (f *clusterFlags) profile() (accel.Profile, error) {
	profile, err := accel.ParseProfile(f.accelProfile)
	if err != nil {
		return "", fmt.Errorf("--accel-profile: %w", err)
	}
	return profile, nil
}

func newCompile() *cobra.Command {
	var script scriptFlags
	var values valueFlags
	var targetName, out string
	var cluster runFlags
	var runName string
	cmd := &cobra.Command{
		Use:   "compile FILE",
		Short: "Write a pipeline as a manifest",
		Long: `Compile evaluates a script and writes its pipeline as a manifest. Equal input
gives equal bytes. A file ending in .tar.gz, .tgz or .zip holds pipeline.yaml,
as KFP takes it. The time of compilation is noted only if SOURCE_DATE_EPOCH
gives one.`,
		Example: `  kfs compile mnist.star
  kfs compile mnist.star -o mnist.tar.gz --set platform=onprem
  kfs compile mnist.star --target steps --run-name review
  kfs compile mnist.star --target json`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findTarget(targetName)
			if err != nil {
				return err
			}
			profile, err := cluster.profile.profile()
			if err != nil {
				return err
			}
			given, err := values.values()
			if err != nil {
				return err
			}
			mapped, err := values.imageMap()
			if err != nil {
				return err
			}
			date, err := sourceDate()
			if err != nil {
				return err
			}
			p, s, err := script.load(cmd.Context(), cmd.ErrOrStderr(), args[0])
			if err != nil {
				return err
			}
			params, err := p.CheckArgs(given)
			if err != nil {
				return script.wrap(s, args[0], err)
			}
			opts := compileOptions{Options: argo.Options{Params: params, CompilationTime: date, Image: mirror(mapped), Profile: profile}}
			project, err := readProject(script.rootOf(args[0]))
			if err != nil {
				return err
			}
			if flag := cluster.changed(cmd); flag != "" && t.name != stepsTarget {
				return fmt.Errorf("--%s is an option of a run, which only --target %s shows", flag, stepsTarget)
			}
			if opts.cluster, err = cluster.options(project); err != nil {
				return err
			}
			opts.cluster.Images = mapped.Mirrors()
			opts.runName = runName
			if err := t.check(p, opts); err != nil {
				return script.wrap(s, args[0], err)
			}
			warn(cmd.ErrOrStderr(), script.rootOf(args[0]), t.warnings(p, opts))
			manifest, err := t.write(p, opts, out)
			if err != nil {
				return err
			}
			return output(cmd.OutOrStdout(), out, manifest)
		},
	}
	script.add(cmd)
	values.add(cmd)
	cluster.add(cmd)
	cmd.Flags().StringVar(&targetName, "target", targets[0].name, "what to write: "+targetDocs())
	cmd.Flags().StringVar(&runName, "run-name", "", "name of the run that the target steps shows (default: the pipeline's)")
	cmd.Flags().StringVarP(&out, "output", "o", "-", "`file` to write; - is standard output")
	return cmd
}

func checkArgo(p *dag.Pipeline, opts compileOptions) error { return argo.Check(p, opts.Options) }

func warnArgo(p *dag.Pipeline, opts compileOptions) dag.Errors { return argo.Warnings(p, opts.Options) }

func compileArgo(p *dag.Pipeline, opts compileOptions, file string) ([]byte, error) {
	manifest, err := argo.Compile(p, opts.Options)
	if err != nil {
		return nil, err
	}
	return argo.Archive(file, manifest)
}

func checkSteps(p *dag.Pipeline, opts compileOptions) error {
	_, err := compileSteps(p, opts, "")
	return err
}

func compileSteps(p *dag.Pipeline, opts compileOptions, file string) ([]byte, error) {
	if err := noArchive(file); err != nil {
		return nil, err
	}
	p, err := accel.Place(p, opts.Profile)
	if err != nil {
		return nil, err
	}
	name := cmp.Or(opts.runName, dag.K8sName(p.Name))
	return k8s.Preview(p, engine.RunInfo{ID: name, Name: name, Args: opts.Params}, opts.cluster)
}

// checkJSON finds what no target at all could give.
func checkJSON(p *dag.Pipeline, _ compileOptions) error { return accel.Check(p) }

func warnProfile(p *dag.Pipeline, opts compileOptions) dag.Errors {
	return accel.Warnings(p, opts.Profile)
}

func compileJSON(p *dag.Pipeline, _ compileOptions, file string) ([]byte, error) {
	if err := noArchive(file); err != nil {
		return nil, err
	}
	return p.JSON()
}

func noArchive(file string) error {
	if argo.IsArchive(file) {
		return fmt.Errorf("-o %s: an archive holds a Workflow: want --target argo, or a file of another ending", file)
	}
	return nil
}

func findTarget(name string) (*target, error) {
	var names []string
	for _, t := range targets {
		if t.name == name {
			return t, nil
		}
		names = append(names, t.name)
	}
	hint := spell.DidYouMean(name, names)
	if hint == "" {
		hint = "want " + targetDocs()
	}
	return nil, fmt.Errorf("no target is named %q: %s", name, hint)
}

func targetDocs() string {
	docs := ""
	for i, t := range targets {
		if i > 0 {
			docs += "; "
		}
		docs += t.name + ", " + t.doc
	}
	return docs
}

// mirror returns the function that replaces images by other images. Commands
// stand in for images only on this machine.
func mirror(m *images.Map) func(string) string {
	if m == nil {
		return nil
	}
	return func(image string) string {
		if t, ok := m.Resolve(image); ok && t.Image != "" {
			return t.Image
		}
		return image
	}
}

// sourceDate returns the time that SOURCE_DATE_EPOCH gives, or zero. The
// source is reproducible-builds.org/specs/source-date-epoch.
func sourceDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", text)
	}
	return time.Unix(seconds, 0), nil
}

// oneFile is the arguments of a command on a script.
func oneFile(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 1:
		return nil
	case 0:
		return fmt.Errorf("%s: want a script, as in\n%s", cmd.Name(), cmd.Example)
	}
	return fmt.Errorf("%s: want one script, got %d: %q", cmd.Name(), len(args), args)
}
