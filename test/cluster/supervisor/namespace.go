package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file makes the supervisor's namespaces a machine for one node.

// ownDirs are folders whose paths are fixed in the kubelet, in containerd or
// in the CNI plugins. A cluster sees a folder of its own state at each.
var ownDirs = []string{
	"/var/lib/cni",        // addresses given out, and results
	"/var/lib/kubelet",    // volumes, and the sockets of device plugins
	"/var/log/containers", // links to the pods' logs
	"/var/log/pods",
}

// tunables are what the kubelet sets for the whole machine, whatever namespace
// it is in. A cluster's kubelet finds files that say so already.
var tunables = map[string]string{
	"kernel/keys/root_maxbytes": "25000000",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
}

// enterNamespaces sets up mounts, host name and links.
func enterNamespaces(spec *Spec) error {
	if err := mountAll(spec); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(Node)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	return linkAll()
}

func mountAll(spec *Spec) error {
	if err := ownMounts(); err != nil {
		return err
	}
	// containerd keeps the sockets of its shims in /run, runc its state.
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	for file, value := range tunables {
		if err := cover(filepath.Join("/proc/sys", file), spec.path("sys", file), value+"\n"); err != nil {
			return err
		}
	}
	for _, dir := range ownDirs {
		if _, err := os.Stat(dir); err == nil {
			continue
		}
		if err := graft(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	for _, dir := range ownDirs {
		own := spec.path("root", dir)
		if err := errors.Join(os.MkdirAll(own, 0o755), os.MkdirAll(dir, 0o755), mount(own, dir, "", unix.MS_BIND, "")); err != nil {
			return err
		}
	}
	// by pods that ask for it (mountPropagation); not before, as what is
	// grafted would cover what it is grafted from
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// ownMounts lets what is mounted from here on be seen nowhere else, and shows
// the processes of the PID namespace.
func ownMounts() error {
	return errors.Join(
		mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// cover lays a file of the content over target, which is left alone where
// there is none.
func cover(target, file, content string) error {
	if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Join(
		os.MkdirAll(filepath.Dir(file), 0o755),
		os.WriteFile(file, []byte(content), 0o644),
		mount(file, target, "", unix.MS_BIND, ""))
}

// graft makes dir a folder of the cluster's own that holds all that it held,
// so that folders can be added which the machine does not get.
func graft(dir string) error {
	if _, err := os.Stat(filepath.Join("/run/grafted", dir)); err == nil {
		return nil
	}
	old := filepath.Join("/run/grafted", dir)
	err := errors.Join(
		os.MkdirAll(old, 0o755),
		mount(dir, old, "", unix.MS_BIND|unix.MS_REC, ""),
		mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(old)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := regrow(filepath.Join(old, e.Name()), filepath.Join(dir, e.Name()), e.Type()); err != nil {
			return err
		}
	}
	return nil
}

// regrow shows old at path too.
func regrow(old, path string, kind os.FileMode) error {
	switch {
	case kind.IsDir():
		return errors.Join(os.Mkdir(path, 0o755), mount(old, path, "", unix.MS_BIND|unix.MS_REC, ""))
	case kind&os.ModeSymlink != 0:
		target, err := os.Readlink(old)
		return errors.Join(err, os.Symlink(target, path))
	default:
		return errors.Join(os.WriteFile(path, nil, 0o644), mount(old, path, "", unix.MS_BIND, ""))
	}
}

// linkAll brings the loopback up and gives the node its addresses. They are on
// a bridge, since a kernel without dummy devices still has those.
func linkAll() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("link lo: %w", err)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "node0"}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add the bridge node0: %w", err)
	}
	for _, ip := range []string{nodeIP, serviceIP} {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(ip).To4(), Mask: net.CIDRMask(32, 32)}}
		if err := netlink.AddrAdd(bridge, addr); err != nil {
			return fmt.Errorf("give %s to node0: %w", ip, err)
		}
	}
	return errors.Join(netlink.LinkSetUp(lo), netlink.LinkSetUp(bridge),
		// between the pods' bridge and the node's
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
}

// probe tries in namespaces of its own what a cluster will do in its, and
// returns what the kernel does not let it.
func probe() []string {
	var lacks []string
	try := func(what string, err error) {
		if err != nil {
			lacks = append(lacks, fmt.Sprintf("%s: %v", what, err))
		}
	}
	if err := ownMounts(); err != nil {
		return []string{err.Error()}
	}
	try("links of kind bridge", netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge0"}}))
	try("links of kind veth", netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0"}, PeerName: "veth1"}))
	if err := mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return append(lacks, err.Error())
	}
	var layers []string
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		dir := filepath.Join("/run", name)
		try("a folder in a tmpfs", os.Mkdir(dir, 0o755))
		layers = append(layers, dir)
	}
	try("the file system overlay", mount("overlay", layers[3], "overlay", 0,
		fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", layers[0], layers[1], layers[2])))
	return lacks
}
