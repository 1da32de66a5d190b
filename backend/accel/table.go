package accel

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines the table of hardware. The names of labels and resources
// are those of the vendors' device plugins and labellers: NVIDIA's
// k8s-device-plugin with GPU Feature Discovery, ROCm's k8s-device-plugin with
// its node labeller, Intel's device plugins, Habana's; of GKE (as in
// AI-Hypercomputer/xpk), of Karpenter for AWS, and of Node Feature Discovery.

// A family is hardware that one extended resource stands for.
type family struct {
	name, title string
	resource    string // extended resource of a whole device; "" differs by model
	taint       string // key of the taint that its nodes may have; "" is none
	gpu         bool   // gpu(vendor=...) may name it
	label       string // of nodes, whose values name the models; "" is none
}

var families = []*family{
	{name: "nvidia", title: "NVIDIA", resource: "nvidia.com/gpu", taint: "nvidia.com/gpu", gpu: true},
	{name: "amd", title: "AMD", resource: "amd.com/gpu", taint: "amd.com/gpu", gpu: true, label: "amd.com/gpu.device-id"},
	{name: "intel", title: "Intel", gpu: true, label: "gpu.intel.com/product"},
	{name: "metax", title: "MetaX", resource: "metax-tech.com/gpu", gpu: true},
	{name: "gaudi", title: "Gaudi", resource: "habana.ai/gaudi"},
	{name: "intel-npu", title: "Intel NPU", resource: "npu.intel.com/accel"},
	{name: "neuron", title: "Neuron", resource: "aws.amazon.com/neuron", taint: "aws.amazon.com/neuron", label: "node.kubernetes.io/instance-type"},
	{name: "ascend", title: "Ascend", label: "accelerator"},
	{name: "tpu", title: "TPU", resource: "google.com/tpu", taint: "google.com/tpu"},
}

func familyNamed(name string) *family {
	for _, f := range families {
		if f.name == name {
			return f
		}
	}
	return nil
}

// A model is one model of a family.
type model struct {
	name   string // as scripts name it; the family's name before it can be left out
	title  string // for messages
	family string

	resource string   // extended resource, if it is not the family's
	gb       int      // memory of a device as on the box, in decimal gigabytes; 0 is not known
	most     int      // devices in the largest machine; 0 is not known
	values   []string // of the family's label; none: no label of nodes tells it from others
	vague    bool     // the label's values are those of other models too

	// Of NVIDIA.
	capability string   // compute capability
	mig        []string // profiles of MIG
	gfd        []string // values of nvidia.com/gpu.product
	gke        []string // values of cloud.google.com/gke-accelerator
	karpenter  string   // value of karpenter.k8s.aws/instance-gpu-name
	mib        int      // value of karpenter.k8s.aws/instance-gpu-memory, where the name alone does not do
}

// The MIG profiles are those of NVIDIA's MIG User Guide, without the variants
// that have media engines or graphics.
var models = []*model{
	{name: "nvidia-k80", title: "K80", gb: 12, capability: "3.7", gfd: []string{"Tesla-K80"}, gke: []string{"nvidia-tesla-k80"}, karpenter: "k80"},
	{name: "nvidia-p4", title: "P4", gb: 8, capability: "6.1", gfd: []string{"Tesla-P4"}, gke: []string{"nvidia-tesla-p4"}},
	{name: "nvidia-p100", title: "P100", gb: 16, capability: "6.0", gfd: []string{"Tesla-P100-PCIE-16GB", "Tesla-P100-SXM2-16GB"}, gke: []string{"nvidia-tesla-p100"}},
	{name: "nvidia-v100-16gb", title: "V100 16GB", gb: 16, most: 16, capability: "7.0",
		gfd: []string{"Tesla-V100-SXM2-16GB", "Tesla-V100-PCIE-16GB", "Tesla-V100-DGXS-16GB"}, gke: []string{"nvidia-tesla-v100"}, karpenter: "v100", mib: 16384},
	{name: "nvidia-v100-32gb", title: "V100 32GB", gb: 32, most: 16, capability: "7.0",
		gfd: []string{"Tesla-V100-SXM2-32GB", "Tesla-V100-SXM3-32GB", "Tesla-V100-PCIE-32GB", "Tesla-V100S-PCIE-32GB", "Tesla-V100-DGXS-32GB"}, karpenter: "v100", mib: 32768},
	{name: "nvidia-t4", title: "T4", gb: 16, capability: "7.5", gfd: []string{"Tesla-T4"}, gke: []string{"nvidia-tesla-t4"}, karpenter: "t4"},
	{name: "nvidia-t4g", title: "T4G", gb: 16, capability: "7.5", gfd: []string{"NVIDIA-T4G"}, karpenter: "t4g"},
	{name: "nvidia-a10", title: "A10", gb: 24, capability: "8.6", gfd: []string{"NVIDIA-A10"}},
	{name: "nvidia-a10g", title: "A10G", gb: 24, capability: "8.6", gfd: []string{"NVIDIA-A10G"}, karpenter: "a10g"},
	{name: "nvidia-a30", title: "A30", gb: 24, capability: "8.0", gfd: []string{"NVIDIA-A30"}, mig: []string{"1g.6gb", "2g.12gb", "4g.24gb"}},
	{name: "nvidia-a40", title: "A40", gb: 48, capability: "8.6", gfd: []string{"NVIDIA-A40"}},
	{name: "nvidia-a100-40gb", title: "A100 40GB", gb: 40, most: 16, capability: "8.0",
		gfd: []string{"NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB", "A100-SXM4-40GB", "A100-PCIE-40GB"}, gke: []string{"nvidia-tesla-a100"}, karpenter: "a100", mib: 40960,
		mig: []string{"1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"}},
	{name: "nvidia-a100-80gb", title: "A100 80GB", gb: 80, capability: "8.0",
		gfd: []string{"NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe", "A100-SXM4-80GB"}, gke: []string{"nvidia-a100-80gb"}, karpenter: "a100", mib: 81920,
		mig: []string{"1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"}},
	{name: "nvidia-l4", title: "L4", gb: 24, capability: "8.9", gfd: []string{"NVIDIA-L4"}, gke: []string{"nvidia-l4"}, karpenter: "l4"},
	{name: "nvidia-l40", title: "L40", gb: 48, capability: "8.9", gfd: []string{"NVIDIA-L40"}},
	{name: "nvidia-l40s", title: "L40S", gb: 48, capability: "8.9", gfd: []string{"NVIDIA-L40S"}, karpenter: "l40s"},
	{name: "nvidia-rtx-a6000", title: "RTX A6000", gb: 48, capability: "8.6", gfd: []string{"NVIDIA-RTX-A6000"}},
	{name: "nvidia-rtx-pro-6000", title: "RTX PRO 6000", gb: 96, capability: "12.0",
		gfd: []string{"NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"}, gke: []string{"nvidia-rtx-pro-6000"}, mig: []string{"1g.24gb", "2g.48gb", "4g.96gb"}},
	{name: "nvidia-h20-96gb", title: "H20 96GB", gb: 96, most: 8, capability: "9.0", gfd: []string{"NVIDIA-H20"},
		mig: []string{"1g.12gb", "1g.24gb", "2g.24gb", "3g.48gb", "4g.48gb", "7g.96gb"}},
	{name: "nvidia-h100-80gb", title: "H100 80GB", gb: 80, most: 8, capability: "9.0",
		gfd: []string{"NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe"}, gke: []string{"nvidia-h100-80gb", "nvidia-h100-mega-80gb"}, karpenter: "h100",
		mig: []string{"1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"}},
	{name: "nvidia-h100-94gb", title: "H100 94GB", gb: 94, most: 8, capability: "9.0", gfd: []string{"NVIDIA-H100-NVL"},
		mig: []string{"1g.12gb", "1g.24gb", "2g.24gb", "3g.47gb", "4g.47gb", "7g.94gb"}},
	{name: "nvidia-gh200-96gb", title: "GH200 96GB", gb: 96, capability: "9.0", gfd: []string{"NVIDIA-GH200-480GB"},
		mig: []string{"1g.12gb", "1g.24gb", "2g.24gb", "3g.48gb", "4g.48gb", "7g.96gb"}},
	{name: "nvidia-h200-141gb", title: "H200 141GB", gb: 141, most: 8, capability: "9.0", gfd: []string{"NVIDIA-H200", "NVIDIA-H200-NVL"}, gke: []string{"nvidia-h200-141gb"}, karpenter: "h200",
		mig: []string{"1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"}},
	{name: "nvidia-b200", title: "B200", gb: 180, most: 8, capability: "10.0", gfd: []string{"NVIDIA-B200"}, gke: []string{"nvidia-b200"}, karpenter: "b200",
		mig: []string{"1g.23gb", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"}},
	{name: "nvidia-gb200", title: "GB200", gb: 184, most: 4, capability: "10.0", gfd: []string{"NVIDIA-GB200"}, gke: []string{"nvidia-gb200"}},

	{name: "amd-mi100", title: "MI100", gb: 32, values: []string{"738c"}},
	{name: "amd-mi210", title: "MI210", gb: 64, values: []string{"740f"}},
	{name: "amd-mi250", title: "MI250", gb: 64, values: []string{"740c"}}, // a device is one of the two dies
	{name: "amd-mi250x", title: "MI250X", gb: 64, values: []string{"7408"}},
	{name: "amd-mi300a", title: "MI300A", gb: 128, most: 4, values: []string{"74a0"}},
	{name: "amd-mi300x", title: "MI300X", gb: 192, most: 8, values: []string{"74a1"}},
	{name: "amd-mi325x", title: "MI325X", gb: 256, most: 8, values: []string{"74a5"}},
	{name: "amd-mi350x", title: "MI350X", gb: 288, most: 8, values: []string{"75a0"}},
	{name: "amd-mi355x", title: "MI355X", gb: 288, most: 8, values: []string{"75a3"}},

	{name: "intel-flex-140", title: "Flex 140", gb: 6, resource: "gpu.intel.com/i915", values: []string{"Flex_140"}},
	{name: "intel-flex-170", title: "Flex 170", gb: 16, resource: "gpu.intel.com/i915", values: []string{"Flex_170"}},
	{name: "intel-max-1100", title: "Max 1100", gb: 48, resource: "gpu.intel.com/i915", values: []string{"Max_1100"}},
	{name: "intel-max-1550", title: "Max 1550", gb: 128, resource: "gpu.intel.com/i915", values: []string{"Max_1550"}},

	{name: "gaudi2", title: "Gaudi 2", family: "gaudi", gb: 96, most: 8, vague: true},
	{name: "gaudi3", title: "Gaudi 3", family: "gaudi", gb: 128, most: 8, vague: true},

	{name: "inf1", title: "Inferentia", family: "neuron", most: 16, values: []string{"inf1.xlarge", "inf1.2xlarge", "inf1.6xlarge", "inf1.24xlarge"}},
	{name: "inf2", title: "Inferentia 2", family: "neuron", most: 12, values: []string{"inf2.xlarge", "inf2.8xlarge", "inf2.24xlarge", "inf2.48xlarge"}},
	{name: "trn1", title: "Trainium", family: "neuron", most: 16, values: []string{"trn1.2xlarge", "trn1.32xlarge", "trn1n.32xlarge"}},
	{name: "trn2", title: "Trainium 2", family: "neuron", most: 16, values: []string{"trn2.3xlarge", "trn2.48xlarge", "trn2u.48xlarge"}},

	{name: "ascend-310", title: "Ascend 310", resource: "huawei.com/Ascend310", values: []string{"huawei-Ascend310"}},
	{name: "ascend-310p", title: "Ascend 310P", resource: "huawei.com/Ascend310P", values: []string{"huawei-Ascend310P"}},
	{name: "ascend-910", title: "Ascend 910", resource: "huawei.com/Ascend910", values: []string{"huawei-Ascend910"}},
	{name: "ascend-910b", title: "Ascend 910B", resource: "huawei.com/Ascend910", values: []string{"huawei-Ascend910"}, vague: true},
}

// of returns the model's family.
func (m *model) of() *family {
	name := m.family
	if name == "" {
		name, _, _ = strings.Cut(m.name, "-")
	}
	return familyNamed(name)
}

// short is the model's name without the family's.
func (m *model) short() string { return strings.TrimPrefix(m.name, m.of().name+"-") }

// A Model is one line of the table.
type Model struct {
	Name     string   // for accelerator(...)
	Resource string   // the extended resource of a whole device
	MemoryGB int      // of a device, in decimal gigabytes; 0 is not known
	Most     int      // devices in the largest machine; 0 is not known
	Parts    []string // profiles of MIG
}

// Models returns the table, in the order of vendors and generations.
func Models() []Model {
	var all []Model
	for _, m := range models {
		all = append(all, Model{m.name, m.extended(), m.gb, m.most, m.mig})
	}
	return all
}

// extended is the extended resource of a whole device.
func (m *model) extended() string {
	if m.resource != "" {
		return m.resource
	}
	return m.of().resource
}

// lookup returns what a name of hardware means: a model, or all of a family
// (then the model is nil).
func lookup(name string) (*family, *model, error) {
	n := strings.ToLower(name)
	if f := familyNamed(n); f != nil && n != "tpu" {
		return f, nil, nil
	}
	var like []*model
	short := false // the name leaves the family out
	var names []string
	for _, m := range models {
		if m.name == n || m.short() == n {
			return m.of(), m, nil
		}
		if strings.HasPrefix(m.name, n+"-") && n != "" {
			like = append(like, m)
		} else if strings.HasPrefix(m.short(), n+"-") {
			like, short = append(like, m), true
		}
		names = append(names, m.name, m.short())
	}
	if len(like) == 1 {
		return like[0].of(), like[0], nil
	}
	if len(like) > 1 {
		var which []string
		for _, m := range like {
			if short {
				which = append(which, strconv.Quote(m.short()))
			} else {
				which = append(which, strconv.Quote(m.name))
			}
		}
		return nil, nil, fmt.Errorf("ambiguous accelerator %q: write %s", name, or(which))
	}
	if v := strings.TrimPrefix(n, "tpu-"); n == "tpu" || tpuNamed(v) != nil {
		return nil, nil, fmt.Errorf("accelerator %q is a TPU, which has a topology: write tpu(%q, topology=...)", name, strings.Replace(v, "tpu", "v5e", 1))
	}
	for _, m := range models {
		for _, label := range slices.Concat(m.gke, m.gfd) {
			if strings.EqualFold(label, name) {
				return nil, nil, fmt.Errorf("accelerator %q is a label of nodes: write %q", name, m.short())
			}
		}
	}
	meant := ""
	if hint := spell.DidYouMean(n, names); hint != "" {
		meant = ": " + hint
	}
	return nil, nil, fmt.Errorf(`unknown accelerator %q%s (kfs accel list shows all; for other hardware use resource("vendor.com/name"))`, name, meant)
}

// or joins alternatives as in a sentence.
func or(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
}

// A tpuVersion is a generation of Google's TPU. Slices of flat ones have two
// dimensions, of the others three.
type tpuVersion struct {
	name, label string // label: value of cloud.google.com/gke-tpu-accelerator
	flat        bool
	one         bool // a slice of one chip can be had
}

var tpuVersions = []*tpuVersion{
	{"v4", "tpu-v4-podslice", false, false},
	{"v5e", "tpu-v5-lite-podslice", true, true},
	{"v5p", "tpu-v5p-slice", false, false},
	{"v6e", "tpu-v6e-slice", true, true},
	{"v7x", "tpu7x", false, true},
}

func tpuNamed(name string) *tpuVersion {
	for _, v := range tpuVersions {
		if v.name == name {
			return v
		}
	}
	return nil
}

// flatTopologies are those of versions whose slices have two dimensions.
var flatTopologies = []string{"1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"}

// topologies says which there are.
func (v *tpuVersion) topologies() string {
	if v.flat {
		return strings.Join(flatTopologies, ", ")
	}
	one := ""
	if v.one {
		one = "1x1x1, "
	}
	return one + "2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4 or a larger one of multiples of 4"
}

// chips returns the number of chips of a topology; 0 if there is none such.
func (v *tpuVersion) chips(topology string) int {
	if v.flat && !slices.Contains(flatTopologies, topology) {
		return 0
	}
	product, last, fours := 1, 0, true
	dims := strings.Split(topology, "x")
	for _, d := range dims {
		n, err := strconv.Atoi(d)
		if err != nil || n < 1 || n > 64 || strconv.Itoa(n) != d {
			return 0
		}
		product *= n
		fours = fours && n%4 == 0 && n >= last
		last = n
	}
	switch {
	case v.flat:
	case len(dims) != 3:
		return 0
	case slices.Contains([]string{"2x2x1", "2x2x2", "2x2x4", "2x4x4"}, topology), topology == "1x1x1" && v.one, fours:
	default:
		return 0
	}
	return product
}

// cpuFeatures are the features of processors by the names that Linux has for
// them in /proc/cpuinfo, and the ends of Node Feature Discovery's labels.
var cpuFeatures = []struct{ name, label string }{
	{"amx_tile", "AMXTILE"}, {"amx_bf16", "AMXBF16"}, {"amx_int8", "AMXINT8"},
	{"avx", "AVX"}, {"avx2", "AVX2"}, {"avx_vnni", "AVXVNNI"},
	{"avx512f", "AVX512F"}, {"avx512bw", "AVX512BW"}, {"avx512cd", "AVX512CD"}, {"avx512dq", "AVX512DQ"}, {"avx512vl", "AVX512VL"},
	{"avx512_bf16", "AVX512BF16"}, {"avx512_fp16", "AVX512FP16"}, {"avx512_vnni", "AVX512VNNI"},
	{"fma", "FMA3"},
}

// featureLabel returns the label of nodes whose processors have the feature;
// "" if it is unknown.
func featureLabel(name string) string {
	for _, f := range cpuFeatures {
		if f.name == name {
			return "feature.node.kubernetes.io/cpu-cpuid." + f.label
		}
	}
	return ""
}
