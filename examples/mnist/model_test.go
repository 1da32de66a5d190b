package main

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestTrain(t *testing.T) {
	learn, test := drawn(t, trainSeed, 2000), drawn(t, testSeed, 500)
	reports := 0
	net, err := train(t.Context(), learn, training{steps: 70, batch: 40, rate: 0.003, seed: 1, every: 20,
		report: func(int, score) { reports++ }})
	if err != nil {
		t.Fatal(err)
	}
	if got := net.evaluate(test).accuracy(); got < .8 {
		t.Errorf("accuracy on held-out digits is %.3f after 70 steps; want 0.80 or more", got)
	}
	if reports != 4 {
		t.Errorf("70 steps gave %d reports; want one every 20 and one at the end", reports)
	}
}

func TestTrainIsDeterministic(t *testing.T) {
	learn := drawn(t, trainSeed, 100)
	how := training{steps: 6, batch: 30, rate: 0.01, seed: 1}
	a, err := train(t.Context(), learn, how)
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	b, err := train(t.Context(), learn, how)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a, b) {
		t.Error("one core trains another network than several")
	}
}

// The gradients agree with the slope of the loss.
func TestGradients(t *testing.T) {
	d := drawn(t, trainSeed, 3)
	net := newNetwork(rand.New(rand.NewPCG(1, 0)))
	opt := adam{}
	for part := range opt.grads {
		opt.grads[part] = make(network, params)
	}
	opt.gradients(net, d, []int{0, 1, 2})
	lit := slices.IndexFunc(d.image(0), func(v byte) bool { return v > 200 })
	for _, i := range []int{lit*hidden + 3, lit*hidden + 77, b1At + 5, w2At + 41, w2At + 1003, b2At + 2} {
		var got float64
		for _, g := range opt.grads {
			got += float64(g[i])
		}
		const h = 1e-2
		was := net[i]
		net[i] = was + h
		up := net.evaluate(d).loss
		net[i] = was - h
		down := net.evaluate(d).loss
		net[i] = was
		if want := (up - down) / (2 * h); math.Abs(got-want) > 2e-3+.02*math.Abs(want) {
			t.Errorf("gradient of number %d is %g; want about %g", i, got, want)
		}
	}
}

func TestTrainFaults(t *testing.T) {
	learn := drawn(t, trainSeed, 50)
	if _, err := train(t.Context(), learn, training{steps: 20, batch: 10, rate: 1e38}); err == nil || !strings.Contains(err.Error(), "diverged") {
		t.Errorf("train at rate 1e38 = %v; want that it diverged", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := train(ctx, learn, training{steps: 20, batch: 10, rate: .01}); err == nil || !strings.Contains(err.Error(), "step 0 of 20") {
		t.Errorf("train with an ended context = %v; want at which step it ended", err)
	}
}

func TestModelFile(t *testing.T) {
	dir := t.TempDir()
	net := newNetwork(rand.New(rand.NewPCG(3, 0)))
	if err := saveModel(dir, net); err != nil {
		t.Fatal(err)
	}
	got, err := loadModel(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, net) {
		t.Error("loadModel returns another network than saveModel got")
	}

	good := encodeModel(net)
	change := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, `does not begin with "KFSMNIST"`},
		{"other file", []byte("{}"), `does not begin with "KFSMNIST"`},
		{"header only", good[:12], "cut short: 12 bytes"},
		{"version", change(8), "it has version 0, wanted 1"},
		{"layers", change(12), "its layers are [785 128 10], wanted [784 128 10]"},
		{"cut", good[:len(good)/2], "cut short"},
		{"long", append(bytes.Clone(good), 0), "too long"},
		{"weight", change(5000), "it is damaged"},
		{"checksum", change(len(good) - 1), "it is damaged"},
	} {
		if err := os.WriteFile(modelFile(dir), tt.data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := loadModel(dir)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "train it anew") {
			t.Errorf("%s: loadModel = %v; want an error with %q", tt.name, err, tt.want)
		}
	}
	if _, err := loadModel(t.TempDir()); err == nil || !strings.Contains(err.Error(), "run `mnist model") {
		t.Errorf("loadModel of an empty folder = %v; want what to do", err)
	}
}
