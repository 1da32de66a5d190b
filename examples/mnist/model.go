package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// This file is the subcommand model, and the file that a model is kept in.

// metrics is what metrics.json in the export directory holds.
type metrics struct {
	Accuracy     float64 `json:"accuracy"` // on held-out images, 0 to 1
	Loss         float64 `json:"loss"`     // mean cross-entropy on held-out images
	Seconds      float64 `json:"seconds"`  // of training
	Data         string  `json:"data"`     // where the images came from
	TrainImages  int     `json:"train_images"`
	TestImages   int     `json:"test_images"`
	Steps        int     `json:"steps"`
	BatchSize    int     `json:"batch_size"`
	LearningRate float64 `json:"learning_rate"`
}

// runModel trains a model and exports it.
func runModel(ctx context.Context, args []string, stdout, _ io.Writer) error {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		args = args[1:] // the script in the image, /opt/model.py: this program is the script
	}
	flags := newFlags("model [/opt/model.py]")
	export := flags.String("tf-export-dir", "", "`folder` to write the model to: a path, file://, gs:// or s3://")
	t := training{seed: 1}
	flags.IntVar(&t.steps, "tf-train-steps", 200, "`batches` to train on")
	flags.IntVar(&t.batch, "tf-batch-size", 100, "`images` in a batch")
	flags.Float64Var(&t.rate, "tf-learning-rate", 0.01, "highest learning `rate` of Adam")
	if err := parse(flags, args, stdout); err != nil {
		return err
	}
	switch {
	case *export == "":
		return usagef("--tf-export-dir is missing: wanted the folder to write the model to")
	case t.steps <= 0:
		return usagef("--tf-train-steps is %d: wanted 1 or more", t.steps)
	case t.batch <= 0:
		return usagef("--tf-batch-size is %d: wanted 1 or more", t.batch)
	case !(t.rate > 0) || math.IsInf(t.rate, 0):
		return usagef("--tf-learning-rate is %g: wanted a number above 0, such as 0.01", t.rate)
	}
	home, err := homeDir()
	if err != nil {
		return err
	}
	dir, err := exportDir(stdout, home, *export)
	if err != nil {
		return err
	}
	learn, test, source, err := images(ctx, home)
	if err != nil {
		return err
	}
	if t.batch > learn.len() {
		return usagef("--tf-batch-size is %d: wanted at most %d, all the images there are to learn from", t.batch, learn.len())
	}
	fmt.Fprintf(stdout, "data: %s: %d images to learn from, %d held out\n", source, learn.len(), test.len())

	t.every = max(t.steps/10, 1)
	t.report = func(step int, s score) {
		fmt.Fprintf(stdout, "step %d/%d: loss %.4f, accuracy %.4f\n", step, t.steps, s.meanLoss(), s.accuracy())
	}
	start := time.Now()
	net, err := train(ctx, learn, t)
	if err != nil {
		return err
	}
	took := seconds(time.Since(start))
	s := net.evaluate(test)
	if math.IsNaN(s.loss) {
		return fmt.Errorf("training diverged in its last steps: take a learning rate lower than %g", t.rate)
	}
	if err := saveModel(dir, net); err != nil {
		return fmt.Errorf("export the model: %w", err)
	}
	m, err := json.MarshalIndent(metrics{
		Accuracy: s.accuracy(), Loss: s.meanLoss(), Seconds: took, Data: source,
		TrainImages: learn.len(), TestImages: test.len(),
		Steps: t.steps, BatchSize: t.batch, LearningRate: t.rate,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("export the metrics: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "metrics.json"), append(m, '\n')); err != nil {
		return fmt.Errorf("export the metrics: %w", err)
	}
	fmt.Fprintf(stdout, "held-out accuracy %.4f, loss %.4f, %.2f s\n", s.accuracy(), s.meanLoss(), took)
	fmt.Fprintf(stdout, "model: %s\n", modelFile(dir))
	return nil
}

// exportDir is localDir; it says so if a folder stands in for a bucket. In a
// cluster none can: the step that wants the model has other folders.
func exportDir(stdout io.Writer, home, export string) (string, error) {
	dir, mapped, err := localDir(home, export)
	if err != nil {
		return "", err
	}
	if mapped && inCluster() {
		return "", fmt.Errorf("export directory %q: in a cluster wanted a folder of a volume that the steps share, such as /mnt/export", export)
	}
	if mapped {
		fmt.Fprintf(stdout, "%s is the folder %s on this machine\n", export, dir)
	}
	return dir, nil
}

// images returns MNIST if MNIST_DATA_DIR says where it is, else drawn digits,
// and which of them it was.
func images(ctx context.Context, home string) (train, test *dataset, source string, err error) {
	if dir := os.Getenv("MNIST_DATA_DIR"); dir != "" {
		if train, test, err = loadMNIST(dir); err != nil {
			return nil, nil, "", fmt.Errorf("MNIST_DATA_DIR: %w", err)
		}
		return train, test, "MNIST in " + dir, nil
	}
	if train, test, err = drawnMNIST(ctx, home); err != nil {
		return nil, nil, "", err
	}
	return train, test, "drawn digits (MNIST_DATA_DIR is not set)", nil
}

// A model file is, with all numbers little endian: 8 bytes magic, uint32
// version 1, three uint32 with the sizes of the layers, the float32 of the
// network in its own order, and the SHA-256 of all before.
const (
	modelMagic   = "KFSMNIST"
	modelVersion = 1
	modelHeader  = len(modelMagic) + 4*4
	modelSize    = modelHeader + 4*params + sha256.Size
)

// modelFile returns where the model is in an export directory. As in one for
// TensorFlow Serving, there is a folder for each version of the model; here it
// is always 1.
func modelFile(dir string) string { return filepath.Join(dir, "1", "model.bin") }

// saveModel writes a network to an export directory, which it makes.
func saveModel(dir string, net network) error {
	name := modelFile(dir)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return writeFile(name, encodeModel(net))
}

// loadModel reads the network in an export directory.
func loadModel(dir string) (network, error) {
	name := modelFile(dir)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no model in %s: wanted the file %s: run `mnist model --tf-export-dir %[1]s` first", dir, name)
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(modelSize)+1))
	if err != nil {
		return nil, err
	}
	net, err := decodeModel(data)
	if err != nil {
		return nil, fmt.Errorf("model file %s: %w: train it anew", name, err)
	}
	return net, nil
}

func encodeModel(net network) []byte {
	b := make([]byte, 0, modelSize)
	b = append(b, modelMagic...)
	for _, v := range []uint32{modelVersion, pixels, hidden, classes} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, v := range net {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func decodeModel(data []byte) (network, error) {
	if !bytes.HasPrefix(data, []byte(modelMagic)) {
		return nil, fmt.Errorf("it does not begin with %q, so it is no model", modelMagic)
	}
	if len(data) < modelHeader {
		return nil, fmt.Errorf("it is cut short: %d bytes, wanted %d", len(data), modelSize)
	}
	var head [4]uint32
	for i := range head {
		head[i] = binary.LittleEndian.Uint32(data[len(modelMagic)+4*i:])
	}
	if head[0] != modelVersion {
		return nil, fmt.Errorf("it has version %d, wanted %d", head[0], modelVersion)
	}
	if head != [4]uint32{modelVersion, pixels, hidden, classes} {
		return nil, fmt.Errorf("its layers are %d, wanted [%d %d %d]", head[1:], pixels, hidden, classes)
	}
	if len(data) < modelSize {
		return nil, fmt.Errorf("it is cut short: %d bytes, wanted %d", len(data), modelSize)
	} else if len(data) > modelSize {
		return nil, fmt.Errorf("it is too long: wanted %d bytes", modelSize)
	}
	body, sum := data[:modelSize-sha256.Size], data[modelSize-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, fmt.Errorf("it is damaged: its checksum is %x, wanted %x", got[:4], sum[:4])
	}
	net := make(network, params)
	for i := range net {
		net[i] = math.Float32frombits(binary.LittleEndian.Uint32(body[modelHeader+4*i:]))
	}
	return net, nil
}
