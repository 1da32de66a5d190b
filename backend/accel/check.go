package accel

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
	"github.com/kfs-project/kfs/kube"
)

// This file checks requests against the table of hardware.

// Check reports, as a dag.Errors, what the steps of a pipeline ask of devices
// and no target could give: unknown hardware, partitions and topologies that
// it does not have, more devices than a machine has.
func Check(p *dag.Pipeline) error {
	var faults dag.Errors
	for _, s := range p.Steps {
		if s.Accelerator == nil {
			continue
		}
		for _, a := range alternatives(s.Accelerator) {
			_, err := resolve(a, nil)
			faults = append(faults, dag.Faults(err)...)
		}
	}
	return faults.Err()
}

// alternatives returns those of first_of, and any other request alone.
func alternatives(a *dag.Accelerator) []*dag.Accelerator {
	if a.Kind == "first_of" {
		return a.Alternatives
	}
	return []*dag.Accelerator{a}
}

// A request is an accelerator and what the names in it mean.
type request struct {
	*dag.Accelerator
	family *family // nil: a GPU of any vendor, or hardware that is not in the table
	model  *model  // nil: any
	tpu    *tpuVersion
	chips  int   // of tpu: in one machine
	memory int64 // bytes, at the least; 0 is any
	major  int   // of the compute capability, at the least; 0 is any
	minor  int
}

// resolver collects the faults of one request.
type resolver struct {
	request
	faults dag.Errors
}

func (r *resolver) fault(format string, args ...any) {
	r.faults = append(r.faults, &dag.Error{Pos: r.Pos, Msg: fmt.Sprintf(format, args...)})
}

// resolve says what the names in a request mean; a GPU of no vendor is one of
// the family auto, which may be nil. The error is a dag.Errors.
func resolve(a *dag.Accelerator, auto *family) (request, error) {
	r := resolver{request: request{Accelerator: a}}
	switch a.Kind {
	case "tpu":
		r.family = familyNamed("tpu")
		r.topology()
	case "cpu_features":
		r.features()
	case "accelerator", "gpu", "mig", "neuron":
		r.hardware()
	}
	if a.Kind == "gpu" && r.family == nil {
		if r.family = auto; a.ComputeCapability != "" {
			r.family = familyNamed("nvidia") // no other has it
		}
	}
	if len(r.faults) == 0 {
		r.limits()
	}
	return r.request, r.faults.Err()
}

// hardware finds the family and the model.
func (r *resolver) hardware() {
	switch r.Kind {
	case "mig":
		r.family = familyNamed("nvidia")
	case "neuron":
		r.family = familyNamed("neuron")
	}
	if r.Vendor != "" {
		r.family = familyNamed(r.Vendor)
		if r.family == nil || !r.family.gpu {
			var vendors []string
			for _, f := range families {
				if f.gpu {
					vendors = append(vendors, f.name)
				}
			}
			if hint := spell.DidYouMean(r.Vendor, vendors); hint != "" {
				r.fault("vendor %q: %s", r.Vendor, hint)
			} else {
				r.fault(`vendor %q: want one of %s; for other hardware use resource("vendor.com/name")`, r.Vendor, strings.Join(vendors, ", "))
			}
			return
		}
	}
	if r.Model != "" {
		f, m, err := lookup(r.Model)
		switch {
		case err != nil:
			r.fault("%v", err)
			return
		case r.family != nil && f != r.family && r.Vendor != "":
			r.fault("%s: vendor conflict: %q is of %s, not of %s", r.Accelerator, r.Model, f.title, r.family.title)
			return
		case r.family != nil && f != r.family:
			r.fault("%s: %q is of %s, not of %s", r.Accelerator, r.Model, f.title, r.family.title)
			return
		}
		r.family, r.model = f, m
	}
	r.partition()
}

var (
	migProfile   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[1-9]g\.([1-9][0-9]*)gb(\+[a-z]+(\.[a-z]+)*)?$`) })
	amdPartition = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(spx|dpx|tpx|qpx|cpx)_nps[1248]$`) })
)

// partition checks the part of a device that is asked for.
func (r *resolver) partition() {
	part := r.Partition
	if part == "" {
		return
	}
	isMIG, isAMD := migProfile().MatchString(part), amdPartition().MatchString(part)
	if r.family == nil { // gpu(partition=...): the form says whose it is
		r.family = familyNamed("nvidia")
		if isAMD {
			r.family = familyNamed("amd")
		}
	}
	switch {
	case r.family.name != "nvidia" && r.family.name != "amd":
		r.fault("%s: only devices of NVIDIA and AMD have partitions, not those of %s; leave it out", r.Accelerator, r.family.title)
	case r.family.name == "amd" && isMIG:
		r.fault(`%s: MIG profiles are NVIDIA's; AMD partitions look like "cpx_nps4"`, r.Accelerator)
	case r.family.name == "amd" && !isAMD:
		r.fault(`partition %q: expected the form "cpx_nps4"`, part)
	case r.family.name == "nvidia" && isAMD:
		r.fault(`%s: %q is a partition of AMD's; MIG profiles look like "1g.10gb"`, r.Accelerator, part)
	case r.family.name == "nvidia" && !isMIG:
		r.fault(`mig profile %q: expected the form "1g.10gb"`, part)
	case r.family.name == "nvidia" && r.model != nil:
		r.profile()
	}
}

// profile checks a MIG profile against the model.
func (r *resolver) profile() {
	if len(r.model.mig) == 0 {
		r.fault("%s: %s has no MIG; leave the partition out", r.Accelerator, article(r.model.title))
		return
	}
	if owners := profileOwners(r.Partition); len(owners) > 0 && !slices.Contains(owners, r.model) {
		var names []string
		for _, m := range owners {
			names = append(names, m.short())
		}
		r.fault("%s: %s has %s; %s belongs to %s", r.Accelerator, article(r.model.title), strings.Join(r.model.mig, ", "), r.Partition, strings.Join(names, "/"))
	}
}

// profileOwners returns the models that have a MIG profile; none if the table
// does not know it.
func profileOwners(profile string) []*model {
	profile, _, _ = strings.Cut(profile, "+")
	var owners []*model
	for _, m := range models {
		if slices.Contains(m.mig, profile) {
			owners = append(owners, m)
		}
	}
	return owners
}

// article returns a title with its article: an A100 80GB.
func article(title string) string {
	if strings.ContainsRune("AHILMR", rune(title[0])) && !strings.HasPrefix(title, "Max") {
		return "an " + title
	}
	return "a " + title
}

// limits checks numbers: of devices, bytes, compute capability.
func (r *resolver) limits() {
	if r.Memory != "" {
		n, err := kube.Bytes(r.Memory)
		if err != nil {
			r.fault("%v", err)
		}
		r.memory = n
	}
	if r.Shm != "" && r.Shm != "none" {
		if _, err := kube.Bytes(r.Shm); err != nil {
			r.fault("shm: %v", err)
		}
	}
	if r.Shared && r.family != nil && r.family.name != "nvidia" {
		r.fault("%s: only GPUs of NVIDIA are shared, not those of %s; leave it out", r.Accelerator, r.family.title)
	}
	if r.ComputeCapability != "" {
		r.compute()
	}
	size, what := 0, ""
	if m := r.model; m != nil {
		size, what = m.gb, article(m.title)
		if m.most > 0 && r.Count > m.most && r.Partition == "" && r.Unit != "core" {
			r.fault("count %d exceeds %d, the most %q in one machine; one step is one pod on one machine: ask for %d, and split the work over more steps", r.Count, m.most, m.name, m.most)
		}
		if m.capability != "" && !r.reaches(m) {
			r.fault("%s: %s has compute capability %s; ask for that or less", r.Accelerator, what, m.capability)
		}
	}
	if part := migProfile().FindStringSubmatch(r.Partition); part != nil {
		size, _ = strconv.Atoi(part[1])
		what = "a MIG device " + r.Partition
	}
	if size > 0 && r.memory > gigabytes(size) {
		r.fault("%s: %s has %dG; ask for that or less (as on the box: G, not Gi)", r.Accelerator, what, size)
	}
}

// gigabytes returns the bytes of what is called so on the box.
func gigabytes(n int) int64 { return int64(n) * 1_000_000_000 }

// compute reads the compute capability.
func (r *resolver) compute() {
	major, minor, ok := strings.Cut(r.ComputeCapability, ".")
	x, err1 := strconv.Atoi(major)
	y, err2 := strconv.Atoi(minor)
	switch {
	case !ok || err1 != nil || err2 != nil || x < 1 || y < 0:
		r.fault(`compute_capability %q: expected the form "8.0"`, r.ComputeCapability)
	case r.family.name != "nvidia":
		r.fault("%s: compute capability is of NVIDIA's GPUs, not of %s; name a model", r.Accelerator, r.family.title)
	default:
		r.major, r.minor = x, y
	}
}

// reaches reports whether the model has the compute capability.
func (r *request) reaches(m *model) bool {
	major, minor, _ := strings.Cut(m.capability, ".")
	x, _ := strconv.Atoi(major)
	y, _ := strconv.Atoi(minor)
	return x > r.major || x == r.major && y >= r.minor
}

// topology checks a slice of TPUs, and finds how many chips its machines have.
func (r *resolver) topology() {
	v := tpuNamed(r.Model)
	if v == nil {
		var names []string
		for _, v := range tpuVersions {
			names = append(names, v.name)
		}
		if hint := spell.DidYouMean(r.Model, names); hint != "" {
			r.fault("tpu version %q: %s", r.Model, hint)
		} else {
			r.fault("tpu version %q: want one of %s", r.Model, strings.Join(names, ", "))
		}
		return
	}
	call := fmt.Sprintf("tpu(%q, topology=%q)", r.Model, r.Topology)
	chips := v.chips(r.Topology)
	if chips == 0 {
		r.fault("%s: %s is not a %s topology; choose %s", call, r.Topology, v.name, v.topologies())
		return
	}
	host := 4
	switch {
	case chips == 1:
		host = 1
	case v.flat && chips == 8 && r.ChipsPerNode == 0:
		r.fault("%s fits one 8-chip host or two 4-chip hosts: pass chips_per_node=8 or 4", call)
		return
	case v.flat && chips == 8 && r.ChipsPerNode == 8:
		host = 8
	}
	switch {
	case r.ChipsPerNode != 0 && r.ChipsPerNode != host:
		r.fault("%s: its hosts have %d chips each: pass chips_per_node=%d, or leave it out", r.Accelerator, host, host)
	case chips > host:
		r.fault("%s needs %d chips on %d hosts (%d chips each): one step is one pod; make the slice's pods by an object of their own, such as a JobSet, with resource_op(...)",
			call, chips, chips/host, host)
	}
	r.tpu, r.chips = v, host
}

// features checks the names of features of processors.
func (r *resolver) features() {
	for _, name := range r.Features {
		if featureLabel(name) != "" {
			continue
		}
		var names, like []string
		for _, f := range cpuFeatures {
			names = append(names, f.name)
			if strings.HasPrefix(f.name, name) && name != "" {
				like = append(like, strconv.Quote(f.name))
			}
		}
		switch nearest := spell.Nearest(name, names); {
		case len(like) > 0:
			r.fault("cpu_features(%q): did you mean %s?", name, strings.Join(like, ", "))
		case nearest != "":
			r.fault("cpu_features(%q): did you mean %q?", name, nearest)
		default:
			r.fault("cpu_features(%q): want some of %s", name, strings.Join(names, ", "))
		}
	}
}

// Warnings returns what the steps ask of devices that is probably not meant,
// of a pipeline that Check passes.
func Warnings(p *dag.Pipeline, profile Profile) dag.Errors {
	var warnings dag.Errors
	for _, s := range p.Steps {
		if s.Accelerator == nil {
			continue
		}
		for _, a := range alternatives(s.Accelerator) {
			r, err := resolve(a, profile.vendor())
			if err != nil {
				continue
			}
			warn := func(format string, args ...any) {
				warnings = append(warnings, &dag.Error{Pos: a.Pos, Msg: fmt.Sprintf(format, args...)})
			}
			mig := migProfile().MatchString(r.Partition)
			if mig && r.Count > 1 {
				warn("%s: CUDA uses one MIG device per process; %d only helps a step that starts %d processes", r.Accelerator, r.Count, r.Count)
			}
			if mig && len(profileOwners(r.Partition)) == 0 {
				warn("%s: no model of the table has the MIG profile %s", r.Accelerator, r.Partition)
			}
			if m := r.model; m != nil && m.vague {
				warn("%s: no label of nodes tells %s from others of its family; any node with %s may run the step", r.Accelerator, article(m.title), m.extended())
			}
			if r.Kind != "resource" && r.Kind != "device_claim" && r.Count > 8 && r.Partition == "" && r.Unit != "core" && (r.model == nil || r.model.most == 0) {
				warn("%s: few machines have more than 8 such devices", r.Accelerator)
			}
		}
	}
	sorted, _ := warnings.Err().(dag.Errors)
	return sorted
}
