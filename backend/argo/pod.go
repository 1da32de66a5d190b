package argo

import (
	"slices"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file defines what a template says of a step's pod beside its container,
// and what a Workflow says of all of its pods.

// nodeSelector adds the step's node selector to its template. An entry whose
// label or value is known only at run time goes to the podSpecPatch.
func nodeSelector(t *dag.Object, patch *dag.Object, s *dag.Step) {
	if len(s.NodeSelector) == 0 {
		return
	}
	fixed := dag.Object{} // KFP writes it even if it is empty
	for _, m := range s.NodeSelector {
		label, value := expand(m.Name), expand(m.Value.(string))
		if isInput(label) || isInput(value) {
			patch.Set(value, "nodeSelector", label)
		} else {
			fixed.Set(value, label)
		}
	}
	t.Set(fixed, "nodeSelector")
}

// isInput reports whether KFP takes a text for an input of the template.
func isInput(text string) bool {
	return strings.HasPrefix(text, "{{inputs.parameters") && strings.HasSuffix(text, "}}")
}

// scheduling adds tolerations and affinity to a step's template.
func scheduling(t *dag.Object, s *dag.Step) {
	if len(s.Tolerations) > 0 {
		t.Set(expandTree(list(s.Tolerations)), "tolerations")
	}
	if len(s.Affinity) > 0 {
		t.Set(expandTree(s.Affinity), "affinity")
	}
}

// metadata returns the annotations and labels of a step's pod.
func metadata(s *dag.Step) dag.Object {
	annotations := slices.Clone(s.Annotations)
	if s.DisplayName != "" {
		annotations.Set(s.DisplayName, "pipelines.kubeflow.org/task_display_name")
	}
	if k := s.Component; k != nil {
		annotations.Set(dag.PythonJSON(k.Spec), "pipelines.kubeflow.org/component_spec")
		annotations.Set(dag.PythonJSON(k.Ref), "pipelines.kubeflow.org/component_ref")
		if len(k.Arguments) > 0 {
			annotations.Set(dag.PythonJSON(k.Arguments), "pipelines.kubeflow.org/arguments.parameters")
		}
	}
	if s.MaxCacheStaleness != "" {
		annotations.Set(s.MaxCacheStaleness, "pipelines.kubeflow.org/max_cache_staleness")
	}
	labels := slices.Clone(s.Labels)
	for _, own := range []dag.Member{
		{Name: "pipelines.kubeflow.org/kfp_sdk_version", Value: sdkVersion},
		{Name: "pipelines.kubeflow.org/pipeline-sdk-type", Value: "kfp"},
	} {
		if labels.Get(own.Name) == nil {
			labels = append(labels, own)
		}
	}
	caching := "true"
	if s.NoCache {
		caching = "false"
	}
	labels.Set(caching, "pipelines.kubeflow.org/enable_caching")
	var m dag.Object
	if len(annotations) > 0 {
		m.Set(expandTree(annotations), "annotations")
	}
	m.Set(expandTree(labels), "labels")
	return m
}

// moreContainers adds init containers and sidecars to a step's template. Their
// resources that only the run will know go to the podSpecPatch; KFP leaves them
// where no Workflow can hold them.
func (c *compiler) moreContainers(t, patch *dag.Object, s *dag.Step) {
	for _, kind := range []struct {
		name, inPod string
		containers  []dag.Object
	}{{"initContainers", "initContainers", s.InitContainers}, {"sidecars", "containers", s.Sidecars}} {
		var all []any
		for _, k := range kind.containers {
			mirror := k.Get("mirrorVolumeMounts")
			k = slices.DeleteFunc(k.Sorted(), func(m dag.Member) bool { return m.Name == "mirrorVolumeMounts" })
			if image, ok := k.Get("image").(string); ok && c.opts.Image != nil {
				k.Set(c.opts.Image(image), "image")
			}
			name, _ := k.Get("name").(string)
			k = fixedResources(k, patch, kind.inPod, expand(name))
			if mirror != nil {
				k.Set(mirror, "mirrorVolumeMounts")
			}
			all = append(all, expandTree(k))
		}
		if all != nil {
			t.Set(all, kind.name)
		}
	}
}

// conf adds what the pipeline sets for its run to the spec of the Workflow.
// onExit is the template that runs last, or "".
func (c *compiler) conf(spec *dag.Object, onExit string) {
	conf := c.p.Conf
	if conf == nil {
		conf = &dag.Conf{}
	}
	if conf.ServiceAccount != "" {
		spec.Set(conf.ServiceAccount, "serviceAccountName")
	}
	if conf.Parallelism > 0 {
		spec.Set(int64(conf.Parallelism), "parallelism")
	}
	if conf.TTLSeconds != nil {
		spec.Set(int64(*conf.TTLSeconds), "ttlStrategy", "secondsAfterCompletion")
	}
	if conf.MinAvailable != "" {
		spec.Set(number(conf.MinAvailable), "podDisruptionBudget", "minAvailable")
	}
	if len(conf.ImagePullSecrets) > 0 {
		spec.Set(list(conf.ImagePullSecrets), "imagePullSecrets")
	}
	if conf.Timeout > 0 {
		spec.Set(int64(conf.Timeout), "activeDeadlineSeconds")
	}
	if onExit != "" {
		spec.Set(onExit, "onExit")
	}
	if len(conf.NodeSelector) > 0 {
		spec.Set(conf.NodeSelector, "nodeSelector")
	}
	if len(conf.DNSConfig) > 0 {
		spec.Set(conf.DNSConfig, "dnsConfig")
	}
}
