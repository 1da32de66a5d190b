package accel

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/kube"
)

// step is a step with an accelerator, at x.star:1:1.
func step(a *dag.Accelerator) *dag.Step {
	at(a)
	return &dag.Step{Name: "train", Container: dag.Object{{Name: "image", Value: "i"}}, Accelerator: a}
}

func at(a *dag.Accelerator) {
	a.Pos = dag.Pos{File: "x.star", Line: 1, Col: 1}
	for _, alt := range a.Alternatives {
		at(alt)
	}
}

func spec(name string, count int) *dag.Accelerator {
	return &dag.Accelerator{Kind: "accelerator", Model: name, Count: count}
}

func gpu(vendor string) *dag.Accelerator {
	return &dag.Accelerator{Kind: "gpu", Vendor: vendor, Count: 1}
}

func with(a *dag.Accelerator, change func(a *dag.Accelerator)) *dag.Accelerator {
	change(a)
	return a
}

// TestFaults has each message about hardware that there is not, or that cannot
// be asked for. All of them have the place of the request.
func TestFaults(t *testing.T) {
	claims := "a claim (DRA) comes from a ResourceClaimTemplate, an object that a compiled pipeline does not bring along"
	for _, tt := range []struct {
		in      *dag.Accelerator
		profile Profile
		want    string
	}{
		{spec("nvidia-a100-80g", 1), "", `unknown accelerator "nvidia-a100-80g": did you mean "nvidia-a100-80gb"? (kfs accel list shows all; for other hardware use resource("vendor.com/name"))`},
		{spec("nvidia-tesla-t4", 1), "", `accelerator "nvidia-tesla-t4" is a label of nodes: write "t4"`},
		{spec("NVIDIA-A100-SXM4-40GB", 1), "", `accelerator "NVIDIA-A100-SXM4-40GB" is a label of nodes: write "a100-40gb"`},
		{spec("abacus", 1), "", `unknown accelerator "abacus" (kfs accel list shows all; for other hardware use resource("vendor.com/name"))`},
		{spec("nvidia-a100-80g", 0), "", `unknown accelerator "nvidia-a100-80g": did you mean "nvidia-a100-80gb"? (kfs accel list shows all; for other hardware use resource("vendor.com/name"))`},
		{spec("a100", 1), "", `ambiguous accelerator "a100": write "a100-40gb" or "a100-80gb"`},
		{spec("nvidia-v100", 1), "", `ambiguous accelerator "nvidia-v100": write "nvidia-v100-16gb" or "nvidia-v100-32gb"`},
		{spec("tpu-v5e", 1), "", `accelerator "tpu-v5e" is a TPU, which has a topology: write tpu("v5e", topology=...)`},
		{spec("tpu", 1), "", `accelerator "tpu" is a TPU, which has a topology: write tpu("v5e", topology=...)`},
		{spec("nvidia-h100-80gb", 9), "", `count 9 exceeds 8, the most "nvidia-h100-80gb" in one machine; one step is one pod on one machine: ask for 8, and split the work over more steps`},
		{with(spec("t4", 1), func(a *dag.Accelerator) { a.Memory = "40G" }), "", `accelerator("t4", memory="40G"): a T4 has 16G; ask for that or less (as on the box: G, not Gi)`},
		{with(spec("a100-40gb", 1), func(a *dag.Accelerator) { a.Memory = "40Gi" }), "", `accelerator("a100-40gb", memory="40Gi"): an A100 40GB has 40G; ask for that or less (as on the box: G, not Gi)`},
		{with(spec("amd-mi300x", 1), func(a *dag.Accelerator) { a.Partition = "1g.10gb" }), "", `accelerator("amd-mi300x", partition="1g.10gb"): MIG profiles are NVIDIA's; AMD partitions look like "cpx_nps4"`},
		{with(spec("amd-mi300x", 1), func(a *dag.Accelerator) { a.Partition = "half" }), "", `partition "half": expected the form "cpx_nps4"`},
		{with(spec("a30", 1), func(a *dag.Accelerator) { a.Partition = "cpx_nps4" }), "", `accelerator("a30", partition="cpx_nps4"): "cpx_nps4" is a partition of AMD's; MIG profiles look like "1g.10gb"`},
		{with(spec("gaudi3", 1), func(a *dag.Accelerator) { a.Partition = "1g.10gb" }), "", `accelerator("gaudi3", partition="1g.10gb"): only devices of NVIDIA and AMD have partitions, not those of Gaudi; leave it out`},
		{with(spec("mi300x", 1), func(a *dag.Accelerator) { a.Shared = true }), "", `accelerator("mi300x", shared=True): only GPUs of NVIDIA are shared, not those of AMD; leave it out`},
		{with(gpu("amd"), func(a *dag.Accelerator) { a.Model = "nvidia-t4" }), "", `gpu(vendor="amd", model="nvidia-t4"): vendor conflict: "nvidia-t4" is of NVIDIA, not of AMD`},
		{gpu("nvida"), "", `vendor "nvida": did you mean "nvidia"?`},
		{gpu("acme"), "", `vendor "acme": want one of nvidia, amd, intel, metax; for other hardware use resource("vendor.com/name")`},
		{with(gpu("nvidia"), func(a *dag.Accelerator) { a.ComputeCapability = "eight" }), "", `compute_capability "eight": expected the form "8.0"`},
		{with(gpu("amd"), func(a *dag.Accelerator) { a.ComputeCapability = "8.0" }), "", `gpu(vendor="amd", compute_capability="8.0"): compute capability is of NVIDIA's GPUs, not of AMD; name a model`},
		{with(spec("t4", 1), func(a *dag.Accelerator) { a.ComputeCapability = "8.0" }), "", `accelerator("t4", compute_capability="8.0"): a T4 has compute capability 7.5; ask for that or less`},
		{with(gpu("nvidia"), func(a *dag.Accelerator) { a.Memory = "much" }), "", `memory "much" is not a quantity: want a number with an optional unit, such as "512Mi" or "2G"`},
		{with(gpu("nvidia"), func(a *dag.Accelerator) { a.Shm = "much" }), "", `shm: memory "much" is not a quantity: want a number with an optional unit, such as "512Mi" or "2G"`},

		{&dag.Accelerator{Kind: "mig", Partition: "1g10gb", Count: 1}, "", `mig profile "1g10gb": expected the form "1g.10gb"`},
		{&dag.Accelerator{Kind: "mig", Partition: "1g.12gb", Count: 1, Model: "nvidia-a100-40gb"}, "", `mig("1g.12gb", model="nvidia-a100-40gb"): an A100 40GB has 1g.5gb, 1g.10gb, 2g.10gb, 3g.20gb, 4g.20gb, 7g.40gb; 1g.12gb belongs to h20-96gb/h100-94gb/gh200-96gb`},
		{&dag.Accelerator{Kind: "mig", Partition: "1g.12gb", Count: 1, Model: "t4"}, "", `mig("1g.12gb", model="t4"): a T4 has no MIG; leave the partition out`},
		{&dag.Accelerator{Kind: "mig", Partition: "1g.12gb", Count: 1, Model: "mi300x"}, "", `mig("1g.12gb", model="mi300x"): "mi300x" is of AMD, not of NVIDIA`},

		{&dag.Accelerator{Kind: "tpu", Model: "v5", Topology: "2x2"}, "", `tpu version "v5": want one of v4, v5e, v5p, v6e, v7x`},
		{&dag.Accelerator{Kind: "tpu", Model: "v5e", Topology: "2x3"}, "", `tpu("v5e", topology="2x3"): 2x3 is not a v5e topology; choose 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16`},
		{&dag.Accelerator{Kind: "tpu", Model: "v4", Topology: "2x2"}, "", `tpu("v4", topology="2x2"): 2x2 is not a v4 topology; choose 2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4 or a larger one of multiples of 4`},
		{&dag.Accelerator{Kind: "tpu", Model: "v5e", Topology: "4x4"}, "", `tpu("v5e", topology="4x4") needs 16 chips on 4 hosts (4 chips each): one step is one pod; make the slice's pods by an object of their own, such as a JobSet, with resource_op(...)`},
		{&dag.Accelerator{Kind: "tpu", Model: "v5p", Topology: "4x4x8"}, "", `tpu("v5p", topology="4x4x8") needs 128 chips on 32 hosts (4 chips each): one step is one pod; make the slice's pods by an object of their own, such as a JobSet, with resource_op(...)`},
		{&dag.Accelerator{Kind: "tpu", Model: "v5e", Topology: "2x4"}, "", `tpu("v5e", topology="2x4") fits one 8-chip host or two 4-chip hosts: pass chips_per_node=8 or 4`},
		{&dag.Accelerator{Kind: "tpu", Model: "v5e", Topology: "2x4", ChipsPerNode: 4}, "", `tpu("v5e", topology="2x4") needs 8 chips on 2 hosts (4 chips each): one step is one pod; make the slice's pods by an object of their own, such as a JobSet, with resource_op(...)`},
		{&dag.Accelerator{Kind: "tpu", Model: "v5e", Topology: "2x2", ChipsPerNode: 8}, "", `tpu("v5e", topology="2x2", chips_per_node=8): its hosts have 4 chips each: pass chips_per_node=4, or leave it out`},

		{&dag.Accelerator{Kind: "neuron", Count: 1, Model: "t4"}, "", `neuron(model="t4"): "t4" is of NVIDIA, not of Neuron`},
		{&dag.Accelerator{Kind: "neuron", Count: 1, Connected: true}, "", `neuron(connected=True): connected=True needs DRA: ` + claims + `; leave connected out`},
		{&dag.Accelerator{Kind: "cpu_features", Features: []string{"amx"}}, "", `cpu_features("amx"): did you mean "amx_tile", "amx_bf16", "amx_int8"?`},
		{&dag.Accelerator{Kind: "cpu_features", Features: []string{"axv2"}}, "", `cpu_features("axv2"): did you mean "avx2"?`},
		{&dag.Accelerator{Kind: "cpu_features", Features: []string{"sse"}}, "", `cpu_features("sse"): want some of amx_tile, amx_bf16, amx_int8, avx, avx2, avx_vnni, avx512f, avx512bw, avx512cd, avx512dq, avx512vl, avx512_bf16, avx512_fp16, avx512_vnni, fma`},

		{gpu(""), "", `gpu(): whose GPU is known only in a cluster: write gpu(vendor="nvidia"), or say what the cluster has: --accel-profile gfd for NVIDIA's labels, or another one of gke, eks-karpenter, gfd, amd-labeller`},
		{gpu("intel"), "", `gpu(vendor="intel"): the devices of Intel have several extended resources: name a model, or write resource("gpu.intel.com/xe") or resource("gpu.intel.com/i915")`},
		{spec("ascend", 1), "", `accelerator("ascend"): the devices of Ascend have several extended resources: name a model, or write resource("huawei.com/Ascend310"), resource("huawei.com/Ascend310P") or resource("huawei.com/Ascend910")`},
		{with(gpu("amd"), func(a *dag.Accelerator) { a.Memory = "300G" }), "", `gpu(vendor="amd", memory="300G"): no device of AMD with so much is known by a label; name a model, or ask for less`},
		{spec("nvidia-l40", 1), GKE, `accelerator("nvidia-l40"): the nodes of this profile have no label for an L40; choose another --accel-profile, or write resource("nvidia.com/gpu", selector={...})`},
		{with(gpu("nvidia"), func(a *dag.Accelerator) { a.Shared = true }), EKSKarpenter, `gpu(vendor="nvidia", shared=True): no label of Karpenter tells nodes with shared GPUs; choose --accel-profile gfd`},
		{with(gpu("nvidia"), func(a *dag.Accelerator) { a.Via = "dra" }), "", `gpu(vendor="nvidia", via="dra"): ` + claims + `; leave via out to ask for an extended resource`},
		{with(gpu("nvidia"), func(a *dag.Accelerator) { a.Count, a.Link = 2, "pcie" }), "", `link="pcie" needs DRA (via="dra"): ` + claims + `; leave link out`},
		{&dag.Accelerator{Kind: "device_claim", DeviceClass: "gpu.nvidia.com", Count: 1}, "", `device_claim("gpu.nvidia.com"): ` + claims + `; request an extended resource, such as gpu(...) or resource("vendor.com/name")`},
		{&dag.Accelerator{Kind: "mps"}, "", `mps() is for local runs; on Kubernetes request gpu(...)`},
		{&dag.Accelerator{Kind: "first_of", Alternatives: []*dag.Accelerator{spec("h100-80gb", 1), spec("mi300x", 1)}}, "",
			`first_of needs DRA, or alternatives that differ only in node labels: the same number of devices of one extended resource, and one shm; ` + claims},
		{&dag.Accelerator{Kind: "first_of", Alternatives: []*dag.Accelerator{spec("h100-80gb", 2), spec("h100-80gb", 1)}}, "",
			`first_of needs DRA, or alternatives that differ only in node labels: the same number of devices of one extended resource, and one shm; ` + claims},
	} {
		_, err := Place(&dag.Pipeline{Steps: []*dag.Step{step(tt.in)}}, tt.profile)
		if err == nil || err.Error() != "x.star:1:1: "+tt.want {
			t.Errorf("Place with %s on %q:\n%v\nwant\nx.star:1:1: %s", tt.in, tt.profile, err, tt.want)
		}
	}
}

// TestCheck shows which faults hold whatever the target.
func TestCheck(t *testing.T) {
	p := &dag.Pipeline{Steps: []*dag.Step{
		step(spec("a100", 1)), step(&dag.Accelerator{Kind: "mps"}), step(gpu("")), step(with(gpu("amd"), func(a *dag.Accelerator) { a.Via = "dra" })),
		step(&dag.Accelerator{Kind: "first_of", Alternatives: []*dag.Accelerator{spec("h200", 1), spec("x9", 1), spec("mi300x", 2)}}),
		{Name: "none"},
	}}
	const want = `x.star:1:1: ambiguous accelerator "a100": write "a100-40gb" or "a100-80gb"
x.star:1:1: unknown accelerator "x9" (kfs accel list shows all; for other hardware use resource("vendor.com/name"))`
	if err := Check(p); err == nil || err.Error() != want {
		t.Errorf("Check = %v; want\n%s", err, want)
	}
}

// TestConflicts has limits of the step's own beside an accelerator.
func TestConflicts(t *testing.T) {
	neuron := &dag.Accelerator{Kind: "neuron", Count: 1}
	for _, tt := range []struct {
		in              *dag.Accelerator
		resource, value string
		want            string
	}{
		{gpu("nvidia"), "amd.com/gpu", "1", `step "train" sets both gpu(vendor="nvidia") and a limit of amd.com/gpu: vendor conflict; first_of(...) expresses alternatives`},
		{gpu("nvidia"), "cloud-tpus.google.com/v3", "8", `step "train" sets both gpu(vendor="nvidia") and a limit of cloud-tpus.google.com/v3: vendor conflict; first_of(...) expresses alternatives`},
		{gpu("nvidia"), "nvidia.com/mig-1g.5gb", "1", `step "train" sets both gpu(vendor="nvidia") and a limit of nvidia.com/mig-1g.5gb: leave out one of them`},
		{gpu("nvidia"), "nvidia.com/gpu", "2", `step "train" sets both gpu(vendor="nvidia") and nvidia.com/gpu to 2: leave out one of them`},
		{neuron, "aws.amazon.com/neuroncore", "2", `neuron(unit="device") and neuron(unit="core") in one step: choose one`},
		{gpu("nvidia"), "nvidia.com/gpu", "1", ""},
		{gpu("nvidia"), "rdma/hca", "1", ""},
		{gpu("nvidia"), "memory", "1Gi", ""},
	} {
		s := step(tt.in)
		s.Container.Set(tt.value, "resources", "limits", tt.resource)
		_, err := Schedule(s, "")
		got := ""
		if err != nil {
			got = strings.TrimPrefix(err.Error(), "x.star:1:1: ")
		}
		if got != tt.want {
			t.Errorf("Schedule of %s with %s=%s: %s; want %s", tt.in, tt.resource, tt.value, got, tt.want)
		}
	}
}

// scheduling is a Scheduling as text: limits, terms, preferred, tolerations,
// shm, as far as they are not empty.
func scheduling(x *Scheduling) string {
	list := func(objs []dag.Object) string {
		var b []string
		for _, o := range objs {
			b = append(b, terse(o))
		}
		return strings.Join(b, "\nor ")
	}
	out := ""
	for _, part := range []struct{ name, text string }{
		{"limits", terse(x.Limits)}, {"nodes", list(x.Terms)}, {"better", list(x.Preferred)}, {"tolerates", list(x.Tolerations)}, {"shm", x.Shm},
	} {
		if part.text != "" {
			out += part.name + " " + part.text + "\n"
		}
	}
	return out
}

// terse is a tree as short text.
func terse(v any) string {
	switch v := v.(type) {
	case dag.Object:
		if key, ok := v.Get("key").(string); ok && v.Get("effect") == nil {
			return strings.TrimSpace(key + " " + v.Get("operator").(string) + " " + terse(v.Get("values")))
		}
		var b []string
		for _, m := range v {
			b = append(b, m.Name+": "+terse(m.Value))
		}
		return strings.TrimPrefix(strings.Join(b, ", "), "matchExpressions: ")
	case []any:
		var b []string
		for _, e := range v {
			b = append(b, terse(e))
		}
		return strings.Join(b, " + ")
	case nil:
		return ""
	}
	return strings.Trim(dag.PythonJSON(v), `"`)
}

const (
	nvidiaTaint = "tolerates effect: NoSchedule, key: nvidia.com/gpu, operator: Exists\n"
	amdTaint    = "tolerates effect: NoSchedule, key: amd.com/gpu, operator: Exists\n"
)

func TestSchedule(t *testing.T) {
	const whole = "cloud.google.com/gke-gpu-partition-size DoesNotExist + cloud.google.com/gke-gpu-sharing-strategy DoesNotExist"
	memory := func(vendor string) *dag.Accelerator {
		return with(gpu(vendor), func(a *dag.Accelerator) { a.Memory = "40G" })
	}
	capable := func(c string) *dag.Accelerator {
		return with(gpu("nvidia"), func(a *dag.Accelerator) { a.ComputeCapability = c })
	}
	shared := func(a *dag.Accelerator) *dag.Accelerator {
		return with(a, func(a *dag.Accelerator) { a.Shared = true })
	}
	for _, tt := range []struct {
		in      *dag.Accelerator
		profile Profile
		want    string
	}{
		{gpu("nvidia"), "", "limits nvidia.com/gpu: 1\n" + nvidiaTaint},
		{gpu(""), GFD, "limits nvidia.com/gpu: 1\n" + nvidiaTaint},
		{gpu(""), AMDLabeller, "limits amd.com/gpu: 1\n" + amdTaint},
		{gpu(""), GKE, "limits nvidia.com/gpu: 1\nnodes " + whole + "\n" + nvidiaTaint},
		{gpu("metax"), "", "limits metax-tech.com/gpu: 1\n"},
		{with(gpu(""), func(a *dag.Accelerator) { a.Count = 0 }), "", ""},
		{with(gpu("amd"), func(a *dag.Accelerator) { a.NoTolerations = true }), "", "limits amd.com/gpu: 1\n"},
		{spec("a100-80gb", 1), "", "limits nvidia.com/gpu: 1\nnodes nvidia.com/gpu.product In NVIDIA-A100-SXM4-80GB + NVIDIA-A100-80GB-PCIe + A100-SXM4-80GB\n" + nvidiaTaint},
		{spec("H200", 1), GKE, "limits nvidia.com/gpu: 1\nnodes cloud.google.com/gke-accelerator In nvidia-h200-141gb + " + whole + "\n" + nvidiaTaint},
		{spec("a100-80gb", 1), EKSKarpenter, "limits nvidia.com/gpu: 1\nnodes karpenter.k8s.aws/instance-gpu-name In a100 + karpenter.k8s.aws/instance-gpu-memory In 81920\n" + nvidiaTaint},
		{spec("l4", 1), EKSKarpenter, "limits nvidia.com/gpu: 1\nnodes karpenter.k8s.aws/instance-gpu-name In l4\n" + nvidiaTaint},
		{shared(spec("t4", 1)), "", "limits nvidia.com/gpu: 1\nnodes nvidia.com/gpu.product In Tesla-T4-SHARED + nvidia.com/gpu.sharing-strategy In time-slicing + mps\n" + nvidiaTaint},
		{shared(gpu("nvidia")), GKE, "limits nvidia.com/gpu: 1\nnodes cloud.google.com/gke-gpu-partition-size DoesNotExist + cloud.google.com/gke-gpu-sharing-strategy In time-sharing + mps\n" + nvidiaTaint},
		{memory("nvidia"), "", "limits nvidia.com/gpu: 1\nnodes nvidia.com/gpu.memory Gt 38146 + nvidia.com/gpu.sharing-strategy NotIn time-slicing + mps + nvidia.com/mig.strategy NotIn single\n" + nvidiaTaint},
		{memory("nvidia"), EKSKarpenter, "limits nvidia.com/gpu: 1\nnodes karpenter.k8s.aws/instance-gpu-memory Gt 38146\n" + nvidiaTaint},
		{with(memory("nvidia"), func(a *dag.Accelerator) { a.Memory = "141G" }), GKE, "limits nvidia.com/gpu: 1\nnodes cloud.google.com/gke-accelerator In nvidia-h200-141gb + nvidia-b200 + nvidia-gb200 + " + whole + "\n" + nvidiaTaint},
		{with(memory("amd"), func(a *dag.Accelerator) { a.Memory = "200G" }), "", "limits amd.com/gpu: 1\nnodes amd.com/gpu.device-id In 74a5 + 75a0 + 75a3\n" + amdTaint},
		{capable("8.0"), "", "limits nvidia.com/gpu: 1\nnodes nvidia.com/gpu.compute.major Gt 7 + nvidia.com/gpu.sharing-strategy NotIn time-slicing + mps + nvidia.com/mig.strategy NotIn single\n" + nvidiaTaint},
		{shared(capable("8.6")), "", "limits nvidia.com/gpu: 1\nnodes nvidia.com/gpu.compute.major In 8 + nvidia.com/gpu.compute.minor Gt 5 + nvidia.com/gpu.sharing-strategy In time-slicing + mps\n" +
			"or nvidia.com/gpu.compute.major Gt 8 + nvidia.com/gpu.sharing-strategy In time-slicing + mps\n" + nvidiaTaint},
		{capable("10.0"), EKSKarpenter, "limits nvidia.com/gpu: 1\nnodes karpenter.k8s.aws/instance-gpu-name In b200\n" + nvidiaTaint},
		{&dag.Accelerator{Kind: "mig", Partition: "1g.10gb", Count: 1}, "", "limits nvidia.com/mig-1g.10gb: 1\n" + nvidiaTaint},
		{&dag.Accelerator{Kind: "mig", Partition: "1g.10gb+me", Count: 1, Model: "a100-80gb"}, "", "limits nvidia.com/mig-1g.10gb.me: 1\nnodes nvidia.com/gpu.product In NVIDIA-A100-SXM4-80GB + NVIDIA-A100-80GB-PCIe + A100-SXM4-80GB\n" + nvidiaTaint},
		{&dag.Accelerator{Kind: "mig", Partition: "1g.5gb", Count: 1, Model: "a100-40gb"}, GKE, "limits nvidia.com/gpu: 1\nnodes cloud.google.com/gke-accelerator In nvidia-tesla-a100 + cloud.google.com/gke-gpu-partition-size In 1g.5gb + cloud.google.com/gke-gpu-sharing-strategy DoesNotExist\n" + nvidiaTaint},
		{with(spec("mi300x", 1), func(a *dag.Accelerator) { a.Partition = "cpx_nps4" }), "", "limits amd.com/cpx_nps4: 1\nnodes amd.com/gpu.device-id In 74a1\n" + amdTaint},
		{with(gpu(""), func(a *dag.Accelerator) { a.ComputeCapability = "12.0" }), GKE, "limits nvidia.com/gpu: 1\nnodes cloud.google.com/gke-accelerator In nvidia-rtx-pro-6000 + " + whole + "\n" + nvidiaTaint},
		{with(gpu(""), func(a *dag.Accelerator) { a.Partition = "1g.10gb" }), "", "limits nvidia.com/mig-1g.10gb: 1\n" + nvidiaTaint},
		{spec("intel-max-1550", 1), "", "limits gpu.intel.com/i915: 1\nnodes gpu.intel.com/product In Max_1550\n"},
		{spec("gaudi3", 1), "", "limits habana.ai/gaudi: 1\n"},
		{spec("ascend-910", 1), "", "limits huawei.com/Ascend910: 1\nnodes accelerator In huawei-Ascend910\n"},
		{spec("neuron", 1), "", "limits aws.amazon.com/neuron: 1\ntolerates effect: NoSchedule, key: aws.amazon.com/neuron, operator: Exists\n"},
		{&dag.Accelerator{Kind: "neuron", Count: 4, Unit: "core", Model: "trn2"}, "", "limits aws.amazon.com/neuroncore: 4\nnodes node.kubernetes.io/instance-type In trn2.3xlarge + trn2.48xlarge + trn2u.48xlarge\n" +
			"tolerates effect: NoSchedule, key: aws.amazon.com/neuron, operator: Exists\n"},
		{&dag.Accelerator{Kind: "tpu", Model: "v5e", Topology: "2x4", ChipsPerNode: 8, Spot: true}, "", "limits google.com/tpu: 8\n" +
			"nodes cloud.google.com/gke-tpu-accelerator In tpu-v5-lite-podslice + cloud.google.com/gke-tpu-topology In 2x4 + cloud.google.com/gke-spot In true\n" +
			"tolerates effect: NoSchedule, key: cloud.google.com/gke-spot, operator: Equal, value: true\nor effect: NoSchedule, key: google.com/tpu, operator: Exists\n"},
		{&dag.Accelerator{Kind: "tpu", Model: "v7x", Topology: "1x1x1"}, "", "limits google.com/tpu: 1\nnodes cloud.google.com/gke-tpu-accelerator In tpu7x + cloud.google.com/gke-tpu-topology In 1x1x1\n" +
			"tolerates effect: NoSchedule, key: google.com/tpu, operator: Exists\n"},
		{&dag.Accelerator{Kind: "cpu_features", Features: []string{"amx_bf16", "fma"}}, "", "nodes feature.node.kubernetes.io/cpu-cpuid.AMXBF16 Exists + feature.node.kubernetes.io/cpu-cpuid.FMA3 Exists\n"},
		{&dag.Accelerator{Kind: "cpu_features", Features: []string{"avx2"}, Prefer: true}, "", "better preference: feature.node.kubernetes.io/cpu-cpuid.AVX2 Exists, weight: 100\n"},
		{&dag.Accelerator{Kind: "resource", Resource: "vendor.com/x", Count: 3, Selector: dag.Object{{Name: "a", Value: []any{"b", "c"}}, {Name: "d", Value: []any{""}}},
			Tolerations: []dag.Object{{{Name: "effect", Value: "NoExecute"}, {Name: "key", Value: "k"}}}}, "",
			"limits vendor.com/x: 3\nnodes a In b + c + d In\ntolerates effect: NoExecute, key: k\n"},
		{&dag.Accelerator{Kind: "first_of", Alternatives: []*dag.Accelerator{spec("h200", 1), spec("gh200", 1), spec("l4", 1)}}, "",
			"limits nvidia.com/gpu: 1\nnodes nvidia.com/gpu.product In NVIDIA-H200 + NVIDIA-H200-NVL\nor nvidia.com/gpu.product In NVIDIA-GH200-480GB\nor nvidia.com/gpu.product In NVIDIA-L4\n" +
				"better preference: nvidia.com/gpu.product In NVIDIA-H200 + NVIDIA-H200-NVL, weight: 100\nor preference: nvidia.com/gpu.product In NVIDIA-GH200-480GB, weight: 50\n" + nvidiaTaint},
		{&dag.Accelerator{Kind: "first_of", Alternatives: []*dag.Accelerator{spec("l4", 1), gpu("nvidia")}}, "",
			"limits nvidia.com/gpu: 1\nbetter preference: nvidia.com/gpu.product In NVIDIA-L4, weight: 100\n" + nvidiaTaint},
	} {
		x, err := Schedule(step(tt.in), tt.profile)
		if err != nil {
			t.Errorf("Schedule of %s on %q: %v", tt.in, tt.profile, err)
			continue
		}
		if diff := cmp.Diff(tt.want, scheduling(x)); diff != "" {
			t.Errorf("Schedule of %s on %q (-want +got):\n%s", tt.in, tt.profile, diff)
		}
	}
}

func TestShm(t *testing.T) {
	for _, tt := range []struct {
		count            int
		shm, limit, want string
	}{
		{1, "", "", ""},
		{1, "1Gi", "", "1Gi"},
		{2, "", "", "4Gi"},
		{8, "", "", "16Gi"},
		{2, "", "64Gi", "8Gi"},
		{2, "", "10G", "1192Mi"},
		{2, "", "100Mi", "64Mi"},
		{2, "none", "64Gi", ""},
		{2, "", dag.Ref{Kind: dag.RefParam, Name: "m"}.Token(), "4Gi"},
	} {
		s := step(with(gpu("nvidia"), func(a *dag.Accelerator) { a.Count, a.Shm = tt.count, tt.shm }))
		if tt.limit != "" {
			s.Container.Set(tt.limit, "resources", "limits", "memory")
		}
		if x, err := Schedule(s, ""); err != nil || x.Shm != tt.want {
			t.Errorf("gpu(%d, shm=%q) with a memory limit of %q: shm %q, %v; want %q", tt.count, tt.shm, dag.Display(tt.limit), x.Shm, err, tt.want)
		}
	}
}

// TestPlace shows how what an accelerator asks for joins what the step has.
func TestPlace(t *testing.T) {
	var s, want *dag.Step
	object := func(text string) dag.Object {
		var o dag.Object
		if err := o.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return o
	}
	s = step(&dag.Accelerator{Kind: "first_of", Alternatives: []*dag.Accelerator{spec("l4", 2), spec("a30", 2)}})
	s.Container = object(`{"image": "i", "resources": {"limits": {"memory": "16Gi"}}, "volumeMounts": [{"mountPath": "/d", "name": "shm"}]}`)
	s.Volumes = []dag.Object{object(`{"name": "shm"}`)}
	s.Tolerations = []dag.Object{object(`{"operator": "Exists", "key": "nvidia.com/gpu", "effect": "NoSchedule"}`)}
	s.Affinity = object(`{"podAffinity": {}, "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}],
		"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}, {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}}}`)
	w := *s
	want = &w
	want.Container = object(`{"image": "i", "resources": {"limits": {"memory": "16Gi", "nvidia.com/gpu": "2"}}, "volumeMounts": [{"mountPath": "/d", "name": "shm"}, {"mountPath": "/dev/shm", "name": "shm-2"}]}`)
	want.Volumes = append(want.Volumes, object(`{"emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}, "name": "shm-2"}`))
	const l4, a30 = `{"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-L4"]}`, `{"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-A30"]}`
	const a, n = `{"key": "a", "operator": "Exists"}`, `"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]`
	want.Affinity = object(`{"podAffinity": {}, "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}, {"preference": {"matchExpressions": [` + l4 + `]}, "weight": 100}],
		"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
			{"matchExpressions": [` + a + `, ` + l4 + `]}, {"matchExpressions": [` + a + `, ` + a30 + `]},
			{` + n + `, "matchExpressions": [` + l4 + `]}, {` + n + `, "matchExpressions": [` + a30 + `]}]}}}`)

	p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{{Name: "other"}, s}}
	before, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	placed, err := Place(p, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, placed.Steps[1]); diff != "" {
		t.Errorf("Place (-want +got):\n%s", diff)
	}
	if after, err := p.JSON(); err != nil || string(before) != string(after) || placed.Steps[0] != p.Steps[0] {
		t.Errorf("Place changed the pipeline that it was given (%v):\n%s", err, cmp.Diff(string(before), string(after)))
	}
	if err := kube.Check(placed); err != nil {
		t.Errorf("Kubernetes refuses what Place makes: %v", err)
	}
	if same, err := Place(&dag.Pipeline{Steps: p.Steps[:1]}, ""); err != nil || same.Steps[0] != p.Steps[0] {
		t.Errorf("Place of a pipeline without accelerators = %v, %v", same, err)
	}
}

// TestShmOfItsOwn shows that a /dev/shm of the step's own stays the only one.
func TestShmOfItsOwn(t *testing.T) {
	s := step(with(gpu("nvidia"), func(a *dag.Accelerator) { a.Count = 2 }))
	s.Container.Append("volumeMounts", dag.Object{{Name: "mountPath", Value: "/dev/shm"}, {Name: "name", Value: "mine"}})
	placed, err := Place(&dag.Pipeline{Steps: []*dag.Step{s}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if mounts := placed.Steps[0].Container.Get("volumeMounts").([]any); len(mounts) != 1 || len(placed.Steps[0].Volumes) != 0 {
		t.Errorf("mounts %v, volumes %v; want the step's own alone", mounts, placed.Steps[0].Volumes)
	}
}

func TestWarnings(t *testing.T) {
	p := &dag.Pipeline{Steps: []*dag.Step{
		step(&dag.Accelerator{Kind: "mig", Partition: "1g.5gb", Count: 4}), step(&dag.Accelerator{Kind: "mig", Partition: "1g.11gb", Count: 1}),
		step(spec("gaudi3", 1)), step(spec("t4", 12)), step(spec("x", 1)), step(gpu("nvidia")), {Name: "none"},
	}}
	const want = `x.star:1:1: mig("1g.5gb", count=4): CUDA uses one MIG device per process; 4 only helps a step that starts 4 processes
x.star:1:1: mig("1g.11gb"): no model of the table has the MIG profile 1g.11gb
x.star:1:1: accelerator("gaudi3"): no label of nodes tells a Gaudi 3 from others of its family; any node with habana.ai/gaudi may run the step
x.star:1:1: accelerator("t4", count=12): few machines have more than 8 such devices`
	if got := Warnings(p, "").Error(); got != want {
		t.Errorf("Warnings = %s; want\n%s", got, want)
	}
}

func TestParseProfile(t *testing.T) {
	for _, tt := range []struct{ in, err string }{
		{"", ""}, {"gke", ""},
		{"gkee", `no profile "gkee": did you mean "gke"?`},
		{"aks-of-mine", `no profile "aks-of-mine": want one of gke, eks-karpenter, gfd, amd-labeller`},
		{"dra", `no profile "dra": ` + noClaims + `; want one of gke, eks-karpenter, gfd, amd-labeller`},
	} {
		got, err := ParseProfile(tt.in)
		if tt.err == "" && (err != nil || string(got) != tt.in) || tt.err != "" && (err == nil || err.Error() != tt.err) {
			t.Errorf("ParseProfile(%q) = %q, %v; want %s", tt.in, got, err, tt.err)
		}
	}
}

// TestTable holds the table to what Kubernetes takes, and each name to one
// meaning.
func TestTable(t *testing.T) {
	for _, m := range models {
		if m.of() == nil {
			t.Fatalf("%s is of no family", m.name)
		}
		for _, name := range []string{m.name, m.short()} {
			if _, found, err := lookup(name); found != m || err != nil {
				t.Errorf("lookup(%q) = %v, %v", name, found, err)
			}
		}
		if err := kube.CheckLabelName(m.extended()); err != nil {
			t.Errorf("%s: extended resource %v", m.name, err)
		}
		values := slices.Concat(m.values, m.gfd, m.gke, []string{m.karpenter})
		for _, v := range m.gfd {
			values = append(values, v+"-SHARED")
		}
		for _, v := range values {
			if err := kube.CheckLabelValue(v); err != nil {
				t.Errorf("%s: label value %v", m.name, err)
			}
		}
		for _, profile := range m.mig {
			if !migProfile().MatchString(profile) {
				t.Errorf("%s: MIG profile %q", m.name, profile)
			}
		}
		if m.of().name == "nvidia" && (len(m.gfd) == 0 || m.capability == "" || m.gb == 0) {
			t.Errorf("%s: want the label of GPU Feature Discovery, memory and compute capability", m.name)
		}
	}
	for _, f := range cpuFeatures {
		if err := kube.CheckLabelName(featureLabel(f.name)); err != nil {
			t.Error(err)
		}
	}
}
