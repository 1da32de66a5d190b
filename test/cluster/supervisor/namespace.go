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

// OwnDirs returns the folders that must exist on the machine for a cluster to
// lay folders of its own over them.
func OwnDirs() []string { return ownDirs }

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
	// What is mounted from here on is seen nowhere else, but by the pods that
	// ask for it (mountPropagation).
	for _, flags := range []uintptr{unix.MS_REC | unix.MS_PRIVATE, unix.MS_REC | unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", flags, ""); err != nil {
			return fmt.Errorf("mount --make-rprivate, --make-rshared /: %w", err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// containerd keeps the sockets of its shims in /run, runc its state.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range ownDirs {
		own := spec.path("root", dir)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(own, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return nil
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
	return errors.Join(netlink.LinkSetUp(lo), netlink.LinkSetUp(bridge), forwardPackets())
}

// forwardPackets lets packets pass between the pods' bridge and the node's.
func forwardPackets() error {
	return os.WriteFile(filepath.Join("/proc/sys/net/ipv4", "ip_forward"), []byte("1"), 0o644)
}
