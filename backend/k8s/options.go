package k8s

import (
	"time"

	"github.com/kfs-project/kfs/dag"
)

// Options are what a run is carried out with, beside its pipeline and params.
// They are kept with the run, so that whoever goes on with it has the same. The
// zero value works, but for steps that need Image.
type Options struct {
	// Image is kfs's own image, for the pods of steps whose outputs are
	// collected; see docs/kubernetes.md. ImageVolume mounts it in place of
	// copying the launcher out of it, which needs containerd 2.1 on each node.
	Image       string `json:"image,omitempty"`
	ImageVolume bool   `json:"imageVolume,omitempty"`

	// Artifacts is where files are kept that are too large for the state of
	// the run: s3://bucket/prefix?endpoint=URL or pvc://claim/prefix. The keys
	// of ArtifactSecret become variables of the container that speaks to it,
	// which is never the step's own.
	Artifacts      string `json:"artifacts,omitempty"`
	ArtifactSecret string `json:"artifactSecret,omitempty"`

	ServiceAccount string `json:"serviceAccount,omitempty"` // of steps, if neither they nor the pipeline say; "" is the namespace's default

	// Images are what stands in for images, by the images; see package images.
	Images map[string]string `json:"images,omitempty"`

	Parallelism int `json:"parallelism,omitempty"` // how many steps its drivers run at once; 0 is no limit

	Limits Limits `json:"limits,omitzero"`
}

// Limits are how long things may take. Zero values stand for the defaults.
type Limits struct {
	Lease time.Duration `json:"lease,omitempty"` // a driver that has not been heard of for so long has lost its run; default 30 s
	Grace time.Duration `json:"grace,omitempty"` // between SIGTERM and SIGKILL, if the pod says nothing; default 30 s

	// Of a pod that does not start:
	BadImage    time.Duration `json:"badImage,omitempty"`    // its image cannot exist, or not be had; default 20 s
	PullBackoff time.Duration `json:"pullBackoff,omitempty"` // its image could not be pulled so far; default 5 min
	BadConfig   time.Duration `json:"badConfig,omitempty"`   // a secret or config map that it needs is missing; default 30 s
	Mount       time.Duration `json:"mount,omitempty"`       // a volume cannot be mounted; default 5 min
	Pending     time.Duration `json:"pending,omitempty"`     // whatever it is, if the step does not say; default 1 h
	PendingGPU  time.Duration `json:"pendingGPU,omitempty"`  // the same, if it needs extended resources; default 24 h

	Settle time.Duration `json:"settle,omitempty"` // a pod whose step is over may take to end by itself; default 60 s
	Keep   time.Duration `json:"keep,omitempty"`   // a finished pod is kept at least, if there are very many; default 10 min
	Slow   time.Duration `json:"slow,omitempty"`   // a pod has not started, and events are looked at; default 3 s
	Away   time.Duration `json:"away,omitempty"`   // the API server has not answered, and a notice says so; default 5 s

	Values int `json:"values,omitempty"` // bytes of one output's text; default 256 KiB
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.Lease, 30 * time.Second}, {&l.Grace, 30 * time.Second},
		{&l.BadImage, 20 * time.Second}, {&l.PullBackoff, 5 * time.Minute}, {&l.BadConfig, 30 * time.Second},
		{&l.Mount, 5 * time.Minute}, {&l.Pending, time.Hour}, {&l.PendingGPU, 24 * time.Hour},
		{&l.Settle, time.Minute}, {&l.Keep, 10 * time.Minute}, {&l.Slow, 3 * time.Second}, {&l.Away, 5 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if l.Values <= 0 {
		l.Values = 256 << 10
	}
	return l
}

// conf returns what a pipeline sets for its run.
func conf(p *dag.Pipeline) *dag.Conf {
	if p.Conf == nil {
		return &dag.Conf{}
	}
	return p.Conf
}
