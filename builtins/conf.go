package builtins

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/kube"
)

// This file defines what a pipeline sets for its run and all of its steps:
// pipeline_conf(), and the same words as keywords of pipeline(...).

// A conf is what pipeline_conf() returns.
type conf struct {
	s            *Session
	d            dag.Conf
	pullPolicy   string // of containers that have none
	transformers []transformer
}

var _ starlark.HasAttrs = (*conf)(nil)

func (k *conf) String() string        { return "<the conf of the pipeline>" }
func (k *conf) Type() string          { return "pipeline_conf" }
func (k *conf) Freeze()               {}
func (k *conf) Truth() starlark.Bool  { return true }
func (k *conf) Hash() (uint32, error) { return 0, fmt.Errorf("the conf of a pipeline cannot be a key") }

// A confWord is something that a conf can be told: by the method
// set_NAME(param), and by the keyword NAME of pipeline(...).
type confWord struct {
	param string
	set   func(c *call, k *conf, arg string, v starlark.Value)
}

var confWords = map[string]confWord{
	// conf.set_timeout(seconds), pipeline(timeout=...)
	//
	// The wall clock of the run.
	"timeout": {"seconds", confTimeout},

	// conf.set_parallelism(max_num_pods), pipeline(parallelism=...)
	//
	// How many pods run at once.
	"parallelism": {"max_num_pods", confParallelism},

	// conf.set_ttl_seconds_after_finished(seconds),
	// pipeline(ttl_seconds_after_finished=...)
	//
	// How long the run's objects are kept.
	"ttl_seconds_after_finished": {"seconds", confTTL},

	// conf.set_image_pull_secrets(image_pull_secrets),
	// pipeline(image_pull_secrets=...)
	//
	// A list of `k8s.LocalObjectReference`.
	"image_pull_secrets": {"image_pull_secrets", confPullSecrets},

	// conf.set_image_pull_policy(policy), pipeline(image_pull_policy=...)
	//
	// Of the containers of steps that have none.
	"image_pull_policy": {"policy", confPullPolicy},

	// conf.set_service_account(name), pipeline(service_account=...)
	//
	// The account that pods run as. If it is not set: `pipeline-runner` in a
	// Workflow; in a run by kfs that of `--service-account`, else none
	// ([rights](kubernetes.md#rights)).
	"service_account": {"name", confServiceAccount},

	// conf.set_default_pod_node_selector(label_name, value),
	// pipeline(default_pod_node_selector={label: value})
	//
	// Of pods that have no node selector.
	"default_pod_node_selector": {"", confNodeSelector},

	// conf.set_pod_disruption_budget(min_available),
	// pipeline(pod_disruption_budget=...)
	//
	// A number of pods, or `"50%"`.
	"pod_disruption_budget": {"min_available", confBudget},

	// conf.set_dns_config(dns_config), pipeline(dns_config=...)
	//
	// A `k8s.PodDNSConfig`.
	"dns_config": {"dns_config", confDNS},

	// conf.set_data_passing_volume(volume, path_prefix="artifact_data/"),
	// pipeline(data_passing_volume=...)
	//
	// A `k8s.Volume` by which Argo passes files from step to step, in place of
	// its artifacts. Each file needs a folder of its own, and has the same
	// name where it is written and where it is read.
	"data_passing_volume": {"", confDataVolume},

	// conf.add_op_transformer(transformer), pipeline(op_transformers=[...])
	//
	// Functions of one step that run on every step when the pipeline's
	// function has returned. `conf.op_transformers` is their list, which can
	// be appended to.
	"op_transformers": {"", confTransformers},
}

func (k *conf) AttrNames() []string {
	names := []string{"add_op_transformer", "op_transformers", "set_data_passing_volume", "set_default_pod_node_selector"}
	for name, w := range confWords {
		if w.param != "" {
			names = append(names, "set_"+name)
		}
	}
	slices.Sort(names)
	return names
}

func (k *conf) Attr(name string) (starlark.Value, error) {
	switch name {
	case "set_default_pod_node_selector": // conf.set_default_pod_node_selector(label_name, value) -> conf
		return k.s.builtin(name, func(c *call) (starlark.Value, error) {
			var label string
			var v scalarOrBool
			if err := c.unpack("label_name", &label, "value", &v); err != nil {
				return nil, err
			}
			if c.fixed("label_name", label) && c.fixed("value", string(v)) {
				c.setPair(&k.d.NodeSelector, "the pipeline", "label_name", "node selector", label, string(v), true)
			}
			return k, nil
		}), nil
	case "set_data_passing_volume": // conf.set_data_passing_volume(volume, path_prefix="artifact_data/") -> conf
		return k.s.builtin(name, func(c *call) (starlark.Value, error) {
			var volume starlark.Value
			prefix := dataPrefix
			if err := c.unpack("volume", &volume, "path_prefix?", &prefix); err != nil {
				return nil, err
			}
			if path.IsAbs(prefix) || strings.Contains(prefix, "..") || !c.fixed("path_prefix", prefix) {
				c.report("path_prefix", "%s: path_prefix %q: want a path inside the volume", c.name, dag.Display(prefix))
			}
			confDataVolume(c, k, "volume", volume)
			k.d.DataPrefix = prefix
			return k, nil
		}), nil
	case "add_op_transformer": // conf.add_op_transformer(transformer) -> conf
		return k.s.builtin(name, func(c *call) (starlark.Value, error) {
			var fn starlark.Callable
			if err := c.unpack("transformer", &fn); err != nil {
				return nil, err
			}
			k.transformers = append(k.transformers, transformer{fn, c.pos})
			return k, nil
		}), nil
	case "op_transformers":
		return transformers{k}, nil
	}
	w, ok := confWords[strings.TrimPrefix(name, "set_")]
	if !ok || w.param == "" || !strings.HasPrefix(name, "set_") {
		return nil, noAttr("the conf of a pipeline", name, k.AttrNames())
	}
	return k.s.builtin(name, func(c *call) (starlark.Value, error) { // conf.set_NAME(value) -> conf
		var v starlark.Value
		if err := c.unpack(w.param, &v); err != nil {
			return nil, err
		}
		w.set(c, k, w.param, v)
		return k, nil
	}), nil
}

// The transformers of a conf are, as in KFP, a list to append to.
type transformers struct{ k *conf }

var _ starlark.HasAttrs = transformers{}

func (t transformers) String() string        { return "<the transformers of the pipeline>" }
func (t transformers) Type() string          { return "op_transformers" }
func (t transformers) Freeze()               {}
func (t transformers) Truth() starlark.Bool  { return len(t.k.transformers) > 0 }
func (t transformers) Hash() (uint32, error) { return t.k.Hash() }
func (t transformers) AttrNames() []string   { return []string{"append", "extend"} }

func (t transformers) Attr(name string) (starlark.Value, error) {
	switch name {
	case "append": // conf.op_transformers.append(transformer)
		return t.k.s.builtin(name, func(c *call) (starlark.Value, error) {
			var fn starlark.Callable
			if err := c.unpack("transformer", &fn); err != nil {
				return nil, err
			}
			t.k.transformers = append(t.k.transformers, transformer{fn, c.pos})
			return starlark.None, nil
		}), nil
	case "extend": // conf.op_transformers.extend(transformers)
		return t.k.s.builtin(name, func(c *call) (starlark.Value, error) {
			var fns starlark.Value
			if err := c.unpack("transformers", &fns); err != nil {
				return nil, err
			}
			confTransformers(c, t.k, "transformers", fns)
			return starlark.None, nil
		}), nil
	}
	return nil, noAttr("the list of transformers", name, t.AttrNames())
}

// pipelineConf: pipeline_conf() -> conf
//
// What the pipeline sets, see [below](#what-a-pipeline-sets).
func (s *Session) pipelineConf(c *call) (starlark.Value, error) {
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	if err := c.unpack(); err != nil {
		return nil, err
	}
	return b.conf, nil
}

// cutConf takes the keywords of pipeline(...) that are words of a conf out of
// the call and returns the conf that they make.
func (c *call) cutConf() *conf {
	k := &conf{s: c.s}
	c.kwargs = slices.DeleteFunc(slices.Clone(c.kwargs), func(kw starlark.Tuple) bool {
		name := string(kw[0].(starlark.String))
		w, ok := confWords[name]
		if ok && kw[1] != starlark.None {
			w.set(c, k, name, kw[1])
		}
		return ok
	})
	for name := range confWords {
		c.also = append(c.also, name)
	}
	slices.Sort(c.also)
	return k
}

// A transformer is a function that runs on each step.
type transformer struct {
	fn  starlark.Callable
	pos dag.Pos // of the call that named it
}

// clone returns a conf that can be changed without changing k.
func (k *conf) clone() *conf {
	c := *k
	c.transformers = slices.Clone(k.transformers)
	return &c
}

// finish completes the pipeline when its function has returned: transformers
// run on every step, what the conf says of steps is passed on to them, and
// their containers get their last form.
func (b *body) finish(s *Session) error {
	for _, st := range slices.Clone(b.made) {
		addPodEnv(st.d)
		for _, t := range b.conf.transformers {
			s.at = t.pos
			if _, err := starlark.Call(s.thread, t.fn, starlark.Tuple{st}, nil); err != nil {
				return err
			}
		}
	}
	for _, st := range b.made {
		if b.conf.pullPolicy != "" && st.r == nil && st.d.Container.Get("imagePullPolicy") == nil {
			st.d.Container.Set(b.conf.pullPolicy, "imagePullPolicy")
		}
		st.d.InitContainers, st.d.Sidecars = st.inits.objects(), st.sidecars.objects()
	}
	if d := b.conf.d; len(d.ImagePullSecrets) > 0 || d.ServiceAccount != "" || d.NodeSelector != nil || d.DNSConfig != nil ||
		d.Timeout != 0 || d.Parallelism != 0 || d.TTLSeconds != nil || d.DataVolume != nil || d.MinAvailable != "" {
		b.p.Conf = &d
	}
	return nil
}

// addPodEnv adds the variables that KFP gives a container whose pod has the
// label add-pod-env: the names of its pod and run. In KFP that is the first of
// the transformers, so a label that another one adds comes too late. The source
// is compiler/_default_transformers.py of kfp 1.8.22.
func addPodEnv(d *dag.Step) {
	if d.Resource != nil || d.Labels.Get("add-pod-env") != "true" {
		return
	}
	env, _ := d.Container.Get("env").([]any)
	for _, v := range [][2]string{
		{"KFP_POD_NAME", "metadata.name"},
		{"KFP_POD_UID", "metadata.uid"},
		{"KFP_NAMESPACE", "metadata.namespace"},
		{"WORKFLOW_ID", "metadata.labels['workflows.argoproj.io/workflow']"},
		{"KFP_RUN_ID", "metadata.labels['pipeline/runid']"},
		{"ENABLE_CACHING", "metadata.labels['pipelines.kubeflow.org/enable_caching']"},
	} {
		if slices.ContainsFunc(env, func(e any) bool { o, _ := e.(dag.Object); return o.Get("name") == v[0] }) {
			continue
		}
		d.Container.Append("env", dag.Object{{Name: "name", Value: v[0]}, {Name: "valueFrom", Value: dag.Object{
			{Name: "fieldRef", Value: dag.Object{{Name: "fieldPath", Value: v[1]}}},
		}}})
	}
}

// fixed reports an argument that is known only at run time, because what a
// pipeline sets must be known before.
func (c *call) fixed(arg string, tree any) bool {
	r := firstRef(tree)
	if r.Kind == 0 {
		return true
	}
	subject, kind := whatRef(r)
	c.report(arg, "%s is %s%sit cannot stand in the pipeline's %s", subject, kind, onlyAtRunTime, strings.TrimPrefix(c.name, "set_"))
	return false
}

// whole returns a whole number of at least least, or reports what is wrong.
func (c *call) whole(arg string, least int, v starlark.Value) (int, bool) {
	var t scalar
	if err := t.Unpack(v); err != nil {
		c.report(arg, "%s, argument %q: %v", c.name, arg, err)
		return 0, false
	}
	if !c.fixed(arg, string(t)) || !c.checkCount(arg, string(t), least) {
		return 0, false
	}
	n, _ := strconv.Atoi(string(t))
	return n, true
}

func confTimeout(c *call, k *conf, arg string, v starlark.Value) {
	if n, ok := c.whole(arg, 1, v); ok {
		k.d.Timeout = n
	}
}

func confParallelism(c *call, k *conf, arg string, v starlark.Value) {
	if n, ok := c.whole(arg, 1, v); ok {
		k.d.Parallelism = n
	}
}

func confTTL(c *call, k *conf, arg string, v starlark.Value) {
	if n, ok := c.whole(arg, 0, v); ok {
		k.d.TTLSeconds = &n
	}
}

func confPullSecrets(c *call, k *conf, arg string, v starlark.Value) {
	secrets := c.fitObjects(arg, "LocalObjectReference", v)
	for _, s := range secrets {
		if !c.fixed(arg, s) {
			return
		}
	}
	k.d.ImagePullSecrets = secrets
}

func confDNS(c *call, k *conf, arg string, v starlark.Value) {
	if obj := c.fitObject(arg, "PodDNSConfig", v); obj != nil && c.fixed(arg, obj) {
		k.d.DNSConfig = obj
	}
}

const dataPrefix = "artifact_data/"

// confDataVolume sets a volume, which needs no name.
func confDataVolume(c *call, k *conf, arg string, v starlark.Value) {
	tree, err := k8sTree(v)
	if err != nil {
		c.report(arg, "%s, %s: %v", c.name, arg, err)
		return
	}
	if obj, ok := tree.(dag.Object); ok && obj.Get("name") == nil {
		tree = append(slices.Clone(obj), dag.Member{Name: "name", Value: "data-storage"})
	}
	fitted, faults := kube.Fit("Volume", tree)
	c.reportFaults(arg, faults)
	if obj, ok := fitted.(dag.Object); ok && c.fixed(arg, obj) {
		k.d.DataVolume, k.d.DataPrefix = obj, dataPrefix
	}
}

func confPullPolicy(c *call, k *conf, arg string, v starlark.Value) {
	var t text
	if err := t.Unpack(v); err != nil {
		c.report(arg, "%s, argument %q: %v", c.name, arg, err)
	} else if fault := kube.CheckEnum("PullPolicy", string(t)); fault != "" {
		c.report(arg, "%s: %s", c.name, fault)
	} else {
		k.pullPolicy = string(t)
	}
}

func confServiceAccount(c *call, k *conf, arg string, v starlark.Value) {
	var t text
	if err := t.Unpack(v); err != nil {
		c.report(arg, "%s, argument %q: %v", c.name, arg, err)
	} else if c.fixed(arg, string(t)) {
		c.checkName(arg, string(t))
		k.d.ServiceAccount = string(t)
	}
}

// share matches a part of the pods, in percent.
var share = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(100|[0-9]{1,2})%$`) })

func confBudget(c *call, k *conf, arg string, v starlark.Value) {
	var t scalar
	if err := t.Unpack(v); err != nil {
		c.report(arg, "%s, argument %q: %v", c.name, arg, err)
		return
	}
	if n, err := strconv.Atoi(string(t)); !share().MatchString(string(t)) && (err != nil || n < 0) {
		if c.fixed(arg, string(t)) {
			c.report(arg, `%s: %q: want a number of pods, or a part of them such as "50%%"`, c.name, string(t))
		}
		return
	}
	k.d.MinAvailable = string(t)
}

func confNodeSelector(c *call, k *conf, arg string, v starlark.Value) {
	labels, _ := c.fit(arg, "{}string", v).(dag.Object)
	for _, m := range labels {
		if text := m.Value.(string); c.fixed(arg, text) {
			c.setPair(&k.d.NodeSelector, "the pipeline", arg, "node selector", m.Name, text, true)
		}
	}
}

func confTransformers(c *call, k *conf, arg string, v starlark.Value) {
	list, ok := v.(starlark.Iterable)
	if _, isValue := v.(Runtime); isValue || !ok {
		c.report(arg, "%s, argument %q: want a list of functions, got %s", c.name, arg, typeName(v))
		return
	}
	for e := range starlark.Elements(list) {
		fn, ok := e.(starlark.Callable)
		if !ok {
			c.report(arg, "%s, argument %q: want functions, got %s", c.name, arg, typeName(e))
			continue
		}
		k.transformers = append(k.transformers, transformer{fn, c.pos})
	}
}
