package fakekubelet

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestParseBehavior(t *testing.T) {
	second := metav1.Duration{Duration: time.Second}
	for _, tt := range []struct {
		in   string
		want []Behavior
	}{
		{"{}", []Behavior{{}}},
		{"do: run", []Behavior{{Do: doRun}}},
		{"{do: fail, after: 1s, exit: 3, message: no luck}", []Behavior{{Do: doFail, After: second, Exit: new(int32(3)), Message: "no luck"}}},
		{"{do: oom, exit: 0}", []Behavior{{Do: doOOM, Exit: new(int32(0))}}},
		{"{pending: 1s, settle: 1000ms, grace: 1s, term: 0}", []Behavior{{Pending: second, Settle: second, Grace: second, Term: new(int32(0))}}},
		{"- do: evict\n  after: 1s\n- do: pull-backoff\n- {}", []Behavior{{Do: doEvict, After: second}, {Do: doPullBackoff}, {}}},
	} {
		got, err := ParseBehavior(tt.in)
		if err != nil {
			t.Errorf("ParseBehavior(%q): %v", tt.in, err)
			continue
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("ParseBehavior(%q) (-want +got):\n%s", tt.in, d)
		}
		text, err := yaml.Marshal(got)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
		}
		if back, err := ParseBehavior(string(text)); err != nil || !cmp.Equal(got, back) {
			t.Errorf("ParseBehavior(%q) = %v, %v; want %v", text, back, err, got)
		}
	}
}

func TestParseBehaviorFaults(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want string
	}{
		{"", "behavior: found null, want a mapping such as {do: fail, after: 2s}"},
		{"fail", `behavior: found "fail", want a mapping such as {do: fail, after: 2s}`},
		{"[]", "behavior: found an empty list, want at least one mapping"},
		{"[{}, 3]", "behavior 2: found 3, want a mapping such as {do: fail, after: 2s}"},
		{"do: die", `behavior: do: found "die", want one of evict, fail, lost, oom, pending, pull-backoff, restart, run, succeed`},
		{"do: [run]", `behavior: do: found ["run"], want one of evict, fail, lost, oom, pending, pull-backoff, restart, run, succeed`},
		{"after: 5", "behavior: after: found 5, want a duration such as 1.5s"},
		{"after: -1s", `behavior: after: found "-1s", want a duration such as 1.5s`},
		{"{do: fail, exit: 0}", "behavior: exit: found 0, want an exit code from 1 to 255"},
		{"{do: restart, exit: 256}", "behavior: exit: found 256, want an exit code from 0 to 255"},
		{`{term: "0"}`, `behavior: term: found "0", want an exit code from 0 to 255`},
		{"message: 1", "behavior: message: found 1, want a string"},
		{"exit: 2", "behavior: exit: means nothing to do: succeed, want only pending, after, settle, grace, term, message"},
		{"{do: run, after: 1s}", "behavior: after: means nothing to do: run, want only pending, grace, term, message"},
		{"{do: pending, pending: 1s}", "behavior: pending: means nothing to do: pending, want no other field"},
		{"{do: run, do: fail}", `behavior: error converting YAML to JSON: yaml: unmarshal errors:` + "\n" + `  line 1: key "do" already set in map`},
		{
			"[{do: fail, exit: x, After: 1s}, {do: run}, {grace: 1, do: nil}]",
			"behavior 1: After: unknown field, want one of do, pending, after, settle, grace, exit, term, message\n" +
				`behavior 1: exit: found "x", want an exit code from 1 to 255` + "\n" +
				`behavior 3: do: found "nil", want one of evict, fail, lost, oom, pending, pull-backoff, restart, run, succeed` + "\n" +
				"behavior 3: grace: found 1, want a duration such as 1.5s",
		},
	} {
		got, err := ParseBehavior(tt.in)
		if err == nil || err.Error() != tt.want {
			t.Errorf("ParseBehavior(%q) = %v, %v; want the error\n%s", tt.in, got, err, tt.want)
		}
	}
}

func TestClip(t *testing.T) {
	long := strings.Repeat("a", 1000) + strings.Repeat("b", 4096)
	for _, tt := range []struct {
		containers, want int
	}{{1, 4096}, {3, 4096}, {5, 2457}} {
		if got := clip(long, tt.containers); got != strings.Repeat("b", tt.want) {
			t.Errorf("clip of %d bytes for %d containers has %d bytes; want the first %d of the last 4096", len(long), tt.containers, len(got), tt.want)
		}
	}
}
