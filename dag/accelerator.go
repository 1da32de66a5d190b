package dag

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// This file defines what a step asks of the devices of its machine.

// An Accelerator is what a step asks of the devices of its machine, as the
// author said it: what the names mean, and whether there is such hardware, is
// a target's to say. Nothing in it is known only at run time. Kind must be
// given; the zero value of every other field is that the author did not say.
type Accelerator struct {
	Kind string `json:"kind"` // the word that made it: one of AcceleratorKinds
	Pos  Pos    `json:"pos,omitzero"`

	// Vendor and Model name the hardware; "" is any. Of tpu, Model is the
	// version ("v5e").
	Vendor string `json:"vendor,omitempty"`
	Model  string `json:"model,omitempty"`

	// Count is how many devices the step has for itself. Of gpu and
	// accelerator, 0 is none at all; tpu, cpu_features, first_of and mps have
	// no count, and leave it 0.
	Count int `json:"count,omitempty"`

	Memory            string `json:"memory,omitempty"`            // of each device, at the least: a quantity of bytes
	ComputeCapability string `json:"computeCapability,omitempty"` // at the least: NVIDIA's ("8.0")
	Partition         string `json:"partition,omitempty"`         // a part of a device in place of a whole one: "1g.10gb", "cpx_nps4"
	Shared            bool   `json:"shared,omitempty"`            // others may use the device at the same time
	Link              string `json:"link,omitempty"`              // what the devices share: one of AcceleratorLinks
	Via               string `json:"via,omitempty"`               // how a cluster is asked: one of AcceleratorVias; "" is auto
	Shm               string `json:"shm,omitempty"`               // size of /dev/shm, a quantity of bytes; "none" leaves it alone; "" is 1/8 of the memory limit if there are several devices
	NoTolerations     bool   `json:"noTolerations,omitempty"`     // leave out the tolerations of the devices' own taints

	// Of tpu.
	Topology     string `json:"topology,omitempty"`     // of chips: "2x4"
	ChipsPerNode int    `json:"chipsPerNode,omitempty"` // 0 follows from the topology
	Spot         bool   `json:"spot,omitempty"`         // machines that may be taken away

	// Of neuron.
	Unit      string `json:"unit,omitempty"`      // what is counted: one of NeuronUnits; "" is device
	Connected bool   `json:"connected,omitempty"` // the devices must be wired to each other

	// Of cpu_features: what the processor must have or, with Prefer, should.
	Features []string `json:"features,omitempty"`
	Prefer   bool     `json:"prefer,omitempty"`

	Alternatives []*Accelerator `json:"alternatives,omitempty"` // of first_of, the best first

	// Of resource: the extended resource, and labels of the nodes that have it,
	// each with a list of values of which one must hold.
	Resource    string   `json:"resource,omitempty"`
	Selector    Object   `json:"selector,omitempty"`
	Tolerations []Object `json:"tolerations,omitempty"` // core/v1 Tolerations; of device_claim, those of devices

	// Of device_claim, as resource.k8s.io/v1 has them.
	DeviceClass string   `json:"deviceClass,omitempty"`
	CEL         []string `json:"cel,omitempty"`      // selectors, all of which must hold
	Match       string   `json:"match,omitempty"`    // an attribute that all devices share
	Capacity    Object   `json:"capacity,omitempty"` // of each device, at the least
	Config      Object   `json:"config,omitempty"`   // for the driver
}

// AcceleratorKinds are the words that make an Accelerator.
var AcceleratorKinds = []string{"accelerator", "cpu_features", "device_claim", "first_of", "gpu", "mig", "mps", "neuron", "resource", "tpu"}

// AcceleratorVias are the ways to ask a cluster: by an extended resource, by a
// claim (Dynamic Resource Allocation), or by whichever does.
var AcceleratorVias = []string{"auto", "resource", "dra"}

// AcceleratorLinks are what devices can have in common: a PCIe root, a NUMA
// node, or, of partitions, the device that they are parts of.
var AcceleratorLinks = []string{"pcie", "numa", "parent"}

// NeuronUnits are what a count of Neuron counts.
var NeuronUnits = []string{"device", "core"}

// MaxAlternatives is how many alternatives first_of may have; it is the limit
// of resource.k8s.io/v1.
const MaxAlternatives = 8

// An AcceleratorFault is what is wrong with one argument of an accelerator.
type AcceleratorFault struct {
	Arg string // the keyword of the word; "" is all of it
	Msg string
}

// Faults returns what is wrong with the request in itself, whatever hardware
// there is.
func (a *Accelerator) Faults() []AcceleratorFault {
	var faults []AcceleratorFault
	fault := func(arg, format string, args ...any) {
		faults = append(faults, AcceleratorFault{arg, fmt.Sprintf(format, args...)})
	}
	oneOf := func(arg, value string, values []string) {
		if value != "" && !slices.Contains(values, value) {
			fault(arg, "%s %q: want one of %s", arg, value, quotedList(values))
		}
	}
	if !slices.Contains(AcceleratorKinds, a.Kind) {
		fault("", "accelerator of kind %q: want one of %s", a.Kind, quotedList(AcceleratorKinds))
		return faults
	}
	if counted := a.counted(); counted && (a.Count < 0 || a.Count == 0 && !a.mayBeNone()) {
		fault("count", "count must be >= 1, got %d", a.Count)
	} else if !counted && a.Count != 0 {
		fault("count", "%s has no count, got %d", a.Kind, a.Count)
	}
	oneOf("via", a.Via, AcceleratorVias)
	oneOf("link", a.Link, AcceleratorLinks)
	switch {
	case a.Link == "":
	case a.Count == 1:
		fault("link", "link=%q with count=1 has nothing to align", a.Link)
	case a.Via == "resource":
		fault("via", `link=%q needs DRA, and via="resource" excludes it`, a.Link)
	}
	if a.Shared && a.Count > 1 {
		fault("count", "shared=True with count=%d: sharing gives no second GPU; use count=1", a.Count)
	}
	if a.Shared && a.Partition != "" {
		fault("shared", "shared and partition exclude each other")
	}
	a.ofKind(fault, oneOf)
	a.walk(func(path, text string) {
		if HasRefs(text) {
			fault(path, "%s, %s: a value known only when the pipeline runs cannot stand in an accelerator", a.Kind, path)
		}
	})
	return faults
}

// counted reports whether the kind has a count.
func (a *Accelerator) counted() bool {
	return !slices.Contains([]string{"cpu_features", "first_of", "mps", "tpu"}, a.Kind)
}

// mayBeNone reports whether a count of 0 says that there is to be no device.
func (a *Accelerator) mayBeNone() bool { return a.Kind == "gpu" || a.Kind == "accelerator" }

// None reports whether the request is for no device at all.
func (a *Accelerator) None() bool { return a.mayBeNone() && a.Count == 0 }

// ofKind finds the faults of what only one kind has.
func (a *Accelerator) ofKind(fault func(arg, format string, args ...any), oneOf func(arg, value string, values []string)) {
	needs := func(arg, value string) {
		if value == "" {
			fault(arg, "%s needs its %s", a.Kind, arg)
		}
	}
	switch a.Kind {
	case "accelerator":
		needs("spec", a.Model)
	case "mig":
		needs("profile", a.Partition)
	case "tpu":
		needs("version", a.Model)
		needs("topology", a.Topology)
		if a.ChipsPerNode < 0 {
			fault("chips_per_node", "chips_per_node must be >= 1, got %d", a.ChipsPerNode)
		}
	case "neuron":
		oneOf("unit", a.Unit, NeuronUnits)
	case "cpu_features":
		if len(a.Features) == 0 {
			fault("", "cpu_features needs the names of features")
		}
	case "resource":
		needs("name", a.Resource)
	case "device_claim":
		needs("device_class", a.DeviceClass)
	case "first_of":
		if n := len(a.Alternatives); n < 2 || n > MaxAlternatives {
			fault("", "first_of takes 2 to %d alternatives, got %d", MaxAlternatives, n)
		}
		for i, alt := range a.Alternatives {
			if slices.Contains([]string{"cpu_features", "first_of", "mps"}, alt.Kind) || alt.None() {
				fault("", "first_of: alternative %d is %s: want devices of a cluster", i+1, alt)
				continue
			}
			for _, f := range alt.Faults() {
				fault("", "first_of: alternative %d: %s", i+1, f.Msg)
			}
		}
	}
}

// walk calls f for each text, with the keyword that it was given by.
func (a *Accelerator) walk(f func(path, text string)) {
	for _, v := range []struct {
		arg  string
		tree any
	}{
		{"vendor", a.Vendor}, {"model", a.Model}, {"memory", a.Memory}, {"compute_capability", a.ComputeCapability},
		{"partition", a.Partition}, {"shm", a.Shm}, {"topology", a.Topology}, {"features", texts(a.Features)},
		{"name", a.Resource}, {"selector", a.Selector}, {"tolerations", objectList(a.Tolerations)},
		{"device_class", a.DeviceClass}, {"cel", texts(a.CEL)}, {"match", a.Match}, {"capacity", a.Capacity}, {"config", a.Config},
	} {
		WalkText(v.tree, func(_ *Field, text string) { f(v.arg, text) })
	}
}

func texts(list []string) []any {
	l := make([]any, len(list))
	for i, s := range list {
		l[i] = s
	}
	return l
}

func objectList(list []Object) []any {
	l := make([]any, len(list))
	for i, o := range list {
		l[i] = o
	}
	return l
}

func quotedList(names []string) string {
	q := make([]string, len(names))
	for i, name := range names {
		q[i] = strconv.Quote(name)
	}
	return strings.Join(q, ", ")
}

// String returns the call that makes the accelerator: gpu(2, vendor="amd").
func (a *Accelerator) String() string {
	var args []string
	arg := func(name, value string, given bool) {
		if given {
			args = append(args, name+value)
		}
	}
	text := func(name, value string) { arg(name, strconv.Quote(value), value != "") }
	tree := func(name string, v any, n int) { arg(name, PythonJSON(v), n > 0) }
	count := func(name string) { arg(name, strconv.Itoa(a.Count), a.Count != 1) }
	switch a.Kind {
	case "accelerator":
		text("", a.Model)
		count("count=")
	case "gpu", "neuron":
		count("")
		text("vendor=", a.Vendor)
		text("unit=", a.Unit)
		text("model=", a.Model)
	case "mig":
		text("", a.Partition)
		count("count=")
		text("model=", a.Model)
	case "tpu":
		text("", a.Model)
		text("topology=", a.Topology)
	case "cpu_features":
		for _, f := range a.Features {
			text("", f)
		}
	case "first_of":
		for _, alt := range a.Alternatives {
			args = append(args, alt.String())
		}
	case "resource":
		text("", a.Resource)
		count("count=")
	case "device_claim":
		text("", a.DeviceClass)
		count("count=")
	}
	text("memory=", a.Memory)
	text("compute_capability=", a.ComputeCapability)
	if a.Kind != "mig" {
		text("partition=", a.Partition)
	}
	arg("shared=", "True", a.Shared)
	text("link=", a.Link)
	arg("chips_per_node=", strconv.Itoa(a.ChipsPerNode), a.ChipsPerNode != 0)
	arg("spot=", "True", a.Spot)
	arg("connected=", "True", a.Connected)
	arg("prefer=", "True", a.Prefer)
	text("via=", a.Via)
	if a.Shm == "none" {
		arg("shm=", "None", true)
	} else {
		text("shm=", a.Shm)
	}
	arg("tolerate=", "False", a.NoTolerations)
	tree("selector=", a.Selector, len(a.Selector))
	tree("cel=", texts(a.CEL), len(a.CEL))
	text("match=", a.Match)
	tree("capacity=", a.Capacity, len(a.Capacity))
	tree("config=", a.Config, len(a.Config))
	tree("tolerations=", objectList(a.Tolerations), len(a.Tolerations))
	return a.Kind + "(" + strings.Join(args, ", ") + ")"
}

// accelerator checks what a step asks of devices.
func (v *validator) accelerator(s *Step) {
	a := s.Accelerator
	if a == nil {
		return
	}
	pos := a.Pos
	if !pos.IsValid() {
		pos = s.Pos
	}
	if s.Resource != nil {
		v.fault(pos, "step %q has an accelerator, and no container that could use it", s.Name)
	}
	for _, f := range a.Faults() {
		v.fault(pos, "step %q: %s", s.Name, f.Msg)
	}
}
