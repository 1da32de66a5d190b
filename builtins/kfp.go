package builtins

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/kube"
)

// This file defines the modules that a file loads by a name with an @: the
// words of the language in KFP's spelling, and under other names.

// Module returns what load(name, ...) gives a file for a name that begins with
// an @:
//
//	@kfp    dsl, components, gcp, aws, azure, onprem, k8s_client; what these
//	        hold; the types of Kubernetes (V1Toleration)
//	@kfs    every word of the language
func (s *Session) Module(name string) (starlark.StringDict, bool) {
	members := starlark.StringDict{}
	switch name {
	case "@kfs":
		for _, word := range Words() {
			members[word] = s.Word(word)
		}
	case "@kfp":
		for _, t := range kube.ObjectTypes() {
			v, _ := k8s{s}.Attr("V1" + strings.TrimPrefix(t, "V1"))
			members["V1"+strings.TrimPrefix(t, "V1")] = v
		}
		for name, instead := range kfpRefused {
			members[name] = &refused{s, "kfp." + name, instead}
		}
		for module, words := range kfpModules {
			m := &kfpModule{s, module, words}
			members[module] = m
			for name := range words {
				if v, err := m.member(name); err == nil {
					members[name] = v
				}
			}
		}
		members["k8s_client"] = s.env["k8s"]
	default:
		return nil, false
	}
	return members, true
}

// A kfpWord is a word of KFP.
type kfpWord struct {
	word    string            // of the language, that it is
	order   []string          // of arguments by position, if it is another one than the word's
	rename  map[string]string // KFP's keywords, to the word's
	refused map[string]string // keywords that the language has not, with what to write instead
	aside   string            // keyword of files that no step can use, which the step gets when it is made
	ref     dag.RefKind       // of a placeholder
	instead string            // of a word that the language has not
}

// kfpModules are the exports of the modules of kfp 1.8.22, from their
// __init__.py.
var kfpModules = map[string]map[string]kfpWord{
	"dsl": {
		"Condition": {word: "condition", rename: map[string]string{"condition": "c"}},
		"ContainerOp": {word: "container_op",
			order: []string{"name", "image", "command", "arguments", "init_containers", "sidecars", "container_kwargs", "artifact_argument_paths", "file_outputs", "output_artifact_paths", "is_exit_handler", "pvolumes"},
			aside: "output_artifact_paths",
			refused: map[string]string{
				"is_exit_handler": `write  for _ in dsl.ExitHandler(step):  around the steps that it follows`,
			}},
		"EXECUTION_ID_PLACEHOLDER": {ref: dag.RefExecutionID},
		"ExitHandler":              {word: "exit_handler", rename: map[string]string{"exit_op": "step"}},
		"InputArgumentPath":        {word: "input_argument_path", rename: map[string]string{"argument": "value"}},
		"ParallelFor":              {word: "parallel_for", rename: map[string]string{"loop_args": "items"}},
		"PipelineVolume":           {word: "pipeline_volume"},
		"RUN_ID_PLACEHOLDER":       {ref: dag.RefRunID},
		"ResourceOp":               {word: "resource_op", order: []string{"k8s_resource", "action", "merge_strategy", "success_condition", "failure_condition", "set_owner_reference", "attribute_outputs", "flags"}},
		"Sidecar":                  {word: "sidecar"},
		"SubGraph":                 {word: "sub_graph", order: []string{"parallelism"}},
		"UserContainer":            {word: "user_container"},
		"VOLUME_MODE_ROM":          {word: "VOLUME_MODE_ROM"},
		"VOLUME_MODE_RWM":          {word: "VOLUME_MODE_RWM"},
		"VOLUME_MODE_RWO":          {word: "VOLUME_MODE_RWO"},
		"VolumeOp":                 {word: "volume_op", order: []string{"resource_name", "size", "storage_class", "modes", "annotations", "data_source", "volume_name", "generate_unique_name"}},
		"VolumeSnapshotOp":         {word: "volume_snapshot_op", order: []string{"resource_name", "pvc", "snapshot_class", "annotations", "volume", "api_version"}},
		"get_pipeline_conf":        {word: "pipeline_conf"},
		"graph_component":          {word: "graph_component", rename: map[string]string{"func": "fn"}},
		"pipeline": {word: "pipeline", rename: map[string]string{"func": "fn"},
			refused: map[string]string{"pipeline_root": "it belongs to KFP v2: leave it out"}},

		"BaseOp":                         {instead: "a step is made by  dsl.ContainerOp(...), dsl.ResourceOp(...)  or a component"},
		"OpsGroup":                       {instead: "a group of steps is  for _ in dsl.SubGraph():"},
		"Pipeline":                       {instead: "a pipeline is a function, registered by  dsl.pipeline(my_pipeline, name = ...)"},
		"PipelineConf":                   {instead: "inside a pipeline's function, write  conf = dsl.get_pipeline_conf()"},
		"PipelineExecutionMode":          {instead: "there is one mode, that of KFP v1: leave it out"},
		"PipelineParam":                  {instead: "a param is an argument of the pipeline's function, and an output is  step.outputs[NAME]"},
		"ROOT_PARAMETER_NAME":            {instead: "the pipeline root belongs to KFP v2: leave it out"},
		"component":                      {instead: "it only checks types: call the function itself, or write a component.yaml"},
		"data_passing_methods":           {instead: "inside a pipeline's function, write  dsl.get_pipeline_conf().set_data_passing_volume(volume)"},
		"extensions":                     {instead: "a secret is used by  onprem.use_k8s_secret(...)  or by add_volume and add_volume_mount"},
		"importer":                       {instead: "it belongs to KFP v2; a step whose image copies the file does the same"},
		"match_serialized_pipelineparam": {instead: "values known only when the pipeline runs are built into text by +, % and format"},
		"python_component":               {instead: "a function of Python is a step's program: write  container_op(command = [\"python3\", \"-c\", read_file(\"f.py\")])"},
		"types":                          {instead: "the types of params are named by  dsl.pipeline(fn, types = {\"x\": \"Integer\"})"},
	},
	"components": {
		"load_component":           {word: "load_component", order: []string{"filename", "url", "text"}},
		"load_component_from_file": {word: "load_component", order: []string{"filename"}},
		"load_component_from_text": {word: "load_component_from_text"},
		"load_component_from_url": {word: "load_component", order: []string{"url"},
			refused: map[string]string{"auth": "evaluation fetches nothing: the copy is made by  kfs vendor FILE"}},

		"ComponentStore":                            {instead: "write  components.load_component_from_file(path)  or  components.load_component_from_url(url)"},
		"InputArtifact":                             {instead: ofPython},
		"InputBinaryFile":                           {instead: ofPython},
		"InputPath":                                 {instead: ofPython},
		"InputTextFile":                             {instead: ofPython},
		"OutputArtifact":                            {instead: ofPython},
		"OutputBinaryFile":                          {instead: ofPython},
		"OutputPath":                                {instead: ofPython},
		"OutputTextFile":                            {instead: ofPython},
		"create_component_from_airflow_op":          {instead: ofPython},
		"create_component_from_func":                {instead: ofPython},
		"create_component_from_func_v2":             {instead: ofPython},
		"create_graph_component_from_pipeline_func": {instead: "call the function: its steps belong to the pipeline that calls it"},
		"func_to_component_text":                    {instead: ofPython},
		"func_to_container_op":                      {instead: ofPython},
		"load_component_from_spec":                  {instead: "write  components.load_component_from_text(text)"},
		"modelbase":                                 {instead: ofStructures},
		"structures":                                {instead: ofStructures},
		"type_annotation_utils":                     {instead: ofStructures},
	},
	"gcp": {
		"add_gpu_toleration":       {word: "add_gpu_toleration"},
		"use_gcp_secret":           {word: "use_gcp_secret"},
		"use_preemptible_nodepool": {word: "use_preemptible_nodepool"},
		"use_tpu":                  {word: "use_tpu"},
	},
	"aws":   {"use_aws_secret": {word: "use_aws_secret"}},
	"azure": {"use_azure_secret": {word: "use_azure_secret"}},
	"onprem": {
		"add_default_resource_spec": {word: "add_default_resource_spec"},
		"mount_pvc":                 {word: "mount_pvc"},
		"use_k8s_secret":            {word: "use_k8s_secret"},
	},
}

// ofPython is what to write instead of what makes components of functions.
const ofPython = "scripts hold no Python: load the component.yaml that it once wrote (output_component_file),\nor write  container_op(command = [\"python3\", \"-c\", read_file(\"f.py\")])"

const ofStructures = "a component is written as a component.yaml, and loaded by  load_component(path)"

// kfpRefused are modules and functions of kfp itself, with what to do instead.
var kfpRefused = map[string]string{
	"Client":                       "pipelines are written by  kfs compile  and run by  kfs run",
	"LocalClient":                  "pipelines are run on this machine by  kfs run",
	"auth":                         "pipelines are written by  kfs compile  and run by  kfs run",
	"compiler":                     "a file is compiled by  kfs compile FILE",
	"containers":                   "images are built outside of the script",
	"notebook":                     "pipelines are written by  kfs compile  and run by  kfs run",
	"run_pipeline_func_locally":    "pipelines are run on this machine by  kfs run",
	"run_pipeline_func_on_cluster": "pipelines are run by  kfs run",
	"v2":                           "this is the language of KFP v1: load dsl and components",
}

// A kfpModule is a module of KFP.
type kfpModule struct {
	s     *Session
	name  string
	words map[string]kfpWord
}

var _ starlark.HasAttrs = (*kfpModule)(nil)

func (m *kfpModule) String() string        { return "<module kfp." + m.name + ">" }
func (m *kfpModule) Type() string          { return "module" }
func (m *kfpModule) Freeze()               {}
func (m *kfpModule) Truth() starlark.Bool  { return true }
func (m *kfpModule) Hash() (uint32, error) { return starlark.String(m.name).Hash() }

// AttrNames returns the words that are there.
func (m *kfpModule) AttrNames() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.words)) {
		if m.words[name].instead == "" {
			names = append(names, name)
		}
	}
	return names
}

func (m *kfpModule) Attr(name string) (starlark.Value, error) {
	v, err := m.member(name)
	if r, ok := v.(*refused); ok {
		return r.Attr("")
	}
	return v, err
}

func (m *kfpModule) member(name string) (starlark.Value, error) {
	w, ok := m.words[name]
	full := m.name + "." + name
	switch {
	case !ok:
		return nil, noAttr(m.name, name, m.AttrNames())
	case w.instead != "":
		return &refused{m.s, full, w.instead}, nil
	case w.ref != 0:
		return m.s.ref(dag.Ref{Kind: w.ref}), nil
	}
	v := m.s.env[w.word]
	fn, ok := v.(*starlark.Builtin)
	switch {
	case v == nil:
		return nil, fmt.Errorf("%s: this version has no %s", full, w.word)
	case !ok || w.order == nil && w.rename == nil && w.refused == nil:
		return v, nil
	}
	return m.s.builtin(full, func(c *call) (starlark.Value, error) { return w.call(c, fn) }), nil
}

// call calls the word with arguments in KFP's order and under KFP's keywords,
// or under its own.
func (w kfpWord) call(c *call, fn *starlark.Builtin) (starlark.Value, error) {
	args, kwargs := c.args, []starlark.Tuple(nil)
	if w.order != nil {
		if len(args) > len(w.order) {
			return nil, c.errorf("", "%s got %d positional arguments: want at most %d (%s)", c.name, len(args), len(w.order), strings.Join(w.order, ", "))
		}
		for i, v := range args {
			kwargs = append(kwargs, starlark.Tuple{starlark.String(w.order[i]), v})
		}
		args = nil
	}
	kwargs = append(kwargs, c.kwargs...)
	theirs := map[string]string{} // KFP's keywords that the call has, by the word's
	var passed []starlark.Tuple
	aside := starlark.Value(starlark.None)
	for _, kw := range kwargs {
		name := string(kw[0].(starlark.String))
		if instead := w.refused[name]; instead != "" {
			if kw[1] == starlark.None || kw[1] == starlark.False {
				continue // its default
			}
			e := c.errorf(name, "%s: the argument %q is not taken", c.name, name)
			e.Hint = instead
			return nil, e
		}
		if own := w.rename[name]; own != "" {
			theirs[own] = name
			name = own
		}
		if name == w.aside {
			aside = kw[1]
			continue
		}
		passed = append(passed, starlark.Tuple{starlark.String(name), kw[1]})
	}
	if w.word == "pipeline" && len(args) == 0 && !slices.ContainsFunc(passed, func(kw starlark.Tuple) bool { return kw[0] == starlark.String("fn") }) {
		e := c.errorf("", "%s: want the pipeline's function as the first argument", c.name)
		e.Hint = "there are no decorators: below the function, write  dsl.pipeline(my_pipeline, name = ...)"
		return nil, e
	}
	before := len(c.s.faults)
	v, err := fn.CallInternal(c.s.thread, args, passed)
	if st, ok := v.(*step); ok && aside != starlark.None {
		// KFP puts these before those that file_outputs names.
		outputs := st.d.Outputs
		st.d.Outputs = nil
		err = c.addAside(st, w.aside, aside)
		for _, o := range outputs {
			st.putOutput(o)
		}
	}
	back := func(e *Error) {
		if name := theirs[e.Arg]; name != "" && e.Pos == c.pos {
			e.Arg = name
		}
	}
	for _, e := range c.s.faults[min(before, len(c.s.faults)):] {
		back(e)
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		back(e)
	}
	return v, err
}

// addAside adds files that no step can use, from a dict of names to paths. One
// of a name that the step has takes its place.
func (c *call) addAside(st *step, arg string, files starlark.Value) error {
	dict, ok := files.(*starlark.Dict)
	if !ok {
		return c.errorf(arg, "%s: want a dict of names to paths, got %s", c.name, files.Type())
	}
	for k, v := range dict.Entries() {
		name, ok1 := starlark.AsString(k)
		file, ok2 := starlark.AsString(v)
		if !ok1 || !ok2 || !path.IsAbs(file) {
			return c.errorf(arg, "%s: %s: %s: want a name and an absolute path in the container", c.name, k, v)
		}
		_, page := dag.PageOutput(name)
		st.putOutput(dag.Output{Name: name, Path: file, Aside: !page, Pos: c.pos})
	}
	return nil
}

// putOutput adds an output, in the place of a file of its name that no step can
// use.
func (st *step) putOutput(o dag.Output) {
	name, page := o.Page()
	i := slices.IndexFunc(st.d.Outputs, func(other dag.Output) bool {
		n, is := other.Page()
		return page && is && n == name
	})
	if i < 0 {
		st.d.Outputs = append(st.d.Outputs, o)
	} else {
		st.d.Outputs[i] = o
	}
}

// asideFiles are step.output_artifact_paths: a dict to add to, as in KFP.
type asideFiles struct{ st *step }

var (
	_ starlark.HasAttrs  = (*asideFiles)(nil)
	_ starlark.HasSetKey = (*asideFiles)(nil)
)

func (f *asideFiles) String() string       { return fmt.Sprintf("<files of step %q>", f.st.d.Name) }
func (f *asideFiles) Type() string         { return "output_artifact_paths" }
func (f *asideFiles) Freeze()              {}
func (f *asideFiles) Truth() starlark.Bool { return true }
func (f *asideFiles) Hash() (uint32, error) {
	return 0, fmt.Errorf("output_artifact_paths cannot be a key")
}
func (f *asideFiles) AttrNames() []string { return []string{"update"} }

func (f *asideFiles) Attr(name string) (starlark.Value, error) {
	if name != "update" {
		return nil, noAttr("output_artifact_paths", name, f.AttrNames())
	}
	return f.st.s.builtin(name, func(c *call) (starlark.Value, error) { // step.output_artifact_paths.update(files)
		var files starlark.Value
		if err := c.unpack("files", &files); err != nil {
			return nil, err
		}
		return starlark.None, c.addAside(f.st, "files", files)
	}), nil
}

// Get returns the path of a file.
func (f *asideFiles) Get(k starlark.Value) (starlark.Value, bool, error) {
	for _, o := range f.st.d.Outputs {
		if name, aside := o.Page(); aside && k == starlark.String(name) {
			return starlark.String(o.Path), true, nil
		}
	}
	return nil, false, nil
}

// SetKey is step.output_artifact_paths[name] = path.
func (f *asideFiles) SetKey(k, v starlark.Value) error {
	dict := starlark.NewDict(1)
	if err := dict.SetKey(k, v); err != nil {
		return err
	}
	c := &call{s: f.st.s, name: "output_artifact_paths", pos: assignment(f.st.s.thread)}
	return c.addAside(f.st, "", dict)
}

// A refused is a word of KFP that the language has not. It may be loaded, and
// any use of it is an error that says what to write instead.
type refused struct {
	s             *Session
	name, instead string
}

var (
	_ starlark.Callable = (*refused)(nil)
	_ starlark.HasAttrs = (*refused)(nil)
)

func (r *refused) String() string        { return "<" + r.name + ", which the language has not>" }
func (r *refused) Type() string          { return "word of KFP" }
func (r *refused) Freeze()               {}
func (r *refused) Truth() starlark.Bool  { return true }
func (r *refused) Hash() (uint32, error) { return starlark.String(r.name).Hash() }
func (r *refused) Name() string          { return r.name }
func (r *refused) AttrNames() []string   { return nil }

func (r *refused) Attr(string) (starlark.Value, error) {
	pos := assignment(r.s.thread)
	pos.Col++ // behind the dot
	return nil, r.err(pos)
}

func (r *refused) CallInternal(thread *starlark.Thread, _ starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	return nil, r.err(Caller(thread))
}

func (r *refused) err(pos dag.Pos) error {
	return &Error{Pos: pos, Msg: r.name + " is not in the language", Hint: r.instead}
}

// Refused returns what to write instead of a word of KFP, "" for others.
func Refused(name string) string {
	for _, words := range kfpModules {
		if w, ok := words[name]; ok && w.instead != "" {
			return w.instead
		}
	}
	return ""
}
