package dag

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fullPod is a pipeline that sets all of Pod, Conduct and Conf.
func fullPod() *Pipeline {
	tok := func(name string) string { return Ref{Kind: RefParam, Name: name}.Token() }
	retries, ttl := 0, 0
	container := func(name, value string) []Object {
		return []Object{{{Name: "name", Value: name}, {Name: "image", Value: value}}}
	}
	return &Pipeline{
		Name: "p",
		Steps: []*Step{{
			Name: "a", Container: Object{{Name: "image", Value: "i"}},
			Pod: Pod{
				NodeSelector:   Object{{Name: tok("selector"), Value: "x"}},
				Tolerations:    []Object{{{Name: "key", Value: tok("toleration")}}},
				Affinity:       Object{{Name: "nodeAffinity", Value: Object{{Name: "x", Value: []any{tok("affinity")}}}}},
				Annotations:    Object{{Name: "a", Value: tok("annotation")}},
				Labels:         Object{{Name: "l", Value: tok("label")}},
				InitContainers: container("init", tok("init")),
				Sidecars:       container("side", tok("sidecar")),
				ServiceAccount: tok("account"),
				Mesh:           true,
			},
			Conduct: Conduct{
				DisplayName: tok("display"), NoCache: true, MaxCacheStaleness: tok("staleness"),
				Once: true, InfraRetries: &retries, PendingTimeout: tok("pending"), Primitive: "job",
			},
		}},
		Conf: &Conf{
			ImagePullSecrets: []Object{{{Name: "name", Value: "s"}}}, ServiceAccount: "sa",
			NodeSelector: Object{{Name: "k", Value: "v"}}, DNSConfig: Object{{Name: "nameservers", Value: []any{"1.1.1.1"}}},
			DataVolume: Object{{Name: "name", Value: "d"}}, DataPrefix: "x/", Timeout: 1, Parallelism: 2, TTLSeconds: &ttl, MinAvailable: "50%",
		},
	}
}

func TestPodJSON(t *testing.T) {
	text, err := fullPod().JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got Pipeline
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fullPod(), &got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

// TestPodRefs shows that values known only at run time are found wherever a
// step can hold them.
func TestPodRefs(t *testing.T) {
	var got []string
	for _, r := range fullPod().Steps[0].Refs() {
		got = append(got, r.Name)
	}
	want := []string{"selector", "toleration", "affinity", "annotation", "label", "init", "sidecar", "account", "display", "staleness", "pending"}
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("refs of %q; want %q", got, want)
	}
}

func TestValidateDataVolume(t *testing.T) {
	out := Ref{Kind: RefOutput, Step: "a", Name: "x"}.Token()
	pipeline := func(second, taken string) *Pipeline {
		return &Pipeline{
			Name: "p", Conf: &Conf{DataVolume: Object{{Name: "name", Value: "d"}}},
			Steps: []*Step{
				{Name: "a", Container: Object{{Name: "image", Value: "i"}}, Outputs: []Output{{Name: "x", Path: "/x/data"}, {Name: "y", Path: second}}},
				{Name: "b", Container: Object{{Name: "image", Value: "i"}}, Artifacts: []Artifact{{Name: "in", Path: taken, Text: out}}},
			},
		}
	}
	for _, tt := range []struct{ second, taken, want string }{
		{"/y/data", "/in/data", ""},
		{"/x/other", "/in/data", `step "a": /x/data and /x/other are in one folder`},
		{"/y/data", "/in/file", `step "b" takes a.outputs["x"] as /in/file: with a data passing volume a file keeps its name, which is data`},
	} {
		err := pipeline(tt.second, tt.taken).Validate()
		if faults := Faults(err); tt.want == "" && err != nil || tt.want != "" && (len(faults) != 1 || !strings.HasPrefix(faults[0].Msg, tt.want)) {
			t.Errorf("%s, %s: got %v; want %q", tt.second, tt.taken, err, tt.want)
		}
	}
}

func TestValidateConduct(t *testing.T) {
	container := func(names ...string) (cs []Object) {
		for _, name := range names {
			cs = append(cs, Object{{Name: "name", Value: name}})
		}
		return cs
	}
	minus := -1
	for _, tt := range []struct {
		change func(*Step)
		want   string
	}{
		{func(s *Step) { s.PendingTimeout = "0" }, `pending timeout "0"`},
		{func(s *Step) { s.Primitive = "deployment" }, `primitive "deployment": want pod or job`},
		{func(s *Step) { s.InfraRetries = &minus }, "infra retries -1"},
		{func(s *Step) { s.Once, s.Retry = true, &Retry{Limit: "1"} }, "is to run once, and yet has retries"},
		{func(s *Step) { s.Once, s.Retry = true, &Retry{Limit: "0"} }, ""},
		{func(s *Step) { s.InitContainers, s.Sidecars = container("x"), container("x") }, `two containers named "x"`},
		{func(s *Step) { s.Sidecars = container("") }, "without a name"},
		{func(s *Step) { s.Sidecars = container("main") }, `named "main"`},
	} {
		s := &Step{Name: "a", Container: Object{{Name: "image", Value: "i"}}}
		tt.change(s)
		err := (&Pipeline{Name: "p", Steps: []*Step{s}}).Validate()
		if faults := Faults(err); tt.want == "" && err != nil || tt.want != "" && (len(faults) != 1 || !strings.Contains(faults[0].Msg, tt.want)) {
			t.Errorf("got %v; want %q", err, tt.want)
		}
	}
}
