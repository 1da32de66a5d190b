package kfs

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/kfs-project/kfs/graph"
)

// This file keeps the README and the pictures of the docs true.

// TestReadme runs the commands of the README's console blocks, in order, in a
// copy of the project and a home of its own, and compares what they print with
// what the README shows: but for times, names of runs and paths, and with any
// number of lines for a line of three dots.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	dir, home := t.TempDir(), t.TempDir()
	copyTree(t, dir)
	env := append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+filepath.Join(home, ".local/share"),
		"MNIST_HOME="+filepath.Join(home, "mnist"), "MNIST_DATA_DIR=", "GOFLAGS=-buildvcs=false")
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} { // HOME has moved
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(out)))
	}
	run := func(command string) string {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out)
	}
	t.Cleanup(func() { run("bin/mnist stop") })

	commands := consoleCommands(string(readme))
	for _, c := range commands {
		got := run(c.command)
		if c.want != "" && !shows(mask(c.want), mask(got)) {
			t.Errorf("$ %s\nprints\n%s\nREADME.md shows\n%s", c.command, got, c.want)
		}
		if c.command == "make mnist" {
			checkMNIST(t, got)
		}
	}
	if len(commands) < 5 {
		t.Errorf("README.md holds %d commands in console blocks; want them all", len(commands))
	}
}

// A consoleCommand is a command of a page's console block, and what the page
// shows that it prints.
type consoleCommand struct{ command, want string }

// consoleCommands returns the commands of a page's console blocks, in order.
func consoleCommands(page string) []consoleCommand {
	var out []consoleCommand
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(page, -1) {
		for _, part := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			command, want, _ := strings.Cut(part, "\n")
			out = append(out, consoleCommand{command, want})
		}
	}
	return out
}

// masked is what differs from run to run.
var masked = []struct {
	pattern *regexp.Regexp
	mask    string
}{
	{regexp.MustCompile(`\d\d:\d\d:\d\d`), "TIME"},
	{regexp.MustCompile(`\b\d+\.\d+s\b`), "TOOK"},
	{regexp.MustCompile(`hello-[a-z2-7]{5}\b`), "RUN"},
	{regexp.MustCompile(`state in \S*/`), "state in DIR/"},
	{regexp.MustCompile(`(?m) +$`), ""},
}

func mask(text string) string {
	for _, m := range masked {
		text = m.pattern.ReplaceAllString(text, m.mask)
	}
	return strings.TrimSpace(text)
}

// shows reports whether got is what want says, in which a line "..." stands
// for any number of lines. Standard output and error may stand in either
// order, so lines are looked for, not compared one by one, where dots are.
func shows(want, got string) bool {
	pattern := ""
	for _, line := range strings.Split(want, "\n") {
		if line == "..." {
			pattern += `(?:.*\n)*?`
		} else {
			pattern += regexp.QuoteMeta(line) + `\n`
		}
	}
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(got + "\n")
}

var (
	accuracy = regexp.MustCompile(`(\d+\.\d+) % of \d+ held-out images right`)
	address  = regexp.MustCompile(`(mnist-service|web-ui): (http://127\.0\.0\.1:\d+) .* answers`)
)

// checkMNIST checks what make mnist promises: the accuracy, and two servers
// that answer.
func checkMNIST(t *testing.T, out string) {
	t.Helper()
	percent := 0.0
	if m := accuracy.FindStringSubmatch(out); m != nil {
		percent, _ = strconv.ParseFloat(m[1], 64)
	}
	if percent < 95 {
		t.Errorf("make mnist: accuracy %v %%; want at least 95\n%s", percent, out)
	}
	addresses := map[string]string{}
	for _, m := range address.FindAllStringSubmatch(out, -1) {
		addresses[m[1]] = m[2]
	}
	if len(addresses) != 2 {
		t.Fatalf("make mnist prints %d addresses; want two\n%s", len(addresses), out)
	}
	image := `{"instances": [[` + strings.Repeat("0,", 783) + `0]]}`
	if got := post(t, addresses["mnist-service"]+"/v1/models/mnist:predict", image); strings.Count(got, ",") != 9 || !strings.Contains(got, "predictions") {
		t.Errorf("the server predicts %s; want ten probabilities", got)
	}
	if got := get(t, addresses["web-ui"]+"/"); !strings.Contains(got, "<canvas") {
		t.Errorf("the page has no canvas:\n%s", got)
	}
	if got := post(t, addresses["web-ui"]+"/api/predict", image); strings.Count(got, ",") != 9 {
		t.Errorf("the page predicts %s; want ten probabilities", got)
	}
}

// TestPictures keeps the pictures of the docs those that kfs graph draws.
func TestPictures(t *testing.T) {
	for _, name := range []string{"hello", "mnist", "conditions", "loops"} {
		d, err := graph.Layout(evaluate(t, "examples/"+name+".star", nil)[0])
		if err != nil {
			t.Fatal(err)
		}
		compareGolden(t, "docs/"+name+".svg", []byte(d.SVG()))
	}
}

// copyTree copies the project, without what builds and git leave in it.
func copyTree(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path == ".git" || path == "bin" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(dir, path), 0o777)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, path), data, 0o666)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	return body(t, resp, err)
}

func post(t *testing.T, url, text string) string {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(text))
	return body(t, resp, err)
}

func body(t *testing.T, resp *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", resp.Request.URL, resp.Status, err, text)
	}
	return string(text)
}
