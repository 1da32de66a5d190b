package accel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kfs-project/kfs/dag"
)

// This file finds the devices of this machine: by files of the kernel and the
// vendors' own programs, without libraries and without privilege.

// A Device is one device of a machine.
type Device struct {
	Vendor string // "nvidia", "amd" or "apple"
	ID     string // by which a process is shown it: a UUID of NVIDIA's, an index of AMD's
	Name   string // "NVIDIA L4"; of AMD, the number of its PCI device: "74a1"
	Memory int64  // bytes; 0 is not known
}

// String names the device.
func (d Device) String() string {
	if d.Vendor == "amd" {
		for _, m := range models {
			if m.of().name == "amd" && slices.Contains(m.values, d.Name) {
				return "AMD " + m.title
			}
		}
		return "AMD GPU " + d.Name
	}
	return d.Name
}

// A Machine is where devices are looked for. The zero value is this machine.
type Machine struct {
	Root string // in place of "/"

	// Run runs a program and returns what it prints; default: as a process
	// that has ten seconds.
	Run func(name string, args ...string) ([]byte, error)

	OS, Arch string   // default: those of kfs
	Environ  []string // whose masks (CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES) hide devices; default: os.Environ()
}

func (m Machine) path(name string) string { return filepath.Join("/", m.Root, name) }

func (m Machine) exists(name string) bool {
	_, err := os.Stat(m.path(name))
	return err == nil
}

func (m Machine) run(name string, args ...string) ([]byte, error) {
	if m.Run != nil {
		return m.Run(name, args...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, name, args...).Output()
}

// Devices returns the devices of all vendors that processes of kfs may see. An
// error is about a vendor whose driver is there and cannot be asked.
func (m Machine) Devices() ([]Device, error) {
	if m.OS == "" {
		m.OS, m.Arch = runtime.GOOS, runtime.GOARCH
	}
	if m.Environ == nil {
		m.Environ = os.Environ()
	}
	if m.OS == "darwin" && m.Arch == "arm64" {
		return []Device{{Vendor: "apple", ID: "0", Name: "Apple GPU"}}, nil
	}
	nvidia, err := m.nvidia()
	if err != nil {
		return nil, err
	}
	return slices.Concat(m.masked(nvidia, "CUDA_VISIBLE_DEVICES"), m.masked(m.amd(), "HIP_VISIBLE_DEVICES")), nil
}

// nvidia asks nvidia-smi, if the driver is there.
func (m Machine) nvidia() ([]Device, error) {
	program := "nvidia-smi"
	switch wsl := "/usr/lib/wsl/lib/nvidia-smi"; {
	case m.exists("/dev/nvidiactl"):
	case m.exists("/dev/dxg") && m.exists(wsl):
		program = wsl
	default:
		return nil, nil
	}
	out, err := m.run(program, "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")
	if err != nil {
		return nil, fmt.Errorf("/dev/nvidiactl is there, and %s does not say which GPUs: %w", program, err)
	}
	r := csv.NewReader(bytes.NewReader(out))
	r.TrimLeadingSpace = true
	lines, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read what %s prints: %w", program, err)
	}
	var devices []Device
	for _, line := range lines {
		if len(line) != 3 {
			return nil, fmt.Errorf("%s prints %q: want a UUID, a name and a number of MiB", program, line)
		}
		mib, _ := strconv.ParseInt(line[2], 10, 64) // "[N/A]" is not known
		devices = append(devices, Device{Vendor: "nvidia", ID: line[0], Name: line[1], Memory: mib << 20})
	}
	return devices, nil
}

// amd reads the topology of the kernel's driver. Its nodes with SIMD units are
// GPUs, which HIP counts in this order. What has less than 4 GiB of its own is
// part of a processor, and is not offered.
func (m Machine) amd() []Device {
	if !m.exists("/dev/kfd") {
		return nil
	}
	const nodes = "/sys/class/kfd/kfd/topology/nodes"
	entries, _ := os.ReadDir(m.path(nodes))
	slices.SortFunc(entries, func(a, b os.DirEntry) int {
		x, _ := strconv.Atoi(a.Name())
		y, _ := strconv.Atoi(b.Name())
		return x - y
	})
	var devices []Device
	index := 0
	for _, e := range entries {
		has := m.properties(filepath.Join(nodes, e.Name(), "properties"))
		if has["simd_count"] == 0 || has["vendor_id"] != 0x1002 {
			continue
		}
		id := strconv.Itoa(index)
		index++
		text, _ := os.ReadFile(m.path(fmt.Sprintf("/sys/class/drm/renderD%d/device/mem_info_vram_total", has["drm_render_minor"])))
		memory, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if memory >= 4<<30 {
			devices = append(devices, Device{Vendor: "amd", ID: id, Name: fmt.Sprintf("%04x", has["device_id"]), Memory: memory})
		}
	}
	return devices
}

// properties reads lines of a name and a number.
func (m Machine) properties(file string) map[string]int64 {
	text, _ := os.ReadFile(m.path(file))
	has := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 {
			has[f[0]], _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return has
}

// masked returns the devices that a variable lets processes see: those whose
// indices or IDs it lists.
func (m Machine) masked(devices []Device, variable string) []Device {
	for _, v := range slices.Backward(m.Environ) {
		list, ok := strings.CutPrefix(v, variable+"=")
		if !ok {
			continue
		}
		var seen []Device
		for name := range strings.SplitSeq(list, ",") {
			i := slices.IndexFunc(devices, func(d Device) bool { return d.ID == name })
			if n, err := strconv.Atoi(name); err == nil && i < 0 && 0 <= n && n < len(devices) && devices[n].Vendor == "nvidia" {
				i = n
			}
			if i < 0 || slices.Contains(seen, devices[i]) {
				break // what follows an unknown name, or one for the second time, is not seen
			}
			seen = append(seen, devices[i])
		}
		return seen
	}
	return devices
}

// hasFeature reports whether the processor has a feature by Linux' name.
func (m Machine) hasFeature(name string) bool {
	f, err := os.Open(m.path("/proc/cpuinfo"))
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if key, flags, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "flags" {
			return slices.Contains(strings.Fields(flags), name)
		}
	}
	return false
}

// A Need is what a request asks of this machine.
type Need struct {
	Count int               // devices
	fits  func(Device) bool // one that will do
	None  bool              // the step is to see no device
}

// Need returns what a request asks of the machine, which has the devices. The
// error says in a few words why it cannot be met; it is nil for the first
// alternative that can.
func (m Machine) Need(a *dag.Accelerator, devices []Device) (Need, error) {
	var need Need
	var err error
	for _, alt := range alternatives(a) {
		if need, err = m.need(alt, devices); err == nil {
			return need, nil
		}
	}
	return need, err
}

func (m Machine) need(a *dag.Accelerator, devices []Device) (Need, error) {
	r, err := resolve(a, nil)
	switch {
	case err != nil:
		return Need{}, err
	case a.None():
		return Need{None: true}, nil
	case a.Kind == "cpu_features":
		for _, name := range a.Features {
			if !a.Prefer && !m.hasFeature(name) {
				return Need{}, fmt.Errorf("its processor has no %s", name)
			}
		}
		return Need{}, nil
	case a.Kind == "mps":
		r.Count = 1
	case a.Kind != "gpu" && a.Kind != "accelerator" || r.Partition != "" || r.Link != "" || r.Via == "dra" || r.family != nil && r.family.name != "nvidia" && r.family.name != "amd":
		return Need{}, fmt.Errorf("a process can be given whole GPUs of NVIDIA and AMD, mps() and cpu_features(...) here, not %s", a)
	}
	need := Need{Count: r.Count, fits: r.fits}
	var names []string
	vendors := map[string]bool{}
	for _, d := range devices {
		if names = append(names, d.String()); need.fits(d) {
			vendors[d.Vendor] = true
			need.Count--
		}
	}
	switch {
	case need.Count > 0 && len(names) == 0:
		return Need{}, fmt.Errorf("it needs %s, and there is no GPU", a)
	case need.Count > 0:
		return Need{}, fmt.Errorf("it needs %s, and there is %s", a, strings.Join(names, ", "))
	case len(vendors) > 1:
		return Need{}, fmt.Errorf("it needs %s, and there are GPUs of several vendors: name one", a)
	}
	need.Count = r.Count
	return need, nil
}

// fits reports whether a device is one that the request means.
func (r *request) fits(d Device) bool {
	switch {
	case r.Kind == "mps":
		return d.Vendor == "apple"
	case d.Vendor == "apple", r.family != nil && r.family.name != d.Vendor:
		return false
	case r.memory > 0 && d.Memory < r.memory:
		return false
	case r.model != nil:
		return r.model.is(d)
	case r.major == 0:
		return true
	}
	return slices.ContainsFunc(models, func(m *model) bool { return m.is(d) && m.capability != "" && r.reaches(m) })
}

// is reports whether a device is of the model.
func (m *model) is(d Device) bool {
	return slices.Contains(m.values, d.Name) && d.Vendor == "amd" || slices.Contains(m.gfd, strings.ReplaceAll(d.Name, " ", "-"))
}

// Visible returns the variables that show a process these devices, all of one
// vendor; of no devices, those that hide all.
func Visible(devices []Device) map[string]string {
	if len(devices) == 0 {
		return map[string]string{"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"}
	}
	var ids []string
	for _, d := range devices {
		ids = append(ids, d.ID)
	}
	switch list := strings.Join(ids, ","); devices[0].Vendor {
	case "nvidia":
		return map[string]string{"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": list}
	case "amd":
		return map[string]string{"HIP_VISIBLE_DEVICES": list} // HIP heeds CUDA's too
	}
	return nil
}

// A Pool hands devices out, each to one holder at a time.
type Pool struct {
	devices []Device // all of them, in the order in which they are handed out

	mu    sync.Mutex
	free  map[Device]bool
	queue []*turn
}

// A turn is somebody who waits for devices.
type turn struct {
	need Need
	got  chan []Device // of one; receives what is handed out
}

// NewPool returns a pool of the devices.
func NewPool(devices []Device) *Pool {
	p := &Pool{devices: devices, free: map[Device]bool{}}
	for _, d := range devices {
		p.free[d] = true
	}
	return p
}

// Lease waits until as many devices as needed are free and returns them, all
// of one vendor; false if stop was closed before. Who comes first is served
// first: later ones do not take what an earlier one waits for.
func (p *Pool) Lease(need Need, stop <-chan struct{}) ([]Device, bool) {
	if need.Count == 0 {
		return nil, true
	}
	t := &turn{need, make(chan []Device, 1)}
	p.mu.Lock()
	p.queue = append(p.queue, t)
	p.serve()
	p.mu.Unlock()
	select {
	case got := <-t.got:
		return got, true
	case <-stop:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = slices.DeleteFunc(p.queue, func(e *turn) bool { return e == t })
	select {
	case got := <-t.got: // at the same time
		p.put(got)
	default:
	}
	p.serve()
	return nil, false
}

// Return gives devices back.
func (p *Pool) Return(devices []Device) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(devices)
	p.serve()
}

func (p *Pool) put(devices []Device) {
	for _, d := range devices {
		p.free[d] = true
	}
}

// serve hands devices to those who wait, in their order.
func (p *Pool) serve() {
	reserved := map[Device]bool{}
	p.queue = slices.DeleteFunc(p.queue, func(t *turn) bool {
		var got []Device
		for _, d := range p.devices {
			if p.free[d] && !reserved[d] && t.need.fits(d) && len(got) < t.need.Count {
				got = append(got, d)
			}
		}
		if len(got) < t.need.Count {
			for _, d := range p.devices {
				reserved[d] = reserved[d] || t.need.fits(d)
			}
			return false
		}
		for _, d := range got {
			p.free[d] = false
		}
		t.got <- got
		return true
	})
}
