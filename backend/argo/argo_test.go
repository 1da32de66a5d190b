package argo

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/backend/accel"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/yaml"
)

var update = flag.Bool("update", false, "write the golden files")

func param(name string) string { return dag.Ref{Kind: dag.RefParam, Name: name}.Token() }

func output(step, name string) string {
	return dag.Ref{Kind: dag.RefOutput, Step: step, Name: name}.Token()
}

func step(name string) *dag.Step {
	return &dag.Step{Name: name, Container: dag.Object{{Name: "image", Value: "i"}}}
}

// fit is a pipeline of two steps; eval takes a param and one of train's outputs.
func fit() *dag.Pipeline {
	p := &dag.Pipeline{Name: "Fit It", Description: "fits", Params: []*dag.Param{
		{Name: "steps", Type: "Integer", Description: "how many", Default: new("3"), Optional: true},
		{Name: "out", Default: new("s3://b/" + dag.Ref{Kind: dag.RefRunID}.Token()), Optional: true},
		{Name: "none", Optional: true},
		{Name: "must"},
	}}
	train, eval := step("train"), step("eval")
	train.Container.Set([]any{"--steps", param("steps")}, "args")
	train.Outputs = []dag.Output{{Name: "model", Path: "/tmp/m"}, {Name: "Acc", Path: "/tmp/a"}, {Name: "loss", Path: "/tmp/l"}}
	eval.Container.Set([]any{"--loss=" + output("train", "loss"), param("out"), output("train", "Acc"), param("out")}, "args")
	p.Steps = []*dag.Step{train, eval}
	return p
}

func TestCompile(t *testing.T) {
	p := fit()
	before, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Compile(p, Options{
		Params:          map[string]string{"steps": "7", "must": "x", "other": "y"},
		CompilationTime: time.Date(2026, 1, 2, 3, 4, 5, 6789, time.FixedZone("", 3600)),
		Image:           func(image string) string { return "mirror/" + image },
	})
	golden(t, "testdata/fit.yaml", got)
	if after, err := p.JSON(); err != nil || !bytes.Equal(before, after) {
		t.Errorf("Compile changed the pipeline to\n%s, %v\nwant\n%s", after, err, before)
	}
}

// golden compares what was got with the file.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s -want +got:\n%s", file, diff)
	}
}

// workflow returns the manifest of a pipeline that has one.
func workflow(p *dag.Pipeline, opts Options) dag.Object {
	w, err := Workflow(p, opts)
	if err != nil {
		panic(err)
	}
	return w
}

// part returns the value at the path of the template of the name, as YAML.
func part(p *dag.Pipeline, opts Options, template string, path ...string) string {
	for _, v := range workflow(p, opts).Get("spec", "templates").([]any) {
		if t := v.(dag.Object); t.Get("name") == template {
			return string(yaml.Append(nil, t.Get(path...)))
		}
	}
	return "no template " + template
}

func TestStep(t *testing.T) {
	quantity := func(s *dag.Step, kind, name, text string) { s.Container.Set(text, "resources", kind, name) }
	for _, tt := range []struct {
		name   string
		change func(s *dag.Step)
		path   []string
		want   string // null for nothing there
	}{
		{"no retry", func(s *dag.Step) {}, []string{"retryStrategy"}, "null\n"},
		{"retry number", func(s *dag.Step) { s.Retry = &dag.Retry{Limit: "3"} },
			[]string{"retryStrategy"}, "limit: 3\n"},
		{"retry token", func(s *dag.Step) { s.Retry = &dag.Retry{Limit: param("n"), Policy: "Always"} },
			[]string{"retryStrategy"}, "limit: '{{inputs.parameters.n}}'\nretryPolicy: Always\n"},
		{"retry zero", func(s *dag.Step) { s.Retry = &dag.Retry{Limit: "0"} },
			[]string{"retryStrategy"}, "null\n"},
		{"retry policy only", func(s *dag.Step) { s.Retry = &dag.Retry{Limit: "0", Policy: "OnError"} },
			[]string{"retryStrategy"}, "retryPolicy: OnError\n"},
		{"retry backoff", func(s *dag.Step) {
			s.Retry = &dag.Retry{Limit: "2", Backoff: "2m", Factor: "2", MaxBackoff: param("max")}
		}, []string{"retryStrategy"}, "limit: 2\nbackoff:\n  duration: '2m'\n  factor: 2\n  maxDuration: '{{inputs.parameters.max}}'\n"},
		{"retry factor", func(s *dag.Step) { s.Retry = &dag.Retry{Limit: "2", Backoff: "5", Factor: "2.0"} },
			[]string{"retryStrategy", "backoff", "factor"}, "2.0\n"},
		{"backoff without retries", func(s *dag.Step) { s.Retry = &dag.Retry{Limit: "0", Backoff: "2m", Factor: "2.0"} },
			[]string{"retryStrategy"}, "null\n"},

		{"no timeout", func(s *dag.Step) {}, []string{"activeDeadlineSeconds"}, "null\n"},
		{"timeout", func(s *dag.Step) { s.Timeout = "90" }, []string{"activeDeadlineSeconds"}, "90\n"},
		{"timeout token", func(s *dag.Step) { s.Timeout = param("n") },
			[]string{"activeDeadlineSeconds"}, "'{{inputs.parameters.n}}'\n"},

		{"run", func(s *dag.Step) {
			s.Container.Append("args", dag.Ref{Kind: dag.RefRunID}.Token()+"-"+dag.Ref{Kind: dag.RefRunName}.Token())
		}, []string{"container", "args"}, "- '{{workflow.uid}}-{{workflow.name}}'\n"},
		{"run is no input", func(s *dag.Step) { s.Container.Append("args", dag.Ref{Kind: dag.RefRunID}.Token()) },
			[]string{"inputs"}, "null\n"},
		{"inputs", func(s *dag.Step) { s.Container.Append("args", param("z")+param("a")+output("m", "My out")+param("z")) },
			[]string{"inputs", "parameters"}, "- name: a\n- name: m-My-out\n- name: z\n"},
		{"container", func(s *dag.Step) {
			s.Container.Set([]any{dag.Object{{Name: "value", Value: param("n")}, {Name: "name", Value: "V"}}}, "env")
			s.Container.Append("command", "run")
		}, []string{"container"}, "command:\n- run\nenv:\n- value: '{{inputs.parameters.n}}'\n  name: V\nimage: i\n"},
		{"volumes", func(s *dag.Step) {
			for _, name := range []string{"w", "v"} {
				s.Volumes = append(s.Volumes, dag.Object{{Name: "name", Value: name}, {Name: "secret", Value: dag.Object{{Name: "secretName", Value: param("n")}}}})
			}
		}, []string{"volumes"}, `- name: v
  secret:
    secretName: '{{inputs.parameters.n}}'
- name: w
  secret:
    secretName: '{{inputs.parameters.n}}'
`},

		{"fixed resources", func(s *dag.Step) {
			quantity(s, "requests", "cpu", "1")
			quantity(s, "limits", "memory", "1Gi")
		}, []string{"container", "resources"}, "limits:\n  memory: '1Gi'\nrequests:\n  cpu: '1'\n"},
		{"fixed resources have no patch", func(s *dag.Step) { quantity(s, "limits", "cpu", "1") }, []string{"podSpecPatch"}, "null\n"},
		{"run-time resources", func(s *dag.Step) {
			quantity(s, "requests", "memory", param("m"))
			quantity(s, "limits", "nvidia.com/gpu", param("g"))
		}, []string{"podSpecPatch"}, `'{"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "{{inputs.parameters.g}}"}, ` +
			`"requests": {"memory": "{{inputs.parameters.m}}"}}}]}'` + "\n"},
		{"run-time resources leave none", func(s *dag.Step) { quantity(s, "limits", "cpu", param("n")) },
			[]string{"container"}, "image: i\nresources: {}\n"},
		{"run-time resources are inputs", func(s *dag.Step) { quantity(s, "limits", "cpu", param("n")) },
			[]string{"inputs", "parameters"}, "- name: 'n'\n"},
		{"fixed beside run-time resources", func(s *dag.Step) {
			quantity(s, "limits", "cpu", param("n"))
			quantity(s, "limits", "memory", "1Gi")
			quantity(s, "requests", "cpu", "1")
		}, []string{"container", "resources"}, "limits:\n  memory: '1Gi'\nrequests:\n  cpu: '1'\n"},
		{"run-time resource that KFP leaves", func(s *dag.Step) { quantity(s, "limits", "example.com/fpga", param("n")) },
			[]string{"container", "resources"}, "limits:\n  example.com/fpga: '{{inputs.parameters.n}}'\n"},
		{"resource that only the run will name", func(s *dag.Step) { quantity(s, "limits", param("r"), param("n")) },
			[]string{"podSpecPatch"}, `'{"containers": [{"name": "main", "resources": {"limits": {"{{inputs.parameters.r}}": "{{inputs.parameters.n}}"}}}]}'` + "\n"},
		{"claims", func(s *dag.Step) {
			quantity(s, "limits", "cpu", "1")
			s.Container.Set([]any{dag.Object{{Name: "name", Value: "c"}}}, "resources", "claims")
		}, []string{"container", "resources"}, "limits:\n  cpu: '1'\nclaims:\n- name: c\n"},
	} {
		s := step("a")
		tt.change(s)
		before, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{s}}
		if got := part(p, Options{}, "a", tt.path...); got != tt.want {
			t.Errorf("%s: %s is\n%s\nwant\n%s", tt.name, strings.Join(tt.path, "."), got, tt.want)
		}
		if after, _ := json.Marshal(s); !bytes.Equal(before, after) {
			t.Errorf("%s: Workflow changed the step to\n%s\nwant\n%s", tt.name, after, before)
		}
	}
}

// TestAside shows that a file which no step can use is an artifact under its
// own name, before those of the step's outputs.
func TestAside(t *testing.T) {
	s := step("a")
	s.Outputs = []dag.Output{{Name: "x", Path: "/x"}, {Name: "report", Path: "/r.html", Aside: true}}
	p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{s}}
	want := "artifacts:\n- name: report\n  path: /r.html\n- name: a-x\n  path: /x\n"
	if got := part(p, Options{}, "a", "outputs"); got != want {
		t.Errorf("outputs are\n%s\nwant\n%s", got, want)
	}
}

func TestEntrypoint(t *testing.T) {
	for _, tt := range []struct {
		steps, want string
	}{
		{"a", "fit-it"},
		{"fit-it", "fit-it-2"},
		{"fit-it-2 fit-it", "fit-it-3"},
		{"fit-it-2", "fit-it"},
	} {
		p := &dag.Pipeline{Name: "Fit It"}
		for name := range strings.FieldsSeq(tt.steps) {
			p.Steps = append(p.Steps, step(name))
		}
		w := workflow(p, Options{})
		if got := w.Get("spec", "entrypoint"); got != tt.want {
			t.Errorf("entrypoint with steps %s = %v; want %s", tt.steps, got, tt.want)
		}
		if got := w.Get("metadata", "generateName"); got != tt.want+"-" {
			t.Errorf("generateName with steps %s = %v; want %s-", tt.steps, got, tt.want)
		}
		if got := part(p, Options{}, tt.want, "dag"); got == "null\n" {
			t.Errorf("steps %s: template %s is not the graph", tt.steps, tt.want)
		}
	}
}

func TestOptionsImage(t *testing.T) {
	var asked []string
	p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{step("a"), step("b")}}
	p.Steps[1].Container.Set("j:"+param("v"), "image")
	opts := Options{Image: func(image string) string {
		asked = append(asked, dag.Display(image))
		return "x/" + image
	}}
	if got, want := part(p, opts, "b", "container", "image"), "x/j:{{inputs.parameters.v}}\n"; got != want {
		t.Errorf("image %s; want %s", got, want)
	}
	if want := []string{"i", "j:<v>"}; !slices.Equal(asked, want) {
		t.Errorf("asked for images %q; want %q", asked, want)
	}
}

func TestArchive(t *testing.T) {
	manifest := bytes.Repeat([]byte("a: b\n"), 1000)
	for _, tt := range []struct {
		name string
		read func(t *testing.T, data []byte) (members []string, at time.Time, content []byte)
	}{
		{"p.yaml", nil}, {"p", nil}, {"zip", nil}, {"p.tar.gz", readTar}, {"dir/p.v1.tgz", readTar}, {"p.zip", readZip},
	} {
		data, err := Archive(tt.name, manifest)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Archive(tt.name, manifest); err != nil || !bytes.Equal(data, again) {
			t.Errorf("Archive(%q) twice gives other bytes, %v", tt.name, err)
		}
		if tt.read == nil {
			if !bytes.Equal(data, manifest) {
				t.Errorf("Archive(%q) is not the manifest", tt.name)
			}
			continue
		}
		members, at, content := tt.read(t, data)
		if !slices.Equal(members, []string{"pipeline.yaml"}) || !bytes.Equal(content, manifest) || at.Year() > 1980 {
			t.Errorf("Archive(%q) holds %q of %v, manifest %t; want pipeline.yaml without a time, true",
				tt.name, members, at, bytes.Equal(content, manifest))
		}
	}
}

func readTar(t *testing.T, data []byte) (members []string, at time.Time, content []byte) {
	gz, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if !gz.ModTime.IsZero() {
		t.Errorf("gzip time %v; want none", gz.ModTime)
	}
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return members, at, content
		} else if err != nil {
			t.Fatal(err)
		}
		members, at = append(members, h.Name), h.ModTime
		if content, err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func readZip(t *testing.T, data []byte) (members []string, at time.Time, content []byte) {
	zr, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range zr.File {
		members, at = append(members, f.Name), f.Modified
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if content, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return members, at, content
}

// TestAccelerators shows that what a Workflow cannot ask for is an error, and
// that the profile of the cluster counts.
func TestAccelerators(t *testing.T) {
	s := step("train")
	s.Accelerator = &dag.Accelerator{Kind: "gpu", Count: 2, Pos: dag.Pos{File: "f", Line: 1, Col: 2}}
	p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{s}}
	err := Check(p, Options{})
	if manifest, compileErr := Compile(p, Options{}); err == nil || compileErr == nil || err.Error() != compileErr.Error() || manifest != nil {
		t.Errorf("Check = %v, Compile = %q, %v; want the same error twice", err, manifest, compileErr)
	}
	if faults := dag.Faults(err); len(faults) != 1 || faults[0].Pos != s.Accelerator.Pos {
		t.Errorf("Check = %v; want one fault at the accelerator", err)
	}
	if err := Check(p, Options{Profile: accel.GFD}); err != nil {
		t.Error(err)
	}
	if got, want := part(p, Options{Profile: accel.GFD}, "train", "container", "resources"), "limits:\n  nvidia.com/gpu: '2'\n"; got != want {
		t.Errorf("resources are\n%swant\n%s", got, want)
	}
	if got, want := part(p, Options{Profile: accel.AMDLabeller}, "train", "volumes"), "- emptyDir:\n    medium: Memory\n    sizeLimit: '4Gi'\n  name: shm\n"; got != want {
		t.Errorf("volumes are\n%swant\n%s", got, want)
	}
}

// TestWarnings shows that a placeholder for an input is right only if the
// template has the input.
func TestWarnings(t *testing.T) {
	s := step("s")
	s.Pos = dag.Pos{File: "p.star", Line: 1, Col: 2}
	s.Container.Set([]any{param("a"), "{{inputs.parameters.a}} {{ inputs.parameters.b }}", "{{inputs.artifacts.c.path}} {{workflow.uid}} {{b}}"}, "args")
	s.Artifacts = []dag.Artifact{{Name: "c", Path: "/c", Text: param("c")}}
	p := &dag.Pipeline{Name: "p", Params: []*dag.Param{{Name: "a"}, {Name: "b"}, {Name: "c"}}, Steps: []*dag.Step{s}}
	const want = `p.star:1:2: step "s", container.args[1]: {{ inputs.parameters.b }} names an input that the template will not have: Argo refuses such a Workflow`
	if got := Warnings(p, Options{}); len(got) != 1 || got[0].Error() != want {
		t.Errorf("got %v; want\n%s", got, want)
	}
}
