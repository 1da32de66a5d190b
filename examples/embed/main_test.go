package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/interp"
)

func TestRun(t *testing.T) {
	ctx := context.Background()
	var out bytes.Buffer
	if err := run(ctx, []string{"train.star", "-zone", "us"}, &out); err != nil {
		t.Fatal(err)
	}
	want := `Train
  param rows
  param threshold
  step train of registry.example.com/team/train:stable (train.star:9:13)
  step evaluate of registry.example.com/team/evaluate:stable (lib/steps.star:7:12)
  step notify of registry.example.com/team/notify:v2 (lib/steps.star:10:12)
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("the list differs (-want +got):\n%s", diff)
	}
	out.Reset()
	if err := run(ctx, []string{"train.star", "-zone", "us", "-workflow"}, &out); err != nil || !strings.Contains(out.String(), "nodeSelector:\n      zone: us\n") {
		t.Errorf("-workflow: %v; want a node selector of zone us in\n%s", err, out.String())
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"mistakes.star"}, `mistakes.star:5:5: step "copy": image docker.io/library/busybox is none of the team's`},
		{[]string{"train.star", "-zone", "uk"}, `setting "zone" is "uk": want one of "eu", "us"`},
	} {
		var e *interp.Error
		if err := run(context.Background(), tt.args, new(bytes.Buffer)); !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v; want an *interp.Error with %s", tt.args, err, tt.want)
		}
	}
}

// TestImports shows that the example uses nothing that another program could
// not import.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "/internal/") || !strings.Contains(string(out), "/interp") {
		t.Errorf("imports are\n%s", out)
	}
}
