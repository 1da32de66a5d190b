package worker

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// confine bounds this process for good: bytes of data and seconds of CPU time.
// It writes no file, dumps no core, has few files open, and gets no rights by
// running another program.
//
// RLIMIT_DATA counts what is written to; RLIMIT_AS would count what Go and
// Starlark merely reserve, many times that. At a hard limit of CPU time the
// kernel kills; the signal of a soft one Go ignores.
func confine(memory, cpu uint64) error {
	for _, l := range []struct {
		what     string
		resource int
		most     uint64
	}{
		{"memory", unix.RLIMIT_DATA, memory},
		{"CPU time", unix.RLIMIT_CPU, cpu},
		{"written bytes", unix.RLIMIT_FSIZE, 0},
		{"core dumps", unix.RLIMIT_CORE, 0},
		{"open files", unix.RLIMIT_NOFILE, 64},
	} {
		var now unix.Rlimit
		if err := unix.Getrlimit(l.resource, &now); err != nil {
			return fmt.Errorf("read the limit of %s: %w", l.what, err)
		}
		most := min(l.most, now.Max) // a limit cannot be raised
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("limit %s: %w", l.what, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new rights: %w", err)
	}
	return nil
}
