package component

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kfs-project/kfs/dag"
)

// A component that is right, for what stands beside it.
const command = "\nimplementation: {container: {image: i, command: [c]}}"

func TestReadFaults(t *testing.T) {
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	wide := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 'b'; i < 'j'; i++ {
		was := string(i - 1)
		wide += string(i) + ": &" + string(i) + " [*" + strings.Repeat(was+", *", 9) + was + "]\n"
	}
	for _, tt := range []struct {
		text string
		want string // a part of the error; "" is none
	}{
		{"name: x" + command, ""},
		{"", "the text is empty"},
		{"# only a comment\n", "the text is empty"},
		{"[a]", "1:1: the component is a list: want a mapping"},
		{"text", "1:1: the component is text: want a mapping"},
		{"name: x\n", "1:1: the component has no implementation"},
		{"name: x\n---\nname: y\n", "a second document begins here"},
		{"a: [", "it is no YAML"},
		{"a: b\n c: d\n", "2:0: it is no YAML"},
		{"\x80", "not in UTF-8"},
		{"PK\x03\x04", "it is a zip file"},
		{"name: \ue000param:x\ue001" + command, "characters that no component can hold"},
		{"nam: x" + command, `1:1: unknown key "nam" of the component: did you mean "name"?`},
		{"name: x\nname: y" + command, `2:1: "name" is given twice`},
		{"name: yes" + command, "1:7: the component's name is yes, which YAML takes for a boolean"},
		{"description: 1.5" + command, "which YAML takes for a number"},
		{"name: [x]" + command, "the component's name is a list: want text"},
		{"? [a]\n: b" + command, "a key of the component is a list"},
		{"metadata: {label: {}}" + command, `unknown key "label" of metadata: did you mean "labels"?`},
		{"metadata: {labels: {a: 1}}" + command, "label a is 1, which YAML takes for a number"},
		{"metadata: {annotations: [a]}" + command, "annotation is a list: want a mapping"},
		{"inputs: {name: a}" + command, "inputs is a mapping: want a list"},
		{"inputs: [a]" + command, "an input is text: want a mapping"},
		{"inputs: [{type: String}]" + command, "an input has no name"},
		{"inputs: [{name: a}, {name: a}]" + command, `two inputs are named "a"`},
		{"inputs: [{name: a, default: [1]}]" + command, `the default of input "a" is a list`},
		{"inputs: [{name: a, optional: maybe}]" + command, "optional is text: want true or false"},
		{"inputs: [{name: a, type: 1}]" + command, "the type is 1, which YAML takes for a number"},
		{"outputs: [{name: o}, {name: o}]" + command, `two outputs are named "o"`},
		{"outputs: [{name: o, default: x}]" + command, `unknown key "default" of an output`},
		{"implementation: {}", "the implementation is empty"},
		{"implementation: [a]", "implementation is a list"},
		{"implementation: {container: {command: [c]}}", "the container has no image"},
		{"implementation: {container: {image: i}, graph: {tasks: {}}}", "both a container and a graph"},
		{"implementation: {container: {image: i, command: c}}", "command is text: want a list"},
		{"implementation: {container: {image: i, command: [[c]]}}", "a part of the command is a list"},
		{"implementation: {container: {image: i, command: [null]}}", "which YAML takes for null"},
		{"implementation: {container: {image: i, args: [{inputvalue: a}]}}", `did you mean "inputValue"?`},
		{"implementation: {container: {image: i, args: [{inputValue: a}]}}", `the component has no input "a"`},
		{"implementation: {container: {image: i, args: [{outputUri: a}]}}", "outputUri is a placeholder of KFP v2"},
		{"implementation: {container: {image: i, args: [{concat: a}]}}", "concat is text: want a list"},
		{"implementation: {container: {image: i, args: [{if: a}]}}", "if is text: want a mapping"},
		{"implementation: {container: {image: i, args: [{if: {cond: true}}]}}", "if has no then"},
		{"implementation: {container: {image: i, args: [{if: {cond: {isPresent: a}, then: b}}]}}", `no input "a"`},
		{"implementation: {container: {image: i, args: [{if: {cond: 'on', then: [{if: {cond: {is: a}, then: b}}]}}]}}", `unknown key "is" of cond`},
		{"implementation: {container: {image: i, env: {A: 1}}}", "env A is 1"},
		{"implementation: {container: {image: i, fileOutputs: {o: /o}}}", `no output "o"`},
		{"implementation: {graph: {}}", "the graph has no tasks"},
		{"implementation: {graph: {tasks: {t: {}}}}", `task "t" has no componentRef`},
		{"implementation: {graph: {tasks: {t: {componentRef: {name: x}}}}}", "named neither by spec nor by url"},
		{"implementation: {graph: {tasks: {t: {componentRef: {url: u}, isEnabled: false}}}}", "a condition, isEnabled"},
		{"implementation: {graph: {tasks: {t: {componentRef: {url: u}, arguments: {a: {graphInput: {inputName: b}}}}}}}", `no input "b"`},
		{"implementation: {graph: {tasks: {t: {componentRef: {url: u}, arguments: {a: {taskOutput: {taskId: s, outputName: o}}}}}}}", `no task "s"`},
		{"implementation: {graph: {tasks: {t: {componentRef: {url: u}, arguments: {a: {taskOutput: {taskId: t, outputName: o}}}}}}}", `task "t" needs itself`},
		{"implementation: {graph: {tasks: {t: {componentRef: {url: u}, executionOptions: {retryStrategy: {maxRetries: -1}}}}}}", "maxRetries: want a whole number"},
		{"implementation: {graph: {tasks: {t: {componentRef: {spec: {name: x}}}}}}", "the component has no implementation"},
		{"implementation: {graph: {tasks: {t: {componentRef: {url: u}}}, outputValues: {o: 1}}}", `no output "o"`},
		{"name: &n x\ndescription: *n" + command, ""},
		{"implementation: {container: {image: i, args: &a [{concat: *a}]}}", "nested more than 100 deep"},
		{"inputs: [{name: a, annotations: {x: " + deep + "}}]" + command, "nested more than 100 deep"},
		{"inputs: [{name: a, type: {x: " + deep + "}}]" + command, "nested more than 100 deep"},
		{wide + "inputs: [{name: x, type: {t: *i}}]" + command, "too large"},
		{"inputs: [&a {name: a, <<: {type: String}}, {<<: *a, name: b}]" + command, ""},
		{"schemaVersion: 2.1.0\n", `unknown key "schemaVersion"`},
		{"kind: Workflow" + command, `unknown key "kind"`},
	} {
		_, err := Read([]byte(tt.text))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if tt.want == "" && err != nil || !strings.Contains(got, tt.want) {
			t.Errorf("Read(%.200q): got %v; want %q", tt.text, err, tt.want)
		}
	}
}

func TestReadScalars(t *testing.T) {
	for _, tt := range []struct {
		text string
		want any
	}{
		{"7", int64(7)},
		{"-0x1F", int64(-31)},
		{"017", int64(15)},
		{"1_000", int64(1000)},
		{"0.50", 0.5},
		{"1e3", "1e3"},
		{"1.0e+3", 1000.0},
		{"1.0e3", "1.0e3"},
		{"yes", true},
		{"Off", false},
		{"'yes'", "yes"},
		{"!!str 7", "7"},
		{"y", "y"},
		{"099", "099"},
		{"99999999999999999999", "99999999999999999999"},
		{"2020-01-01", "2020-01-01"},
		{"''", ""},
		{"null", nil},
		{"~", nil},
	} {
		s, err := Read([]byte("inputs: [{name: a, default: " + tt.text + "}]" + command))
		if err != nil || s.Inputs[0].Default != tt.want {
			t.Errorf("default %s: got %#v, %v; want %#v", tt.text, s, err, tt.want)
		}
	}
}

func TestFits(t *testing.T) {
	typed := func(name, property string) any {
		return dag.Object{{Name: name, Value: dag.Object{{Name: "p", Value: property}}}}
	}
	for _, tt := range []struct {
		given, wanted any
		want          bool
	}{
		{nil, "Integer", true},
		{"Model", nil, true},
		{"Model", "Model", true},
		{"Model", "Integer", false},
		{"int", "Integer", false},
		{"Artifact", "Model", true},
		{"Model", "artifact", true},
		{"Artifact", "Integer", false},
		{"String", "Artifact", false},
		{"", "Model", true},
		{typed("Model", "x"), typed("Model", "x"), true},
		{typed("Model", "x"), typed("Model", "y"), false},
		{typed("Model", "x"), "Model", false},
		{"Model", typed("Model", "x"), true},
		{typed("Model", "x"), typed("Other", "x"), false},
		{typed("Model", "x"), "Artifact", true},
	} {
		if got := Fits(tt.given, tt.wanted); got != tt.want {
			t.Errorf("Fits(%v, %v) = %v; want %v", tt.given, tt.wanted, got, tt.want)
		}
	}
}

func TestLock(t *testing.T) {
	text := []byte("name: x")
	l := &Lock{Components: []Pinned{
		{"https://b/c.yaml", "vendor/b/c.yaml", SHA256(text)},
		{"gs://a/c.yaml", "vendor/a/c.yaml", SHA256(text)},
	}}
	data, err := l.JSON()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseLock(data)
	if err != nil || len(got.Components) != 2 || got.Components[0].URL != "gs://a/c.yaml" {
		t.Fatalf("ParseLock(%s) = %+v, %v", data, got, err)
	}
	for _, url := range []string{"gs://a/c.yaml", "https://storage.googleapis.com/a/c.yaml"} {
		if p := got.Find(url); p == nil || !p.Matches(text) || p.Matches([]byte("other")) {
			t.Errorf("Find(%q) = %+v", url, p)
		}
	}
	if p := got.Find("https://c"); p != nil {
		t.Errorf("Find of an unknown URL = %+v", p)
	}
	for _, bad := range []string{"", "[]", `{"version": 2}`, `{"version": 1, "other": 1}`,
		`{"version": 1, "components": [{"url": "u", "path": "../x", "sha256": "` + SHA256(text) + `"}]}`,
		`{"version": 1, "components": [{"url": "u", "path": "x", "sha256": "12"}]}`} {
		if l, err := ParseLock([]byte(bad)); err == nil {
			t.Errorf("ParseLock(%s) = %+v; want an error", bad, l)
		}
	}
}

// FuzzComponent reads any text without a panic, and what it reads again as the
// same.
func FuzzComponent(f *testing.F) {
	files, err := filepath.Glob("../../interp/testdata/component*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatalf("interp/testdata/component*.txtar: %d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for section := range strings.SplitSeq(string(text), " --\n") {
			f.Add([]byte(section))
		}
	}
	f.Add([]byte("inputs: [&a {name: a, <<: {type: String}}, {<<: *a, name: b}]" + command))
	f.Add([]byte("implementation: {container: {image: i, args: &a [{concat: *a}]}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Read(text)
		if err != nil {
			return
		}
		if (s.Container == nil) == (s.Graph == nil) {
			t.Error("want either a container or a graph")
		}
		dag.PythonJSON(s.Tree)
		s.URLs()
	})
}
