package k8s

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

func stepsIn(n int, group string) []*dag.Step {
	var all []*dag.Step
	for i := range n {
		all = append(all, &dag.Step{Name: fmt.Sprintf("s%d%s", i, group), Group: group})
	}
	return all
}

// TestShards counts the shards of pipelines, and wants each step in one of them.
func TestShards(t *testing.T) {
	items := make([]any, 300)
	for _, tt := range []struct {
		name string
		p    *dag.Pipeline
		want int
	}{
		{"empty", &dag.Pipeline{}, 1},
		{"few", &dag.Pipeline{Steps: stepsIn(3, "")}, 1},
		{"a shard", &dag.Pipeline{Steps: stepsIn(stepsPerShard, "")}, 1},
		{"more", &dag.Pipeline{Steps: stepsIn(stepsPerShard+1, "")}, 2},
		{"very many", &dag.Pipeline{Steps: stepsIn(maxShards*stepsPerShard+1, "")}, maxShards},
		{"loop", &dag.Pipeline{Steps: stepsIn(2, "l"), Groups: []*dag.Group{{Name: "l", Kind: dag.GroupLoop, Loop: &dag.Loop{Items: items}}}}, 2},
		{"loop in a loop", &dag.Pipeline{Steps: stepsIn(1, "l"), Groups: []*dag.Group{
			{Name: "k", Kind: dag.GroupLoop, Loop: &dag.Loop{Items: items[:10]}},
			{Name: "l", Kind: dag.GroupLoop, Group: "k", Loop: &dag.Loop{Items: items}},
		}}, 6},
		{"loop over what the run knows", &dag.Pipeline{Steps: stepsIn(1, "l"), Groups: []*dag.Group{{Name: "l", Kind: dag.GroupLoop, Loop: &dag.Loop{From: "x"}}}}, openShards},
		{"a graph that calls itself", &dag.Pipeline{Steps: stepsIn(1, "g"), Groups: []*dag.Group{{Name: "g", Kind: dag.GroupGraph}, {Name: "c", Kind: dag.GroupCall, Group: "g"}}}, openShards},
	} {
		n := shardsFor(tt.p)
		if n != tt.want {
			t.Errorf("%s: %d shards; want %d", tt.name, n, tt.want)
		}
		s := newSharder(tt.p, n)
		for _, name := range []string{"s0", "s2", "s0[7]", "s0~1[3]", "unknown"} {
			if i := s.of(name); i < 0 || i >= n {
				t.Errorf("%s: step %s is in shard %d of %d", tt.name, name, i, n)
			}
		}
	}
}

func recordOf(step string, messages ...string) storedRecord {
	r := engine.Record{Step: step, State: engine.Failed, Outputs: map[string]string{"x": step}}
	for i, m := range messages {
		r.Attempts = append(r.Attempts, engine.Outcome{ID: step, Number: i + 1, Message: m})
	}
	return storedRecord{Record: r}
}

// TestShardWith wants a shard to stay as it is when another one is made of it.
func TestShardWith(t *testing.T) {
	old := (&shard{}).with(1, &engine.RunRecord{State: engine.Running}, []storedRecord{recordOf("b"), recordOf("a")})
	before := *old
	before.Records = slices.Clone(old.Records)
	next := old.with(2, nil, []storedRecord{recordOf("a", "again"), recordOf("c")})
	if diff := cmp.Diff(&before, old); diff != "" {
		t.Errorf("the old shard has changed:\n%s", diff)
	}
	want := &shard{Version: stateVersion, Epoch: 2, Run: old.Run, Records: []storedRecord{recordOf("a", "again"), recordOf("b"), recordOf("c")}}
	if diff := cmp.Diff(want, next); diff != "" {
		t.Errorf("the new shard (-want +got):\n%s", diff)
	}
}

// TestShardFits wants the messages of attempts, and nothing else, to give way
// when a shard becomes too large.
func TestShardFits(t *testing.T) {
	s := &shard{Version: stateVersion, Epoch: 1}
	var lines strings.Builder
	for i := range 60 {
		fmt.Fprintf(&lines, "line %d of what it said before it failed: ä\n", i*i*7919)
	}
	for i := range 50 {
		s.put(recordOf(fmt.Sprint("s", i), fmt.Sprint(i, lines.String()), lines.String()))
	}
	whole, data, err := s.fit(maxConfigMap)
	if err != nil || whole != s {
		t.Errorf("a shard with room: %v; want it as it is", err)
	}
	least, err := pack(s.with(1, nil, func() (bare []storedRecord) {
		for i := range 50 {
			bare = append(bare, recordOf(fmt.Sprint("s", i), "", ""))
		}
		return bare
	}()))
	if err != nil {
		t.Fatal(err)
	}
	for most := len(data) - 1; most >= len(least); most /= 2 {
		cut, data, err := s.fit(most)
		if err != nil || len(data) > most {
			t.Errorf("fit(%d): %d bytes, %v", most, len(data), err)
			continue
		}
		var kept shard
		if err := unpack(data, &kept); err != nil || len(kept.Records) != 50 {
			t.Errorf("fit(%d): %d records, %v", most, len(kept.Records), err)
		}
		for i, r := range cut.Records {
			if r.State != engine.Failed || r.Outputs["x"] != r.Step || len(r.Attempts) != 2 || !strings.HasSuffix(s.Records[i].Attempts[1].Message, r.Attempts[1].Message) {
				t.Errorf("fit(%d): record %v", most, r)
			}
		}
	}
	if s.Records[0].Attempts[1].Message != lines.String() {
		t.Error("the shard itself has changed")
	}
	if _, _, err := s.fit(len(least) - 1); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("fit without room: %v; want an error", err)
	}
}

// TestUnpack refuses what was not packed, and what was changed since.
func TestUnpack(t *testing.T) {
	want := shard{Version: stateVersion, Epoch: 7, Records: []storedRecord{recordOf("a", "m")}}
	data, err := pack(want)
	if err != nil {
		t.Fatal(err)
	}
	var got shard
	if err := unpack(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("unpack (-want +got):\n%s", diff)
	}
	damaged := map[string][]byte{"empty": nil, "text": []byte("{}"), "cut": data[:len(data)-9]}
	for i := 10; i < len(data); i++ { // before that stand the time and the system of gzip
		changed := slices.Clone(data)
		changed[i] ^= 4
		damaged[fmt.Sprint("changed at ", i)] = changed
	}
	for name, data := range damaged {
		var got shard
		if err := unpack(data, &got); err == nil && cmp.Equal(want, got) {
			continue // what fills the last byte up
		} else if err == nil || !strings.Contains(err.Error(), "changed by hand") {
			t.Errorf("unpack of what is %s: %v; want an error", name, err)
		}
	}
}
