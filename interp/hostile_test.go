//go:build !race

// The race detector makes these too slow and too large; make test runs them
// without it.

package interp

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kfs-project/kfs/internal/hostile"
)

// TestHostile shows that scripts made to eat the machine end in an ordinary
// error, with the default limits: soon, and with little memory.
func TestHostile(t *testing.T) {
	for _, tt := range hostile.Scripts() {
		t.Run(tt.Name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			start := time.Now()
			ctx := context.Background()
			s, err := LoadFS(ctx, fstest.MapFS{"in.star": {Data: []byte(tt.Source)}}, "in.star", Config{})
			if err == nil {
				_, err = s.Pipeline(ctx, "")
			}
			runtime.ReadMemStats(&after)
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("got %v; want an *Error", err)
			} else if strings.Contains(err.Error(), "registers no pipeline") {
				t.Errorf("the script went through")
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if sys := after.Sys; sys > 1<<30 {
				t.Errorf("%d MiB of memory were had from the system", sys>>20)
			}
		})
	}
}
