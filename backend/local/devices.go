package local

import (
	"fmt"

	"github.com/kfs-project/kfs/backend/accel"
	"github.com/kfs-project/kfs/dag"
)

// This file gives steps the accelerators of this machine.

// A pool is the devices of this machine and who has them.
type pool struct {
	*accel.Pool
	devices []accel.Device
}

func (x *Executor) findDevices() (*pool, error) {
	devices, err := x.cfg.Machine.Devices()
	if err != nil {
		return nil, err
	}
	return &pool{accel.NewPool(devices), devices}, nil
}

// need returns the devices that an accelerator asks for, and the pool that has
// them.
func (x *Executor) need(a *dag.Accelerator) (*pool, accel.Need, error) {
	p, err := x.devices()
	if err != nil {
		return nil, accel.Need{}, err
	}
	need, err := x.cfg.Machine.Need(a, p.devices)
	return p, need, err
}

// noDevices is the fault of a step whose accelerator this machine has not, or
// nil. What no machine has is for accel.Check to say.
func (x *Executor) noDevices(s *dag.Step) *dag.Error {
	if s.Accelerator == nil || accel.Check(&dag.Pipeline{Steps: []*dag.Step{s}}) != nil {
		return nil
	}
	_, _, err := x.need(s.Accelerator)
	if err == nil {
		return nil
	}
	return &dag.Error{
		Pos:  s.Accelerator.Pos,
		Msg:  fmt.Sprintf("step %q cannot run on this machine: %v", s.Name, err),
		Hint: "leave it out where the script runs as processes, by a setting:\n    if config(\"cluster\", default = True): ...\nor write a manifest for a cluster that has it:  kfs compile FILE",
	}
}

// lease waits for the devices of the attempt and returns the variables that
// show them, and a function that gives them back; false if the attempt was
// stopped before.
func (a *attempt) lease() (env map[string]string, done func(), ok bool, err error) {
	if a.Accelerator == nil {
		return nil, func() {}, true, nil
	}
	p, need, err := a.x.need(a.Accelerator)
	if err != nil {
		return nil, nil, false, err
	}
	devices, ok := p.Lease(need, a.stopped)
	if ok && (need.None || len(devices) > 0) {
		env = accel.Visible(devices)
	}
	return env, func() { p.Return(devices) }, ok, nil
}
