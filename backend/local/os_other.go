//go:build !linux

package local

import (
	"os/exec"
	"syscall"
)

// dieWithParent does nothing: this system cannot.
func dieWithParent(*syscall.SysProcAttr) {}

// waitExit waits for the process.
func waitExit(cmd *exec.Cmd) { cmd.Wait() }

// A sweeper does nothing: this system does not show the environment of others.
type sweeper struct{}

func newSweeper() *sweeper { return nil }

func (*sweeper) sweep(string) {}
