package builtins

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/kube"
)

// This file defines the accelerators that a step can ask for.

// An accelerator is what one of the words makes. It cannot be changed.
type accelerator struct {
	a     *dag.Accelerator
	wrong bool // what is wrong with it has been reported
}

var _ starlark.Comparable = (*accelerator)(nil)

func (x *accelerator) String() string        { return x.a.String() }
func (x *accelerator) Type() string          { return "accelerator" }
func (x *accelerator) Freeze()               {}
func (x *accelerator) Truth() starlark.Bool  { return true }
func (x *accelerator) Hash() (uint32, error) { return starlark.String(x.a.String()).Hash() }

// CompareSameType compares by content.
func (x *accelerator) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	same := x.a.String() == y.(*accelerator).a.String()
	switch op {
	case syntax.EQL:
		return same, nil
	case syntax.NEQ:
		return !same, nil
	}
	return false, fmt.Errorf("accelerators have no order: want == or !=")
}

// An acceleratorCall is the call of one of the words. Its arguments that
// several words have are unpacked into these, and then checked.
type acceleratorCall struct {
	*call
	a     *dag.Accelerator
	wrong bool

	count, shm starlark.Value
	tolerate   bool
}

// acceleratorWord makes a word: args returns the pairs of its arguments for
// unpack, and finish reads what these left in variables.
func (s *Session) acceleratorWord(args func(k *acceleratorCall) []any, finish func(k *acceleratorCall)) func(c *call) (starlark.Value, error) {
	return func(c *call) (starlark.Value, error) {
		k := &acceleratorCall{call: c, a: &dag.Accelerator{Kind: c.name, Pos: c.pos}, tolerate: true}
		if err := c.unpack(args(k)...); err != nil {
			return nil, err
		}
		k.read()
		if finish != nil {
			finish(k)
		}
		if !k.wrong {
			for _, f := range k.a.Faults() {
				k.fault(f.Arg, "%s", f.Msg)
			}
		}
		return &accelerator{k.a, k.wrong}, nil
	}
}

// fault reports a fault; the accelerator is not used then.
func (k *acceleratorCall) fault(arg, format string, args ...any) *Error {
	k.wrong = true
	return k.report(arg, format, args...)
}

// common are the arguments that accelerator and gpu share.
func (k *acceleratorCall) common() []any {
	return []any{"partition??", &k.a.Partition, "shared?", &k.a.Shared, "link??", &k.a.Link, "via?", &k.a.Via, "shm?", &k.shm, "tolerate?", &k.tolerate}
}

// read reads the arguments that need more than a type.
func (k *acceleratorCall) read() {
	a := k.a
	a.NoTolerations = !k.tolerate
	if a.Via == "auto" {
		a.Via = ""
	}
	switch shm := k.shm.(type) {
	case nil:
	case starlark.NoneType:
		a.Shm = "none"
	case starlark.String:
		if shm != "auto" {
			a.Shm = string(shm)
			k.quantity("shm", a.Shm)
		}
	case Runtime:
		k.fault("shm", "%s%sit cannot be the shm of an accelerator", shm.What(), onlyAtRunTime)
	default:
		k.fault("shm", `%s: shm is a %s: want "auto", None or a quantity such as "8Gi"`, k.name, shm.Type())
	}
	if a.Memory != "" {
		k.quantity("memory", a.Memory)
	}
	if k.count == nil {
		return
	}
	switch n := k.count.(type) {
	case starlark.Int:
		count, err := starlark.AsInt32(n)
		if err != nil {
			k.fault("count", "count %s is too large a number", n)
		}
		a.Count = count
	case Runtime:
		e := k.fault("count", "%s%sit cannot be the count of an accelerator", n.What(), onlyAtRunTime)
		e.Hint = "a number of NVIDIA's or AMD's GPUs that is known only then is set by  step.set_gpu_limit(...)"
	case starlark.Float:
		k.fault("count", "count must be a whole number, got %s: Kubernetes cannot divide a GPU by a number; "+
			`use gpu(shared=True), mig("1g.10gb") or device_claim(capacity=...)`, n)
	default:
		k.fault("count", "%s: count is a %s: want a whole number", k.name, n.Type())
	}
}

// quantity reports an argument that is no quantity of memory above 0.
func (k *acceleratorCall) quantity(arg, text string) {
	if n, err := kube.Bytes(text); err != nil {
		k.fault(arg, "%s, %s: %v", k.name, arg, err)
	} else if n == 0 {
		k.fault(arg, "%s: %s %q: want more than 0", k.name, arg, text)
	}
}

// plain reports an argument that holds a value known only at run time, where
// the types of unpack leave room for one.
func (k *acceleratorCall) plain(arg string, v starlark.Value) bool {
	if r := firstRuntime(v); v != nil && r != nil {
		k.fault(arg, "%s%sit cannot stand in an accelerator", r.What(), onlyAtRunTime)
		return false
	}
	return v != nil
}

// texts returns an argument that is a text or a list of texts.
func (k *acceleratorCall) list(arg string, v starlark.Value) []string {
	if !k.plain(arg, v) {
		return nil
	}
	tree, _ := k.fit(arg, "[]string", listOf(v)).([]any)
	var texts []string
	for _, t := range tree {
		text, _ := t.(string)
		texts = append(texts, text)
	}
	return texts
}

// listOf returns v if it is a list or a tuple, else the list of v alone.
func listOf(v starlark.Value) starlark.Value {
	switch v.(type) {
	case *starlark.List, starlark.Tuple:
		return v
	}
	return starlark.Tuple{v}
}

// newAccelerator: accelerator(spec, count=1, memory=None, partition=None, shared=False, link=None, via="auto", shm="auto", tolerate=True) -> accelerator
//
// Hardware by its name: `"nvidia-a100-80gb"`, `"a100-80gb"`,
// `"a100-80gb:2"`, `"mi300x"`, `"gaudi3"`, `"trn1"`. `kfs accel list` shows
// all.
//
// The spec may name the count too, as in "a100-80gb:2".
func (s *Session) newAccelerator(c *call) (starlark.Value, error) {
	return s.acceleratorWord(func(k *acceleratorCall) []any {
		k.a.Count = 1
		return append([]any{"spec", &k.a.Model, "count?", &k.count, "memory??", &k.a.Memory}, k.common()...)
	}, func(k *acceleratorCall) {
		name, n, ok := strings.Cut(k.a.Model, ":")
		if !ok {
			return
		}
		count, err := strconv.Atoi(n)
		switch {
		case err != nil:
			k.fault("spec", `spec %q: want a whole number behind the colon, as in "a100-80gb:2"`, k.a.Model)
		case k.count != nil && count != k.a.Count:
			k.fault("count", "spec %q says %d and count says %d: want one of them", k.a.Model, count, k.a.Count)
		}
		k.a.Model, k.a.Count = name, count
	})(c)
}

// gpu: gpu(count=1, vendor="auto", model=None, memory=None, compute_capability=None, partition=None, shared=False, link=None, via="auto", shm="auto", tolerate=True) -> accelerator
//
// GPUs of a vendor (`nvidia`, `amd`, `intel`, `metax`), with at least so
// much memory or compute capability.
func (s *Session) gpu(c *call) (starlark.Value, error) {
	return s.acceleratorWord(func(k *acceleratorCall) []any {
		k.a.Count = 1
		return append([]any{"count?", &k.count, "vendor??", &k.a.Vendor, "model??", &k.a.Model, "memory??", &k.a.Memory,
			"compute_capability??", &k.a.ComputeCapability}, k.common()...)
	}, func(k *acceleratorCall) {
		if k.a.Vendor == "auto" {
			k.a.Vendor = ""
		}
	})(c)
}

// mig: mig(profile, count=1, model=None, via="auto", shm="auto") -> accelerator
//
// A part of an NVIDIA GPU: `mig("1g.10gb")`.
func (s *Session) mig(c *call) (starlark.Value, error) {
	return s.acceleratorWord(func(k *acceleratorCall) []any {
		k.a.Count = 1
		return []any{"profile", &k.a.Partition, "count?", &k.count, "model??", &k.a.Model, "via?", &k.a.Via, "shm?", &k.shm}
	}, nil)(c)
}

// tpu: tpu(version, topology, chips_per_node=None, spot=False) -> accelerator
//
// TPUs of GKE on one machine: `tpu("v5e", topology = "2x2")`. `2x4` is one
// machine with `chips_per_node = 8`.
func (s *Session) tpu(c *call) (starlark.Value, error) {
	chips := math.MinInt // is not given
	return s.acceleratorWord(func(k *acceleratorCall) []any {
		return []any{"version", &k.a.Model, "topology", &k.a.Topology, "chips_per_node??", &chips, "spot?", &k.a.Spot}
	}, func(k *acceleratorCall) {
		switch {
		case chips == 0:
			k.fault("chips_per_node", "chips_per_node must be >= 1, got 0")
		case chips != math.MinInt:
			k.a.ChipsPerNode = chips
		}
	})(c)
}

// neuron: neuron(count=1, unit="device", model=None, connected=False, via="auto") -> accelerator
//
// Neuron devices, or cores (`unit = "core"`), of AWS.
func (s *Session) neuron(c *call) (starlark.Value, error) {
	return s.acceleratorWord(func(k *acceleratorCall) []any {
		k.a.Count = 1
		return []any{"count?", &k.count, "unit?", &k.a.Unit, "model??", &k.a.Model, "connected?", &k.a.Connected, "via?", &k.a.Via}
	}, func(k *acceleratorCall) {
		if k.a.Unit == "device" {
			k.a.Unit = ""
		}
	})(c)
}

// cpuFeatures: cpu_features(*features, prefer=False) -> accelerator
//
// A processor that has these, by Linux' names: `cpu_features("amx_bf16",
// "avx512_vnni")`. `prefer` also takes others.
func (s *Session) cpuFeatures(c *call) (starlark.Value, error) {
	features := c.args
	c.args = nil
	return s.acceleratorWord(func(k *acceleratorCall) []any {
		return []any{"prefer?", &k.a.Prefer}
	}, func(k *acceleratorCall) {
		for i, v := range features {
			if name, ok := starlark.AsString(v); ok && k.plain("", v) {
				k.a.Features = append(k.a.Features, name)
			} else if !k.wrong {
				k.fault("", "cpu_features: argument %d is a %s: want the name of a feature", i+1, v.Type())
			}
		}
	})(c)
}

// firstOf: first_of(*accelerators) -> accelerator
//
// The first that can be had of 2 to 8.
func (s *Session) firstOf(c *call) (starlark.Value, error) {
	alternatives := c.args
	c.args = nil
	return s.acceleratorWord(func(k *acceleratorCall) []any { return nil }, func(k *acceleratorCall) {
		for i, v := range alternatives {
			x, ok := v.(*accelerator)
			if !ok {
				k.fault("", "first_of: argument %d is a %s: want an accelerator", i+1, v.Type())
				continue
			}
			k.wrong = k.wrong || x.wrong
			k.a.Alternatives = append(k.a.Alternatives, x.a)
		}
	})(c)
}

// resource: resource(name, count=1, selector={}, tolerations=[]) -> accelerator
//
// Any extended resource: `resource("vendor.com/npu", selector =
// {"vendor.com/model": ["x1", "x2"]})`. `selector` maps labels of nodes to a
// value or to a list of them.
//
// The selector maps labels to a value or to a list of values.
func (s *Session) resource(c *call) (starlark.Value, error) {
	var selector *starlark.Dict
	var tolerations starlark.Value
	return s.acceleratorWord(func(k *acceleratorCall) []any {
		k.a.Count = 1
		return []any{"name", &k.a.Resource, "count?", &k.count, "selector??", &selector, "tolerations??", &tolerations}
	}, func(k *acceleratorCall) {
		if err := kube.CheckLabelName(k.a.Resource); err != nil || !strings.Contains(k.a.Resource, "/") {
			k.fault("name", `resource name %q: want that of an extended resource, such as "vendor.com/name"`, k.a.Resource)
		}
		if selector != nil && k.plain("selector", selector) {
			for key, v := range selector.Entries() {
				k.label(key, v)
			}
		}
		k.tolerations(tolerations)
	})(c)
}

// label adds a label of the selector.
func (k *acceleratorCall) label(key, v starlark.Value) {
	name, ok := starlark.AsString(key)
	if !ok {
		k.fault("selector", "resource, selector: want names of labels as keys, got %s", key.Type())
		return
	}
	if err := kube.CheckLabelName(name); err != nil {
		k.fault("selector", "resource, selector: label name %v", err)
	}
	var values []any
	for e := range starlark.Elements(listOf(v).(starlark.Iterable)) {
		text, ok := scalarText(e)
		if !ok {
			k.fault("selector", "resource, selector[%q]: want a value or a list of values, got %s", name, e.Type())
		} else if err := kube.CheckLabelValue(text); err != nil {
			k.fault("selector", "resource, selector[%q]: label value %v", name, err)
		}
		values = append(values, text)
	}
	if len(values) == 0 {
		k.fault("selector", "resource, selector[%q]: want at least one value", name)
	}
	k.a.Selector.Set(values, name)
}

// tolerations reads the argument of that name.
func (k *acceleratorCall) tolerations(v starlark.Value) {
	if k.plain("tolerations", v) {
		k.a.Tolerations = k.fitObjects("tolerations", "Toleration", v)
	}
}

// deviceClaim: device_claim(device_class, count=1, cel=[], match=None, capacity={}, config=None, tolerations=[]) -> accelerator
//
// Devices by a claim (DRA).
func (s *Session) deviceClaim(c *call) (starlark.Value, error) {
	var cel, tolerations starlark.Value
	var capacity, config *starlark.Dict
	return s.acceleratorWord(func(k *acceleratorCall) []any {
		k.a.Count = 1
		return []any{"device_class", &k.a.DeviceClass, "count?", &k.count, "cel??", &cel, "match??", &k.a.Match,
			"capacity??", &capacity, "config??", &config, "tolerations??", &tolerations}
	}, func(k *acceleratorCall) {
		k.checkName("device_class", k.a.DeviceClass)
		k.a.CEL = k.list("cel", cel)
		if capacity != nil && k.plain("capacity", capacity) {
			k.a.Capacity, _ = k.fit("capacity", "{}quantity", capacity).(dag.Object)
		}
		if config != nil && k.plain("config", config) {
			tree, err := toJSON(config)
			if err != nil {
				k.fault("config", "device_claim, config: %v", err)
			}
			k.a.Config, _ = tree.(dag.Object)
		}
		k.tolerations(tolerations)
	})(c)
}

// mps: mps() -> accelerator
//
// Apple's GPU; in local runs only.
func (s *Session) mps(c *call) (starlark.Value, error) {
	return s.acceleratorWord(func(k *acceleratorCall) []any { return nil }, nil)(c)
}

// setAccelerator: step.set_accelerator(accelerator) -> step
//
// The devices that it needs, see [Accelerators](#accelerators). Another one
// is an error.
func setAccelerator(c *call, st *step) error {
	var v starlark.Value
	if err := c.unpack("accelerator", &v); err != nil {
		return err
	}
	c.setAccelerator(st.d, v)
	return nil
}

// setAccelerator gives the step an accelerator, if it has no other one.
func (c *call) setAccelerator(d *dag.Step, v starlark.Value) {
	x, ok := v.(*accelerator)
	switch {
	case !ok:
		e := c.report("accelerator", "%s: accelerator is a %s: want an accelerator", c.name, v.Type())
		if name, isText := v.(starlark.String); isText {
			e.Hint = fmt.Sprintf("write  accelerator(%q)", string(name))
		}
	case x.wrong:
	case d.Accelerator == nil:
		d.Accelerator = x.a
	case d.Accelerator.String() != x.a.String():
		c.report("accelerator", "%s: step %q has another accelerator: %s there, %s here; first_of(...) expresses alternatives", c.name, d.Name, d.Accelerator, x.a)
	}
}
