package dag

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// This file defines what a step asks of its pod and of its own run, beside its
// container, and what a pipeline sets for all of its pods.

// A Pod is what a step asks of the pod that its container runs in. All trees
// are as the author wrote them; text in them, names of members too, may hold
// tokens.
type Pod struct {
	NodeSelector Object   `json:"nodeSelector,omitempty"` // labels of nodes to their values
	Tolerations  []Object `json:"tolerations,omitempty"`  // core/v1 Tolerations
	Affinity     Object   `json:"affinity,omitempty"`     // a core/v1 Affinity
	Annotations  Object   `json:"annotations,omitempty"`
	Labels       Object   `json:"labels,omitempty"`

	// InitContainers run before the container, and Sidecars beside it. They
	// are core/v1 Containers with their names; mirrorVolumeMounts: true, which
	// is Argo's, gives one the mounts of the container too.
	InitContainers []Object `json:"initContainers,omitempty"`
	Sidecars       []Object `json:"sidecars,omitempty"`

	ServiceAccount string `json:"serviceAccount,omitempty"` // its name; "" is that of the pipeline
	Mesh           bool   `json:"mesh,omitempty"`           // keep the sidecar of a service mesh, which a step has not by default
}

// A Conduct is what a step asks of whoever runs it.
type Conduct struct {
	DisplayName string `json:"displayName,omitempty"` // text; "" is the step's name

	// NoCache keeps KFP from taking the outputs of an earlier run in place of
	// running the step; MaxCacheStaleness is how old these may be, as an
	// ISO 8601 duration ("P30D"); "" is any age.
	NoCache           bool   `json:"noCache,omitempty"`
	MaxCacheStaleness string `json:"maxCacheStaleness,omitempty"`

	// Once means that the step is never started a second time, whatever became
	// of the first. Of a step without Once, InfraRetries is how many attempts
	// the infrastructure may lose before that is the step's failure; nil
	// leaves it to the engine.
	Once         bool `json:"once,omitempty"`
	InfraRetries *int `json:"infraRetries,omitempty"`

	// PendingTimeout is how long an attempt may wait to be started, in whole
	// seconds, as text that may be a token; "" is without end.
	PendingTimeout string `json:"pendingTimeout,omitempty"`
	Primitive      string `json:"primitive,omitempty"` // one of Primitives; "" leaves it to the backend
}

// Primitives are the objects of a cluster that a step can run as.
var Primitives = []string{"pod", "job"}

// walk goes through the texts that may hold a token.
func (p *Pod) walk(w *walker) {
	w.tree("node selector ", p.NodeSelector)
	for _, t := range p.Tolerations {
		w.tree("toleration ", t)
	}
	w.tree("affinity ", p.Affinity)
	w.tree("annotation ", p.Annotations)
	w.tree("label ", p.Labels)
	for _, c := range p.InitContainers {
		w.tree("init container "+containerName(c)+" ", c)
	}
	for _, c := range p.Sidecars {
		w.tree("sidecar "+containerName(c)+" ", c)
	}
	w.text("service account", p.ServiceAccount)
}

func containerName(c Object) string {
	name, _ := c.Get("name").(string)
	return fmt.Sprintf("%q:", Display(name))
}

func (c *Conduct) walk(w *walker) {
	w.text("display name", c.DisplayName)
	w.text("max cache staleness", c.MaxCacheStaleness)
	w.text("pending timeout", c.PendingTimeout)
}

// conduct checks what a step asks of its pod and its run.
func (v *validator) conduct(s *Step) {
	v.count(s, "pending timeout", s.PendingTimeout, 1)
	if s.Primitive != "" && !slices.Contains(Primitives, s.Primitive) {
		v.fault(s.Pos, "step %q: primitive %q: want %s", s.Name, s.Primitive, strings.Join(Primitives, " or "))
	}
	if s.InfraRetries != nil && *s.InfraRetries < 0 {
		v.fault(s.Pos, "step %q: infra retries %d: want 0 or more", s.Name, *s.InfraRetries)
	}
	if s.Once && s.Retry != nil && s.Retry.Limit != "0" {
		v.fault(s.Pos, "step %q is to run once, and yet has retries", s.Name).Hint = "leave out one of once=True and set_retry(...)"
	}
	if s.Once && s.InfraRetries != nil && *s.InfraRetries > 0 {
		v.fault(s.Pos, "step %q is to run once, and yet has infra retries", s.Name).Hint = "leave out one of once=True and set_infra_retries(...)"
	}
	names := map[string]bool{}
	for _, c := range slices.Concat(s.InitContainers, s.Sidecars) {
		name, _ := c.Get("name").(string)
		switch {
		case name == "":
			v.fault(s.Pos, "step %q has an init container or sidecar without a name", s.Name)
		case name == "main" || name == "wait":
			v.fault(s.Pos, "step %q has an init container or sidecar named %q: Argo has one of this name in each pod", s.Name, name)
		case names[name]:
			v.fault(s.Pos, "step %q has two containers named %q", s.Name, Display(name))
		}
		names[name] = true
	}
}

// dataVolume checks a step of a pipeline whose files are passed by a volume: a
// folder of it holds one file, which keeps its name.
func (v *validator) dataVolume(s *Step) {
	if v.p.Conf == nil || v.p.Conf.DataVolume == nil {
		return
	}
	folders := map[string]string{}
	folder := func(pos Pos, file string) {
		dir := path.Dir(path.Clean(file))
		if other, ok := folders[dir]; ok && other != file {
			v.fault(pos, "step %q: %s and %s are in one folder: with a data passing volume each file needs its own", s.Name, other, file)
		}
		folders[dir] = file
	}
	for _, o := range s.Outputs {
		if _, page := o.Page(); !page {
			folder(o.Pos, o.Path)
		}
	}
	for _, a := range s.Artifacts {
		r, _ := a.Ref()
		from := v.steps[r.Step]
		if r.Kind != RefOutput || from == nil || from.Output(r.Name) == nil {
			continue
		}
		folder(a.Pos, a.Path)
		if was := from.Output(r.Name).Path; path.Base(was) != path.Base(a.Path) {
			v.fault(a.Pos, "step %q takes %s as %s: with a data passing volume a file keeps its name, which is %s", s.Name, r, a.Path, path.Base(was))
		}
	}
}

// A Conf is what a pipeline sets for its run and all of its pods. Nothing in
// it is known only at run time.
type Conf struct {
	ImagePullSecrets []Object `json:"imagePullSecrets,omitempty"` // core/v1 LocalObjectReferences
	ServiceAccount   string   `json:"serviceAccount,omitempty"`
	NodeSelector     Object   `json:"nodeSelector,omitempty"` // of pods that have none of their own
	DNSConfig        Object   `json:"dnsConfig,omitempty"`    // a core/v1 PodDNSConfig

	Timeout     int `json:"timeout,omitempty"`     // seconds of the whole run; 0 is none
	Parallelism int `json:"parallelism,omitempty"` // how many pods run at once; 0 is no limit

	// DataVolume is a core/v1 Volume by which Argo is to pass files from step
	// to step, in place of its artifacts, in folders whose names begin with
	// DataPrefix; nil is none.
	DataVolume Object `json:"dataVolume,omitempty"`
	DataPrefix string `json:"dataPrefix,omitempty"`

	// TTLSeconds is how long the run's objects are kept after its end; nil
	// leaves it to the cluster.
	TTLSeconds *int `json:"ttlSeconds,omitempty"`

	// MinAvailable is the disruption budget of the run's pods: a number of
	// pods, or a part of them such as "50%"; "" is none.
	MinAvailable string `json:"minAvailable,omitempty"`
}
