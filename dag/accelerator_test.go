package dag

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAcceleratorString(t *testing.T) {
	a100, h100 := &Accelerator{Kind: "accelerator", Model: "a100-80gb", Count: 1}, &Accelerator{Kind: "accelerator", Model: "h100", Count: 2, Link: "pcie", Via: "dra"}
	for _, tt := range []struct {
		in   *Accelerator
		want string
	}{
		{a100, `accelerator("a100-80gb")`},
		{h100, `accelerator("h100", count=2, link="pcie", via="dra")`},
		{&Accelerator{Kind: "gpu"}, `gpu(0)`},
		{&Accelerator{Kind: "gpu", Count: 1, Vendor: "amd", Model: "nvidia-t4", ComputeCapability: "8.0"}, `gpu(vendor="amd", model="nvidia-t4", compute_capability="8.0")`},
		{&Accelerator{Kind: "gpu", Count: 2, Memory: "40G", Shared: true, Shm: "none", NoTolerations: true}, `gpu(2, memory="40G", shared=True, shm=None, tolerate=False)`},
		{&Accelerator{Kind: "mig", Partition: "1g.5gb", Count: 4, Model: "a30", Shm: "1Gi"}, `mig("1g.5gb", count=4, model="a30", shm="1Gi")`},
		{&Accelerator{Kind: "tpu", Model: "v5e", Topology: "2x4", ChipsPerNode: 8, Spot: true}, `tpu("v5e", topology="2x4", chips_per_node=8, spot=True)`},
		{&Accelerator{Kind: "neuron", Count: 4, Unit: "core", Model: "trn1", Connected: true}, `neuron(4, unit="core", model="trn1", connected=True)`},
		{&Accelerator{Kind: "cpu_features", Features: []string{"avx2", "fma"}, Prefer: true}, `cpu_features("avx2", "fma", prefer=True)`},
		{&Accelerator{Kind: "first_of", Alternatives: []*Accelerator{h100, a100}}, `first_of(accelerator("h100", count=2, link="pcie", via="dra"), accelerator("a100-80gb"))`},
		{&Accelerator{Kind: "resource", Resource: "v.com/x", Count: 3, Selector: Object{{Name: "a", Value: []any{"b"}}}, Tolerations: []Object{{{Name: "key", Value: "k"}}}},
			`resource("v.com/x", count=3, selector={"a": ["b"]}, tolerations=[{"key": "k"}])`},
		{&Accelerator{Kind: "device_claim", DeviceClass: "gpu.nvidia.com", Count: 1, CEL: []string{"true"}, Match: "x/y", Capacity: Object{{Name: "memory", Value: "1Gi"}}, Config: Object{{Name: "k", Value: true}}},
			`device_claim("gpu.nvidia.com", cel=["true"], match="x/y", capacity={"memory": "1Gi"}, config={"k": true})`},
		{&Accelerator{Kind: "mps"}, `mps()`},
	} {
		if got := tt.in.String(); got != tt.want {
			t.Errorf("%+v.String() = %s; want %s", *tt.in, got, tt.want)
		}
	}
}

func TestAcceleratorFaults(t *testing.T) {
	gpu := &Accelerator{Kind: "gpu", Count: 1}
	token := Ref{Kind: RefParam, Name: "n"}.Token()
	for _, tt := range []struct {
		in   *Accelerator
		want string // the faults as "argument: message"
	}{
		{gpu, ""},
		{&Accelerator{Kind: "gpu"}, ""},
		{&Accelerator{Kind: "accelerator", Model: "t4"}, ""},
		{&Accelerator{Kind: "tpu", Model: "v5e", Topology: "2x2"}, ""},
		{&Accelerator{}, `: accelerator of kind "": want one of "accelerator", "cpu_features", "device_claim", "first_of", "gpu", "mig", "mps", "neuron", "resource", "tpu"`},
		{&Accelerator{Kind: "gpu", Count: -1}, "count: count must be >= 1, got -1"},
		{&Accelerator{Kind: "mig", Partition: "1g.5gb"}, "count: count must be >= 1, got 0"},
		{&Accelerator{Kind: "mps", Count: 2}, "count: mps has no count, got 2"},
		{&Accelerator{Kind: "gpu", Count: 1, Via: "dri"}, `via: via "dri": want one of "auto", "resource", "dra"`},
		{&Accelerator{Kind: "gpu", Count: 2, Link: "nvlink"}, `link: link "nvlink": want one of "pcie", "numa", "parent"`},
		{&Accelerator{Kind: "gpu", Count: 1, Link: "pcie"}, `link: link="pcie" with count=1 has nothing to align`},
		{&Accelerator{Kind: "gpu", Count: 2, Link: "numa", Via: "resource"}, `via: link="numa" needs DRA, and via="resource" excludes it`},
		{&Accelerator{Kind: "gpu", Count: 2, Shared: true}, "count: shared=True with count=2: sharing gives no second GPU; use count=1"},
		{&Accelerator{Kind: "gpu", Count: 1, Shared: true, Partition: "1g.5gb"}, "shared: shared and partition exclude each other"},
		{&Accelerator{Kind: "accelerator", Count: 1}, "spec: accelerator needs its spec"},
		{&Accelerator{Kind: "tpu", ChipsPerNode: -1}, "version: tpu needs its version\ntopology: tpu needs its topology\nchips_per_node: chips_per_node must be >= 1, got -1"},
		{&Accelerator{Kind: "neuron", Count: 1, Unit: "chip"}, `unit: unit "chip": want one of "device", "core"`},
		{&Accelerator{Kind: "cpu_features"}, ": cpu_features needs the names of features"},
		{&Accelerator{Kind: "resource", Count: 1}, "name: resource needs its name"},
		{&Accelerator{Kind: "device_claim", Count: 1}, "device_class: device_claim needs its device_class"},
		{&Accelerator{Kind: "first_of", Alternatives: []*Accelerator{gpu}}, ": first_of takes 2 to 8 alternatives, got 1"},
		{&Accelerator{Kind: "first_of", Alternatives: []*Accelerator{{Kind: "mps"}, {Kind: "gpu"}, {Kind: "gpu", Count: -2}}},
			": first_of: alternative 1 is mps(): want devices of a cluster\n: first_of: alternative 2 is gpu(0): want devices of a cluster\n: first_of: alternative 3: count must be >= 1, got -2"},
		{&Accelerator{Kind: "resource", Resource: "v.com/x", Count: 1, Selector: Object{{Name: "l", Value: []any{token}}}},
			"selector: resource, selector: a value known only when the pipeline runs cannot stand in an accelerator"},
	} {
		var got []string
		for _, f := range tt.in.Faults() {
			got = append(got, f.Arg+": "+f.Msg)
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, "\n")); diff != "" {
			t.Errorf("%s.Faults() (-want +got):\n%s", tt.in, diff)
		}
	}
}

// TestAcceleratorOfStep checks the way through JSON, and what Validate finds.
func TestAcceleratorOfStep(t *testing.T) {
	p := &Pipeline{Name: "p", Steps: []*Step{
		{Name: "a", Pos: Pos{"f", 1, 1}, Container: Object{{Name: "image", Value: "i"}}, Accelerator: &Accelerator{
			Kind: "gpu", Pos: Pos{"f", 2, 1}, Count: 2, Vendor: "nvidia", Memory: "40G", Link: "pcie", Tolerations: []Object{{{Name: "key", Value: "k"}}},
		}},
	}}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	text, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got Pipeline
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, &got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	got.Steps[0].Accelerator.Count = 1
	got.Steps = append(got.Steps, &Step{Name: "b", Pos: Pos{"f", 3, 1}, Accelerator: &Accelerator{Kind: "mps"},
		Resource: &Resource{Action: "create", Manifest: Object{{Name: "apiVersion", Value: "v1"}, {Name: "kind", Value: "Pod"}, {Name: "metadata", Value: Object{{Name: "name", Value: "n"}}}}}})
	const want = `f:2:1: step "a": link="pcie" with count=1 has nothing to align
f:3:1: step "b" has an accelerator, and no container that could use it`
	if err := got.Validate(); err == nil || err.Error() != want {
		t.Errorf("Validate() = %v; want\n%s", err, want)
	}
}
