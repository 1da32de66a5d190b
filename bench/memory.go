package main

import (
	"os"
	"runtime"
	"syscall"
)

// maxMemory returns the most memory that an ended process held, in bytes.
func maxMemory(s *os.ProcessState) int64 {
	usage, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return usage.Maxrss // bytes there, KiB elsewhere
	}
	return usage.Maxrss << 10
}
