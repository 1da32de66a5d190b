//go:build !race

// The race detector takes memory and time for itself; make test runs these
// without it.

package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kfs-project/kfs/interp"
)

// TestLimits shows that a script which drives its worker beyond a limit is an
// ordinary error. The interpreter's own limits are set so high that only the
// kernel's are left.
func TestLimits(t *testing.T) {
	none := interp.Limits{Steps: 1 << 60, Time: time.Hour, Memory: 1 << 60}
	for _, tt := range []struct {
		name, src, want string
		cfg             Config
	}{
		{name: "memory", src: "d = {}\nfor i in range(1 << 60):\n    d[i] = str(i)\n", cfg: Config{Limits: none, Memory: 256 << 20},
			want: "its evaluation took more than the 256 MiB of memory"},
		{name: "CPU time", src: "for i in range(1 << 60):\n    pass\n", cfg: Config{Limits: none, CPU: time.Second},
			want: "its evaluation took more than the 1 s of CPU time"},
		{name: "the stack", src: "overflow()\n", want: "its evaluation nested calls or values too deep"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e *interp.Error
			if _, err := Load(context.Background(), write(t, tt.src), tt.cfg); !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v; want an *interp.Error with %q", err, tt.want)
			}
		})
	}
}
