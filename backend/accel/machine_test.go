package accel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/dag"
)

// machine returns a machine with these files, on which nvidia-smi prints a
// text; "" is that it fails.
func machine(t *testing.T, smi string, environ []string, files map[string]string) Machine {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return Machine{Root: root, OS: "linux", Arch: "amd64", Environ: append([]string{"X=1"}, environ...), Run: func(name string, args ...string) ([]byte, error) {
		if smi == "" {
			return nil, errors.New("exit status 9")
		}
		return []byte(smi), nil
	}}
}

// kfd are the files of a machine with a processor, a GPU in it, and two
// MI300X, as the kernel of ROCm shows them.
func kfd() map[string]string {
	node := func(simd, vendor, device, minor int) string {
		return fmt.Sprintf("cpu_cores_count 0\nsimd_count %d\nvendor_id %d\ndevice_id %d\ndrm_render_minor %d\nunique_id 1\n", simd, vendor, device, minor)
	}
	const nodes = "sys/class/kfd/kfd/topology/nodes/"
	return map[string]string{
		"dev/kfd":               "",
		nodes + "0/properties":  node(0, 0, 0, 0),
		nodes + "2/properties":  node(1216, 4098, 29857, 129),
		nodes + "10/properties": node(1216, 4098, 29857, 130),
		nodes + "1/properties":  node(8, 4098, 5710, 128),
		"sys/class/drm/renderD128/device/mem_info_vram_total": "536870912\n",
		"sys/class/drm/renderD129/device/mem_info_vram_total": "206141652992\n",
		"sys/class/drm/renderD130/device/mem_info_vram_total": "206141652992\n",
	}
}

const twoGPUs = "GPU-aaaa, NVIDIA A100-SXM4-80GB, 81920\nGPU-bbbb, NVIDIA L4, 23034\n"

func TestDevices(t *testing.T) {
	nvidia := map[string]string{"dev/nvidiactl": ""}
	a100 := Device{"nvidia", "GPU-aaaa", "NVIDIA A100-SXM4-80GB", 81920 << 20}
	l4 := Device{"nvidia", "GPU-bbbb", "NVIDIA L4", 23034 << 20}
	mi := func(id string) Device { return Device{"amd", id, "74a1", 206141652992} }
	for _, tt := range []struct {
		name    string
		smi     string
		environ []string
		files   map[string]string
		want    []Device
		err     string
	}{
		{"nothing", twoGPUs, nil, nil, nil, ""},
		{"NVIDIA", twoGPUs, nil, nvidia, []Device{a100, l4}, ""},
		{"WSL", twoGPUs, nil, map[string]string{"dev/dxg": "", "usr/lib/wsl/lib/nvidia-smi": ""}, []Device{a100, l4}, ""},
		{"unknown memory", "GPU-c, Odd GPU, [N/A]\n", nil, nvidia, []Device{{"nvidia", "GPU-c", "Odd GPU", 0}}, ""},
		{"a mask of IDs", twoGPUs, []string{"CUDA_VISIBLE_DEVICES=GPU-bbbb"}, nvidia, []Device{l4}, ""},
		{"a mask of indices", twoGPUs, []string{"CUDA_VISIBLE_DEVICES=1,0,7,1"}, nvidia, []Device{l4, a100}, ""},
		{"the last mask", twoGPUs, []string{"CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES="}, nvidia, nil, ""},
		{"a mask that hides all", twoGPUs, []string{"CUDA_VISIBLE_DEVICES=-1"}, nvidia, nil, ""},
		{"masks that hide what is not there", "", []string{"CUDA_VISIBLE_DEVICES=-1", "HIP_VISIBLE_DEVICES=-1"}, nil, nil, ""},
		{"a mask that repeats itself", twoGPUs, []string{"CUDA_VISIBLE_DEVICES=1,GPU-bbbb,0"}, nvidia, []Device{l4}, ""},
		{"AMD", "", nil, kfd(), []Device{mi("1"), mi("2")}, ""},
		{"a mask of AMD", "", []string{"HIP_VISIBLE_DEVICES=2"}, kfd(), []Device{mi("2")}, ""},
		{"a driver without program", "", nil, nvidia, nil, "/dev/nvidiactl is there, and nvidia-smi does not say which GPUs: exit status 9"},
		{"an odd program", "what?\n", nil, nvidia, nil, `nvidia-smi prints ["what?"]: want a UUID, a name and a number of MiB`},
	} {
		got, err := machine(t, tt.smi, tt.environ, tt.files).Devices()
		if diff := cmp.Diff(tt.want, got); diff != "" || fmt.Sprint(err) != orNil(tt.err) {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
	mac := Machine{OS: "darwin", Arch: "arm64", Environ: []string{}}
	if got, err := mac.Devices(); err != nil || len(got) != 1 || got[0].Vendor != "apple" {
		t.Errorf("on a Mac: %v, %v; want Apple's GPU", got, err)
	}
}

func orNil(text string) string {
	if text == "" {
		return "<nil>"
	}
	return text
}

func TestNeed(t *testing.T) {
	m := machine(t, "", nil, map[string]string{"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu avx2 fma\n"})
	a100 := Device{"nvidia", "GPU-a", "NVIDIA A100-SXM4-80GB", 81920 << 20}
	l4 := Device{"nvidia", "GPU-b", "NVIDIA L4", 23034 << 20}
	mi300x := Device{"amd", "0", "74a1", 206141652992}
	apple := Device{"apple", "0", "Apple GPU", 0}
	for _, tt := range []struct {
		in      *dag.Accelerator
		devices []Device
		want    string // the devices of the first lease, or the error
	}{
		{gpu(""), []Device{l4, a100}, "GPU-b"},
		{gpu("nvidia"), []Device{mi300x, l4}, "GPU-b"},
		{spec("a100-80gb", 1), []Device{l4, a100}, "GPU-a"},
		{spec("mi300x", 1), []Device{l4, mi300x}, "0"},
		{with(gpu(""), func(a *dag.Accelerator) { a.Memory = "40G" }), []Device{l4, a100}, "GPU-a"},
		{with(gpu("nvidia"), func(a *dag.Accelerator) { a.ComputeCapability = "8.9" }), []Device{a100, l4}, "GPU-b"},
		{&dag.Accelerator{Kind: "first_of", Alternatives: []*dag.Accelerator{spec("h100-80gb", 1), spec("l4", 1)}}, []Device{a100, l4}, "GPU-b"},
		{&dag.Accelerator{Kind: "mps"}, []Device{apple}, "0"},
		{with(gpu(""), func(a *dag.Accelerator) { a.Count = 0 }), []Device{l4}, "none"},
		{&dag.Accelerator{Kind: "cpu_features", Features: []string{"avx2", "fma"}}, nil, ""},
		{&dag.Accelerator{Kind: "cpu_features", Features: []string{"amx_tile"}, Prefer: true}, nil, ""},

		{&dag.Accelerator{Kind: "cpu_features", Features: []string{"avx2", "amx_tile"}}, nil, "its processor has no amx_tile"},
		{gpu("nvidia"), nil, `it needs gpu(vendor="nvidia"), and there is no GPU`},
		{spec("a100-80gb", 2), []Device{l4, a100, mi300x}, `it needs accelerator("a100-80gb", count=2), and there is NVIDIA L4, NVIDIA A100-SXM4-80GB, AMD MI300X`},
		{gpu(""), []Device{l4, mi300x}, "it needs gpu(), and there are GPUs of several vendors: name one"},
		{gpu(""), []Device{apple}, "it needs gpu(), and there is Apple GPU"},
		{&dag.Accelerator{Kind: "mps"}, []Device{l4}, "it needs mps(), and there is NVIDIA L4"},
		{&dag.Accelerator{Kind: "mig", Partition: "1g.5gb", Count: 1}, []Device{a100}, `a process can be given whole GPUs of NVIDIA and AMD, mps() and cpu_features(...) here, not mig("1g.5gb")`},
		{spec("gaudi3", 1), nil, `a process can be given whole GPUs of NVIDIA and AMD, mps() and cpu_features(...) here, not accelerator("gaudi3")`},
		{&dag.Accelerator{Kind: "tpu", Model: "v5e", Topology: "1x1"}, nil, `a process can be given whole GPUs of NVIDIA and AMD, mps() and cpu_features(...) here, not tpu("v5e", topology="1x1")`},
	} {
		need, err := m.Need(tt.in, tt.devices)
		got := ""
		if err != nil {
			got = err.Error()
		} else if need.None {
			got = "none"
		} else if leased, ok := NewPool(tt.devices).Lease(need, nil); ok && len(leased) > 0 {
			got = leased[0].ID
		}
		if got != tt.want {
			t.Errorf("%s on a machine with %v: %s; want %s", tt.in, tt.devices, got, tt.want)
		}
	}
}

func TestVisible(t *testing.T) {
	for _, tt := range []struct {
		in   []Device
		want map[string]string
	}{
		{nil, map[string]string{"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1"}},
		{[]Device{{Vendor: "nvidia", ID: "GPU-a"}, {Vendor: "nvidia", ID: "GPU-b"}}, map[string]string{"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}},
		{[]Device{{Vendor: "amd", ID: "1"}}, map[string]string{"HIP_VISIBLE_DEVICES": "1"}},
		{[]Device{{Vendor: "apple", ID: "0"}}, nil},
	} {
		if diff := cmp.Diff(tt.want, Visible(tt.in)); diff != "" {
			t.Errorf("Visible(%v) (-want +got):\n%s", tt.in, diff)
		}
	}
}

// TestPool shows that devices are handed out once, that who came first is
// served first, and that others pass who want other devices.
func TestPool(t *testing.T) {
	a, b, c := Device{Vendor: "nvidia", ID: "a"}, Device{Vendor: "nvidia", ID: "b"}, Device{Vendor: "amd", ID: "c"}
	need := func(vendor string, n int) Need {
		return Need{Count: n, fits: func(d Device) bool { return d.Vendor == vendor }}
	}
	p := NewPool([]Device{a, b, c})
	one, _ := p.Lease(need("nvidia", 1), nil)
	if !slices.Equal(one, []Device{a}) {
		t.Fatalf("the first lease is %v", one)
	}
	type lease struct {
		who  string
		devs []Device
		ok   bool
	}
	leases := make(chan lease, 3)
	wait := func(who string, n Need, stop chan struct{}, queued int) {
		go func() {
			devs, ok := p.Lease(n, stop)
			leases <- lease{who, devs, ok}
		}()
		for queueOf(p) != queued { // until it waits
		}
	}
	impatient := make(chan struct{})
	wait("impatient", need("nvidia", 2), impatient, 1)
	wait("both", need("nvidia", 2), nil, 2)
	wait("late", need("nvidia", 1), nil, 3) // b is free, and reserved
	if other, ok := p.Lease(need("amd", 1), nil); !ok || !slices.Equal(other, []Device{c}) {
		t.Errorf("a lease of another vendor is %v, %v", other, ok)
	}
	close(impatient)
	if got := <-leases; got.who != "impatient" || got.ok {
		t.Errorf("%v; want that the one that was stopped has nothing", got)
	}
	p.Return(one)
	got := <-leases
	if got.who != "both" || !slices.Equal(got.devs, []Device{a, b}) {
		t.Errorf("%v; want both for who came first", got)
	}
	p.Return(got.devs)
	if got := <-leases; got.who != "late" || !slices.Equal(got.devs, []Device{a}) {
		t.Errorf("%v; want a for who came last", got)
	}
	if devs, ok := p.Lease(Need{}, nil); !ok || devs != nil {
		t.Errorf("a lease of nothing is %v, %v", devs, ok)
	}
}

func queueOf(p *Pool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

func TestDeviceString(t *testing.T) {
	if got := (Device{Vendor: "amd", Name: "ffff"}).String(); !strings.Contains(got, "ffff") {
		t.Errorf("an unknown GPU of AMD is %q", got)
	}
}
