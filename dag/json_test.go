package dag

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The wanted texts are what Python 3 prints.
func TestPythonFloat(t *testing.T) {
	for _, tt := range []struct {
		in   float64
		want string
	}{
		{0, "0.0"},
		{math.Copysign(0, -1), "-0.0"},
		{0.1, "0.1"},
		{100, "100.0"},
		{0.0001, "0.0001"},
		{0.00012345, "0.00012345"},
		{1e-5, "1e-05"},
		{-2.5e-7, "-2.5e-07"},
		{5e-324, "5e-324"},
		{1e15, "1000000000000000.0"},
		{9999999999999998, "9999999999999998.0"},
		{1e16, "1e+16"},
		{1e22, "1e+22"},
		{1.5e300, "1.5e+300"},
		{123456789012345680, "1.2345678901234568e+17"},
		{1.0 / 3, "0.3333333333333333"},
		{math.NaN(), "nan"},
		{math.Inf(1), "inf"},
		{math.Inf(-1), "-inf"},
	} {
		if got := PythonFloat(tt.in); got != tt.want {
			t.Errorf("PythonFloat(%g) = %s; want %s", tt.in, got, tt.want)
		}
	}
}

func TestPythonJSON(t *testing.T) {
	token := Ref{Kind: RefParam, Name: "n"}.Token()
	for _, tt := range []struct {
		in   any
		want string
	}{
		{nil, `null`},
		{true, `true`},
		{-3, `-3`},
		{int64(math.MinInt64), `-9223372036854775808`},
		{1e-05, `1e-05`},
		{math.NaN(), `NaN`},
		{math.Inf(1), `Infinity`},
		{math.Inf(-1), `-Infinity`},
		{"é\x00\x1f\x7f\u2028😀\"\\/\b\f\n\r\t", `"\u00e9\u0000\u001f\u007f\u2028\ud83d\ude00\"\\/\b\f\n\r\t"`},
		{"<&>" + token, `"<&>` + token + `"`},
		{"\xff", `"\ufffd"`},
		{[]any{}, `[]`},
		{Object{}, `{}`},
		{[]any{1, 2.0, []any{"a"}}, `[1, 2.0, ["a"]]`},
		{Object{{"b", 1}, {"é", 2}, {"Z", Object{{"y", nil}, {"x", false}}}}, `{"Z": {"x": false, "y": null}, "b": 1, "\u00e9": 2}`},
	} {
		if got := PythonJSON(tt.in); got != tt.want {
			t.Errorf("PythonJSON(%#v) = %s; want %s", tt.in, got, tt.want)
		}
	}
}

func TestObjectGetSet(t *testing.T) {
	var o Object
	o.Set("img", "image")
	o.Set("1", "resources", "limits", "cpu")
	o.Set("2Gi", "resources", "limits", "memory")
	o.Append("args", "a")
	o.Append("args", Object{{"b", nil}})
	o.Set("img:v2", "image") // keeps its place
	want := `{"image":"img:v2","resources":{"limits":{"cpu":"1","memory":"2Gi"}},"args":["a",{"b":null}]}`
	if got, err := json.Marshal(o); err != nil || string(got) != want {
		t.Errorf("object %s, %v; want %s", got, err, want)
	}
	for _, tt := range []struct {
		path []string
		want any
	}{
		{[]string{"image"}, "img:v2"},
		{[]string{"resources", "limits", "cpu"}, "1"},
		{[]string{"resources", "requests", "cpu"}, nil},
		{[]string{"image", "name"}, nil},
		{[]string{"none"}, nil},
		{nil, o},
	} {
		if got := o.Get(tt.path...); !cmp.Equal(got, tt.want) {
			t.Errorf("Get(%q) = %v; want %v", tt.path, got, tt.want)
		}
	}
	o.Set(int64(1), "image", "x") // what is no object gives way to one
	if got := o.Get("image", "x"); got != int64(1) {
		t.Errorf("Get(image, x) = %v; want 1", got)
	}
}

// Objects that share members must not see each other's changes.
func TestObjectSharing(t *testing.T) {
	base := Object{{"a", Object{{"b", Object{{"c", 1}}}}}, {"list", append(make([]any, 0, 8), 1)}}
	base.Set(nil, "spare") // leaves room in the backing array
	before, _ := json.Marshal(base)

	x, y := base, base
	for i, o := range []*Object{&x, &y} {
		o.Set(i, "new")
		o.Set(i, "spare")
		o.Set(i, "a", "b", "c")
		o.Set(i, "a", "d")
		o.Append("list", i)
		o.Append("fresh", i)
	}
	if after, _ := json.Marshal(base); !bytes.Equal(before, after) {
		t.Errorf("shared object became %s; want %s", after, before)
	}
	for _, tt := range []struct {
		o    Object
		want string
	}{
		{x, `{"a":{"b":{"c":0},"d":0},"list":[1,0],"spare":0,"new":0,"fresh":[0]}`},
		{y, `{"a":{"b":{"c":1},"d":1},"list":[1,1],"spare":1,"new":1,"fresh":[1]}`},
	} {
		if got, _ := json.Marshal(tt.o); string(got) != tt.want {
			t.Errorf("object %s; want %s", got, tt.want)
		}
	}

	unsorted := Object{{"b", 1}, {"a", Object{{"z", 1}, {"y", 2}}}, {"b", 2}}
	want := Object{{"a", Object{{"z", 1}, {"y", 2}}}, {"b", 1}, {"b", 2}}
	if got := unsorted.Sorted(); !cmp.Equal(got, want) || unsorted[0].Name != "b" {
		t.Errorf("Sorted() = %v; want %v and the receiver as it was", got, want)
	}
	upper := MapText(base, strings.ToUpper).(Object)
	if got, _ := json.Marshal(upper); string(got) != `{"A":{"B":{"C":1}},"LIST":[1],"SPARE":null}` {
		t.Errorf("MapText = %s", got)
	}
	if after, _ := json.Marshal(base); !bytes.Equal(before, after) {
		t.Errorf("MapText changed its tree to %s; want %s", after, before)
	}
}

func TestObjectJSON(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Object
	}{
		{`{}`, Object{}},
		{`{"z":1,"a":[{"y":null,"x":true}]}`, Object{{"z", int64(1)}, {"a", []any{Object{{"y", nil}, {"x", true}}}}}},
		{`{"n":[1,1.0,-0.0,1e-05,1e+16,9223372036854775807]}`,
			Object{{"n", []any{int64(1), 1.0, math.Copysign(0, -1), 1e-5, 1e16, int64(math.MaxInt64)}}}},
		{`{"e":[],"o":{},"s":"<&>😀"}`, Object{{"e", []any{}}, {"o", Object{}}, {"s", "<&>😀"}}},
	} {
		var got Object
		if err := json.Unmarshal([]byte(tt.text), &got); err != nil || !cmp.Equal(got, tt.want) {
			t.Errorf("Unmarshal(%s) = %#v, %v; want %#v", tt.text, got, err, tt.want)
		}
		if text, err := tt.want.MarshalJSON(); err != nil || string(text) != tt.text {
			t.Errorf("MarshalJSON of %#v = %s, %v; want %s", tt.want, text, err, tt.text)
		}
	}
	for _, bad := range []string{`[]`, `"a"`, `{"a":1e999}`, `{"a":[1e999]}`, `{"a":`, `{"a":[`, ``} {
		if err := new(Object).UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("UnmarshalJSON(%s) succeeded", bad)
		}
	}
	for _, bad := range []any{math.NaN(), []any{math.Inf(1)}, Object{{"x", func() {}}}} {
		if text, err := (Object{{"a", bad}}).MarshalJSON(); err == nil {
			t.Errorf("MarshalJSON of %v = %s; want an error", bad, text)
		}
	}
}

// full is a pipeline with something in every field.
func full() *Pipeline {
	n, acc := Ref{Kind: RefParam, Name: "n"}.Token(), Ref{Kind: RefOutput, Step: "train", Name: "acc"}.Token()
	return &Pipeline{
		Name: "Fit <all>", Description: "d", Pos: Pos{"in.star", 1, 1},
		Params: []*Param{
			{Name: "n", Type: "Integer", Description: "how many", Default: new("3"), Optional: true, Pos: Pos{"in.star", 2, 3}},
			{Name: "m", Inferred: "Float"},
		},
		Steps: []*Step{
			{
				Name: "train", Pos: Pos{"in.star", 5, 2},
				Container: Object{{"image", "i"}, {"args", []any{"--n", n}}, {"x", Object{{"b", 1.0}, {"a", []any{int64(1), nil}}}}},
				Volumes:   []Object{{{"name", "v"}, {"emptyDir", Object{}}}},
				Outputs:   []Output{{Name: "acc", Path: "/tmp/acc", Pos: Pos{"in.star", 6, 1}}},
				Retry:     &Retry{Limit: n, Policy: "Always", Backoff: "2m", Factor: "1.5", MaxBackoff: "1h"},
				Timeout:   "60",
			},
			{Name: "eval", Container: Object{{"image", "j"}, {"command", []any{"eval", "acc=" + acc}}}, After: []Edge{{"train", Pos{"in.star", 7, 1}}}},
			{
				Name:     "claim",
				Resource: &Resource{Action: "apply", MergeStrategy: "merge", SuccessCondition: "a", FailureCondition: "b", SetOwnerReference: new(false), Flags: []string{n}, Manifest: configMap(n)},
				Outputs:  []Output{{Name: "uid", JSONPath: "{.metadata.uid}"}},
			},
			{Name: "each", Group: "loop", Container: Object{{"image", "i"}}},
			{Name: "listed", Group: "list", Container: Object{{"image", "i"}}},
		},
		Groups: []*Group{
			{Name: "loop", Kind: GroupLoop, Pos: Pos{"in.star", 8, 1}, Loop: &Loop{
				Items: []any{Object{{"size", int64(1)}, {"at", n}, {"more", []any{Object{{"b", 1.0}, {"a", nil}}}}}}, Item: "loop-item-1"}},
			{Name: "list", Kind: GroupLoop, Group: "loop", Loop: &Loop{From: acc, Item: "loop-item-2"}},
			{Name: "numbers", Kind: GroupLoop, Loop: &Loop{Items: []any{1.0, 2.5}, Item: "loop-item-3"}},
		},
	}
}

func TestPipelineJSON(t *testing.T) {
	p := full()
	text, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"{\n  \"version\": 1,\n  \"name\": \"Fit <all>\",", `"acc=\ue000output:train:acc\ue001"`, `"pos": "in.star:5:2"`, "\n}\n"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("JSON() does not hold %s:\n%s", want, text)
		}
	}
	var got Pipeline
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, &got); diff != "" {
		t.Errorf("JSON and back (-want +got):\n%s", diff)
	}
	again, err := got.JSON()
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("JSON of the pipeline read back, %v:\n%s\nwant\n%s", err, again, text)
	}
	for _, tt := range []struct{ in, want string }{
		{`{"version": 2, "name": "a", "steps": []}`, "read pipeline: version 2: want 1"},
		{`{"name": "a", "steps": []}`, "read pipeline: version 0: want 1"},
		{`{"version": 1, "pos": "here"}`, `read pipeline: position "here": want file:line:column`},
		{`{"version": 1, "steps": [{"container": []}]}`, "read pipeline: JSON []interface {}: want an object"},
	} {
		if err := json.Unmarshal([]byte(tt.in), new(Pipeline)); errText(err) != tt.want {
			t.Errorf("Unmarshal(%s): %v; want %s", tt.in, err, tt.want)
		}
	}
}
