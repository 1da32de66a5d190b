//go:build e2e

package kfs

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestE2ETestingDoc runs the commands of docs/testing.md, in one shell, with a
// cluster of its own, and compares what they print with what the page shows.
func TestE2ETestingDoc(t *testing.T) {
	page, err := os.ReadFile("docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := consoleCommands(string(page))
	const mark = "---- status "
	script := "exec 2>&1\n"
	for _, c := range commands {
		script += c.command + "\nprintf '\\n" + mark + "%d\\n' $?\n"
	}
	shell := func(script string) (string, error) {
		cmd := exec.Command("bash", "-c", script)
		cmd.Env = append(os.Environ(), "KFS_CLUSTER=docs", "MAKEFLAGS=", "MAKELEVEL=")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	down := func() {
		if out, err := shell("make -s cluster-down"); err != nil {
			t.Errorf("make cluster-down: %v\n%s", err, out)
		}
	}
	down() // what an interrupted test left
	t.Cleanup(down)
	out, err := shell(script)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	parts := regexp.MustCompile(`\n`+mark+`(\d+)\n`).FindAllStringSubmatchIndex(out, -1)
	from := 0
	for i, c := range commands {
		if i >= len(parts) {
			t.Fatalf("$ %s\nwas not reached; the end of what was printed:\n%s", c.command, out[from:])
		}
		got, status := out[from:parts[i][0]], out[parts[i][2]:parts[i][3]]
		from = parts[i][1]
		if fails := strings.HasPrefix(c.want, "Error "); fails != (status != "0") || !shows(loosen(c.want), loosen(got)) {
			t.Errorf("$ %s\nprints, with status %s,\n%s\ndocs/testing.md shows\n%s", c.command, status, got, c.want)
		}
	}
	if len(commands) < 10 {
		t.Errorf("docs/testing.md holds %d commands in console blocks; want them all", len(commands))
	}
}

// loosen makes the columns of tables, and how old things are, alike.
func loosen(text string) string {
	text = regexp.MustCompile(`<none> +(\S+) +v`).ReplaceAllString(mask(text), "<none> AGE v")
	text = regexp.MustCompile(`(?m)^(etcd|Error from server \(Forbidden\):) .*`).ReplaceAllString(text, "$1 ...")
	return regexp.MustCompile(` +`).ReplaceAllString(text, " ")
}
