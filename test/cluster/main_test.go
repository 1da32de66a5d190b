package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kfs-project/kfs/test/cluster/parts"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// TestCommandFaults gives wrong arguments and wants to be told what is wrong.
func TestCommandFaults(t *testing.T) {
	for _, tt := range []struct {
		args string
		want string
	}{
		{"up --fake-allocatable gpu=many", "allocatable gpu=many: want a quantity"},
		{"up --fake-taint gpu", `taint "gpu": want KEY=VALUE:EFFECT`},
		{"up --arg kubelet", `argument "kubelet": want PART=--FLAG=VALUE`},
		{"status", "no such cluster is up"},
		{"env", "no such cluster is up"},
		{"fault freeze kublet", `invalid argument "kublet"`},
		{"fault evict pod", `pod "pod": want NAMESPACE/POD`},
		{"fault watches cut", `invalid argument "cut"`},
		{"image build .", "want a name for the image, by -t"},
		{"image build -t a:1 --file /etc/a=/nowhere .", "open /nowhere"},
		{"image build -t a:1 --push elsewhere ./parts/pause", `push to "elsewhere": want open, private or named`},
		{"image load /nowhere", "no such cluster is up"},
		{"run", "requires at least 1 arg"},
	} {
		var out bytes.Buffer
		cmd := command(&out, &out)
		cmd.SetArgs(append(strings.Fields(tt.args), "--name", "nobody", "--dir", t.TempDir()))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("cluster %s: %v; want %q", tt.args, err, tt.want)
		}
	}
}

func TestNodeFlags(t *testing.T) {
	n := nodeFlags{prefix: "gpu", allocatable: map[string]string{"nvidia.com/gpu": "8"}, taints: []string{"dedicated=gpu:NoSchedule", "old:NoExecute"}}
	got, err := n.template()
	if err != nil {
		t.Fatal(err)
	}
	want := []corev1.Taint{{Key: "dedicated", Value: "gpu", Effect: "NoSchedule"}, {Key: "old", Effect: "NoExecute"}}
	if len(got.Taints) != 2 || got.Taints[0] != want[0] || got.Taints[1] != want[1] {
		t.Errorf("taints %v, want %v", got.Taints, want)
	}
	if q := got.Allocatable["nvidia.com/gpu"]; q.Value() != 8 {
		t.Errorf("allocatable %v, want 8 GPUs", got.Allocatable)
	}
	for _, tt := range []struct {
		taints []string
		isNil  bool
	}{{nil, true}, {[]string{"none"}, false}} {
		got, err := (&nodeFlags{taints: tt.taints}).template()
		if err != nil || len(got.Taints) > 0 || (got.Taints == nil) != tt.isNil {
			t.Errorf("taints of %q: %#v, %v", tt.taints, got.Taints, err)
		}
	}
}

// TestQuote lets a shell read what it wrote.
func TestQuote(t *testing.T) {
	for _, text := range []string{"", "plain", "a b", "it's", "$HOME `x` \"y\" \\", "two\nlines"} {
		out, err := exec.Command("sh", "-c", "printf %s "+quote(text)).Output()
		if err != nil || string(out) != text {
			t.Errorf("a shell reads %s as %q, %v; want %q", quote(text), out, err, text)
		}
	}
}

// TestProgress wants few lines where output is no terminal.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.building(parts.Progress{})
	p.last = p.last.Add(-quiet)
	p.building(parts.Progress{Total: 10, Built: 4, Took: 1500 * time.Millisecond})
	p.building(parts.Progress{Total: 10, Built: 5, Took: 1500 * time.Millisecond})
	p.building(parts.Progress{Total: 10, Built: 10, Done: true, Took: 2 * time.Second})
	p.end()
	want := "building the parts of a cluster: 4 of at most 10 packages after 2s\nbuilt the parts of a cluster in 2s\n"
	if got := out.String(); got != want {
		t.Errorf("prints %q, want %q", got, want)
	}
}

// TestFollower prints the ends of logs, and what is added to them.
func TestFollower(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	l := &logFile{path: file}
	if lines, err := l.read(); err != nil || lines != nil {
		t.Errorf("no file gives %q, %v", lines, err)
	}
	for _, tt := range []struct{ add, want string }{
		{"one\ntwo\nthr", "one,two"},
		{"", ""},
		{"ee\n", "three"},
	} {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(tt.add)
		f.Close()
		if lines, err := l.read(); err != nil || strings.Join(lines, ",") != tt.want {
			t.Errorf("after %q the lines are %q, %v; want %q", tt.add, lines, err, tt.want)
		}
	}
	var out bytes.Buffer
	last := follower{out: &out, last: 1, files: []*logFile{{path: file, prefix: "etcd | "}}}
	if err := last.print(t.Context(), false); err != nil || out.String() != "etcd | three\n" {
		t.Errorf("the last line is %q, %v", out.String(), err)
	}
}

func TestMissing(t *testing.T) {
	running := supervisor.PartStatus{Name: "etcd", State: supervisor.Running}
	frozen := supervisor.PartStatus{Name: "kubelet", State: supervisor.Frozen}
	if err := missing(supervisor.Status{Parts: []supervisor.PartStatus{running}}); err == nil {
		t.Error("one that is still being brought up lacks nothing")
	}
	if err := missing(supervisor.Status{Ready: true, Parts: []supervisor.PartStatus{running}}); err != nil {
		t.Errorf("all running: %v", err)
	}
	if err := missing(supervisor.Status{Ready: true, Parts: []supervisor.PartStatus{running, frozen}}); err == nil || err.Error() != "kubelet is frozen" {
		t.Errorf("one frozen: %v", err)
	}
}
