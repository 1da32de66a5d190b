package dag

import (
	"strings"
	"testing"
)

func TestK8sName(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"train", "train"},
		{"My first pipeline", "my-first-pipeline"},
		{"Train_Model (v2.0)!", "train-model-v2-0"},
		{"--a--b--", "a-b"},
		{"über café", "ber-caf"},
		{"naïve  —  name", "na-ve-name"},
		{"3d", "3d"},
		{"日本", ""},
		{"", ""},
		{"-", ""},
	} {
		if got := K8sName(tt.in); got != tt.want {
			t.Errorf("K8sName(%q) = %q; want %q", tt.in, got, tt.want)
		}
		if got := K8sName(tt.want); got != tt.want {
			t.Errorf("K8sName(%q) = %q; want no change", tt.want, got)
		}
	}
}

func TestFullName(t *testing.T) {
	for _, tt := range []struct{ step, output, want string }{
		{"train", "accuracy", "train-accuracy"},
		{"train", "Final_Loss", "train-Final_Loss"},
		{"train", "my  out", "train-my-out"},
		{"train", "out-", "train-out"},
		{"train", "a\tb\nc", "train-a-b-c"},
		{"a-b", "c", "a-b-c"},
	} {
		if got := FullName(tt.step, tt.output); got != tt.want {
			t.Errorf("FullName(%q, %q) = %q; want %q", tt.step, tt.output, got, tt.want)
		}
	}
}

func TestPosText(t *testing.T) {
	for _, tt := range []struct {
		pos  Pos
		text string
	}{
		{Pos{}, ""},
		{Pos{"in.star", 12, 5}, "in.star:12:5"},
		{Pos{"a:7:b.star", 1, 0}, "a:7:b.star:1:0"},
		{Pos{"sub dir/ü.star", 1, 1}, "sub dir/ü.star:1:1"},
	} {
		text, err := tt.pos.MarshalText()
		if err != nil || string(text) != tt.text {
			t.Errorf("%#v.MarshalText() = %q, %v; want %q", tt.pos, text, err, tt.text)
		}
		got := Pos{"old", 1, 1}
		if err := got.UnmarshalText([]byte(tt.text)); err != nil || got != tt.pos {
			t.Errorf("UnmarshalText(%q) = %#v, %v; want %#v", tt.text, got, err, tt.pos)
		}
	}
	for _, text := range []string{"a", "a:1", ":1:2", "a:b:2", "a:1:c", "a:-1:2", "a:1:", "a::1"} {
		var p Pos
		if err := p.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("UnmarshalText(%q) = %v; want an error", text, p)
		}
	}
}

func TestCheckOutputName(t *testing.T) {
	for _, good := range []string{"a", "A1", "my out_put-2"} {
		if got := CheckOutputName(good); got != "" {
			t.Errorf("CheckOutputName(%q) = %q", good, got)
		}
	}
	for _, bad := range []string{"", "1a", "_a", " a", "a:b", "a.b", "ä", "a" + string(tokenOpen)} {
		if got := CheckOutputName(bad); !strings.HasPrefix(got, "output name ") {
			t.Errorf("CheckOutputName(%q) = %q; want a fault", bad, got)
		}
	}
}
