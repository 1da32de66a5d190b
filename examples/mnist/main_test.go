package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args   string
		status int
		stderr string
	}{
		{"", 2, "usage: mnist COMMAND"},
		{"fly", 2, `unknown command "fly"`},
		{"model", 2, "--tf-export-dir is missing"},
		{"/opt/model.py", 2, "--tf-export-dir is missing"},
		{"model /opt/model.py --tf-export-dir", 2, "flag needs an argument"},
		{"model /opt/model.py --tf-exprt-dir x", 2, "flag provided but not defined: -tf-exprt-dir"},
		{"model /opt/model.py more --tf-export-dir x", 2, `unexpected argument "more"`},
		{"model --tf-export-dir x --tf-train-steps 0", 2, "--tf-train-steps is 0: wanted 1 or more"},
		{"model --tf-export-dir x --tf-train-steps many", 2, `invalid value "many"`},
		{"model --tf-export-dir x --tf-batch-size -1", 2, "--tf-batch-size is -1: wanted 1 or more"},
		{"model --tf-export-dir x --tf-batch-size 31", 2, "--tf-batch-size is 31: wanted at most 30"},
		{"model --tf-export-dir x --tf-learning-rate 0", 2, "--tf-learning-rate is 0: wanted a number above 0"},
		{"model --tf-export-dir x --tf-learning-rate NaN", 2, "--tf-learning-rate is NaN"},
		{"model --tf-export-dir x --tf-learning-rate Inf", 2, "--tf-learning-rate is +Inf"},
		{"model --tf-export-dir ftp://x/y", 1, `unknown scheme "ftp"`},
		{"serve", 2, "--model-export-path is missing"},
		{"serve --model-export-path x --server-name ../x", 2, `--server-name is "../x"`},
		{"serve --model-export-path x --replicas 0", 2, "--replicas is 0: wanted 1 or more"},
		{"--model-export-path x --service-type Magic", 2, `--service-type is "Magic"`},
		{"serve --model-export-path gs://none/x", 1, "no model in"},
		{"web-ui --service-port 0", 2, "--service-port is 0: wanted a port"},
		{"--image x --service-type Magic", 2, `--service-type is "Magic"`},
		{"web-ui --name mnist-service", 2, "wanted another name"},
		{"server --dir x", 1, "no model in"},
		{"stop now", 2, `unexpected argument "now"`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			home, data := t.TempDir(), t.TempDir()
			t.Setenv("MNIST_HOME", home)
			t.Setenv("MNIST_DATA_DIR", data)
			t.Setenv("KUBERNETES_SERVICE_HOST", "") // should the test run in a cluster
			d := drawn(t, 1, 30)
			if err := saveSet(data, trainImages, trainLabels, d); err != nil {
				t.Fatal(err)
			}
			if err := saveSet(data, testImages, testLabels, d); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), strings.Fields(tt.args), &stdout, &stderr)
			if status != tt.status || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("mnist %s: status %d, stderr %s; want %d and %q", tt.args, status, &stderr, tt.status, tt.stderr)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for name := range commands {
		var stdout, stderr bytes.Buffer
		if status := run(t.Context(), []string{name, "-h"}, &stdout, &stderr); status != 0 || stderr.Len() > 0 || stdout.Len() == 0 {
			t.Errorf("mnist %s -h: status %d, stdout %q, stderr %q", name, status, &stdout, &stderr)
		}
	}
}

func TestBadEnvironment(t *testing.T) {
	for _, tt := range []struct{ name, value, args, want string }{
		{"MNIST_HOME", "here", "status", "wanted an absolute path"},
		{"MNIST_WEB_PORT", "http", "web-ui", `MNIST_WEB_PORT is "http": wanted a port`},
		{"MNIST_SERVE_PORT", "65536", "serve --model-export-path x", "wanted a port"},
		{"MNIST_DATA_DIR", "/nowhere", "model --tf-export-dir x", "MNIST_DATA_DIR: found neither /nowhere/train-images-idx3-ubyte nor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("MNIST_HOME", t.TempDir())
			t.Setenv("KUBERNETES_SERVICE_HOST", "")
			t.Setenv(tt.name, tt.value)
			var stderr bytes.Buffer
			if status := run(t.Context(), strings.Fields(tt.args), io.Discard, &stderr); status != 1 || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("mnist %s: status %d, stderr %s; want 1 and %q", tt.args, status, &stderr, tt.want)
			}
		})
	}
}

func TestRegistry(t *testing.T) {
	home := t.TempDir()
	r, err := openRegistry(t.Context(), home)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*pollEvery)
	defer cancel()
	if _, err := openRegistry(ctx, home); err == nil {
		t.Error("openRegistry gives two callers the lock")
	}
	r.close()

	if err := os.WriteFile(registryFile(home), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openRegistry(t.Context(), home); err == nil || !strings.Contains(err.Error(), "is damaged: remove it") {
		t.Errorf("openRegistry of a damaged file = %v; want what to do", err)
	}
}

// A process that got the number of a service that is gone is let live.
func TestStopSparesOthers(t *testing.T) {
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	for _, s := range []service{
		{PID: other.Process.Pid, ID: rand.Text()},
		{PID: other.Process.Pid},
		{PID: 0, ID: rand.Text()},
		{PID: -1, ID: rand.Text()},
	} {
		if ended, err := s.stop(); ended || err != nil {
			t.Errorf("stop of %+v = %v, %v; want that it does not run", s, ended, err)
		}
	}
	// Its state comes behind its name in parentheses; a Z has ended.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", other.Process.Pid))
	if err == nil && bytes.Contains(stat, []byte(") Z ")) {
		t.Error("stop ended a process that is no service")
	}
}

// TestFlow runs the commands in the README as the pipeline's steps run, each a
// process of its own with a bare environment, and draws on the page.
func TestFlow(t *testing.T) {
	work, home := t.TempDir(), t.TempDir()
	program := filepath.Join(work, "bin", "mnist")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	mnist := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir = work
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MNIST_HOME=" + home}
		// A server that kept the streams of the step would hold this up.
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.WaitDelay = time.Minute
		if err := cmd.Run(); err != nil || stderr.Len() > 0 {
			t.Errorf("mnist %s: %v\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
		}
		return stdout.String()
	}
	t.Cleanup(func() { mnist("stop") })

	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]string
	for _, m := range regexp.MustCompile(`(?m)^    bin/mnist (.*)$`).FindAllStringSubmatch(string(readme), -1) {
		lines = append(lines, strings.Fields(m[1]))
	}
	if len(lines) != 4 || lines[3][0] != "stop" {
		t.Fatalf("the README has the commands %q; want model, serve, web-ui and stop", lines)
	}
	export := filepath.Join(home, "gs", "your-bucket", "export")

	out := mnist(lines[0]...)
	if !strings.HasPrefix(out, "gs://your-bucket/export is the folder "+export+" on this machine\n") ||
		!strings.Contains(out, "\nstep 1000/1000: loss ") || !strings.HasSuffix(out, "\nmodel: "+export+"/1/model.bin\n") {
		t.Errorf("mnist model prints\n%s", out)
	}
	var m metrics
	data, err := os.ReadFile(filepath.Join(export, "metrics.json"))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil || m.Accuracy < .97 || m.Steps != 1000 || m.TestImages != drawnTest {
		t.Errorf("metrics.json: %v, %+v; want an accuracy of 0.97 or more after 1000 steps", err, m)
	}

	out = mnist(lines[1]...)
	first := address(t, out, "/v1/models/mnist")
	if got := get(t, first+modelPath); !strings.Contains(got, "AVAILABLE") {
		t.Errorf("GET %s answers %s", modelPath, got)
	}
	page := address(t, mnist(lines[2]...), "/")
	if got := get(t, page+"/"); !strings.Contains(got, "Draw a digit") {
		t.Errorf("GET / answers %s", got)
	}
	test := drawn(t, 3, 60)
	right := 0
	for i := range test.len() {
		if predict(t, page+"/api/predict", test.image(i)) == int(test.labels[i]) {
			right++
		}
	}
	if right < 55 {
		t.Errorf("the page's server knows %d of 60 digits; want 55 or more", right)
	}

	// The pipeline's own arguments, those for a cluster on premises too. The
	// new server takes the place of the old, and the page finds it.
	out = mnist("serve", "--model-export-path", "gs://your-bucket/export", "--server-name", "mnist-service",
		"--cluster-name", "mnist-pipeline", "--pvc-name", "")
	second := address(t, out, "/v1/models/mnist")
	if !strings.Contains(out, "stopped the old mnist-service") {
		t.Errorf("a second mnist serve prints\n%s", out)
	}
	if resp, err := http.Get(first + modelPath); err == nil {
		resp.Body.Close()
		if first != second {
			t.Error("the old server still answers")
		}
	}
	page = address(t, mnist("web-ui", "--image", "gcr.io/kubeflow-examples/mnist/web-ui:v1", "--name", "web-ui",
		"--container-port", "5000", "--service-port", "80", "--service-type", "LoadBalancer",
		"--cluster-name", "mnist-pipeline"), "/")
	predict(t, page+"/api/predict", test.image(0))

	list, err := readServices(home)
	if err != nil || len(list) != 2 {
		t.Fatalf("the registry holds %v, %v; want two services", list, err)
	}
	want := ""
	for _, name := range []string{"mnist-service", "web-ui"} {
		want += fmt.Sprintf("%s: %s (pid %d) answers; %s\n", name, list[name].URL, list[name].PID, list[name].Note)
	}
	if got := mnist("status"); got != want {
		t.Errorf("mnist status prints\n%swant\n%s", got, want)
	}

	if got := mnist(lines[3]...); strings.Count(got, "stopped ") != 2 {
		t.Errorf("mnist stop prints\n%s", got)
	}
	for name, s := range list {
		if s.runs() {
			t.Errorf("%s still runs after mnist stop", name)
		}
	}
	for _, command := range []string{"status", "stop"} {
		if got := mnist(command); got != "nothing runs\n" {
			t.Errorf("mnist %s prints %q after mnist stop", command, got)
		}
	}
}

// A server that cannot start is reported with the end of its log.
func TestDeployFault(t *testing.T) {
	home := t.TempDir()
	// The program is the test itself here, told to run none.
	_, err := deploy(t.Context(), io.Discard, home, "broken", 0, "", "-test.run=^$", "none")
	if err == nil || !strings.Contains(err.Error(), "ended before it answered: exit status 0") || !strings.Contains(err.Error(), "\n  PASS") {
		t.Errorf("deploy = %v; want that it ended, and its log", err)
	}
	if list, err := readServices(home); err != nil || len(list) != 0 {
		t.Errorf("the registry holds %v, %v after a fault", list, err)
	}
}

// address returns the URL in a command's last line, without the path.
func address(t *testing.T, out, path string) string {
	t.Helper()
	m := regexp.MustCompile(`(http://127\.0\.0\.1:\d+)` + path + ` \(pid \d+\)\n$`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("found no address in\n%s", out)
	}
	return m[1]
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s answers %s, %v", url, resp.Status, err)
	}
	return string(body)
}

// predict returns the likeliest digit for an image.
func predict(t *testing.T, url string, img []byte) int {
	t.Helper()
	var x [pixels]float32
	toFloats(&x, img)
	req, err := json.Marshal(map[string]any{"instances": []any{x}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(url, "application/json", bytes.NewReader(req))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Predictions [][]float64 }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || len(answer.Predictions) != 1 || len(answer.Predictions[0]) != 10 {
		t.Fatalf("predict answers %s, %v, %v", resp.Status, answer, err)
	}
	best, top := 0, math.Inf(-1)
	for k, p := range answer.Predictions[0] {
		if p > top {
			best, top = k, p
		}
	}
	return best
}
