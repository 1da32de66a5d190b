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
	const mark = "\n---- next command ----\n"
	var commands, wants []string
	script := ""
	for _, c := range consoleCommands(string(page)) {
		commands, wants = append(commands, c.command), append(wants, c.want)
		script += c.command + "\nprintf '" + strings.ReplaceAll(mark, "\n", `\n`) + "'\n"
	}
	down := exec.Command("make", "-s", "cluster-down")
	cmd := exec.Command("bash", "-c", "exec 2>&1\n"+script)
	for _, c := range []*exec.Cmd{cmd, down} {
		c.Env = append(os.Environ(), "KFS_CLUSTER=docs", "MAKEFLAGS=", "MAKELEVEL=")
	}
	t.Cleanup(func() {
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("make cluster-down: %v\n%s", err, out)
		}
	})
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	gots := strings.Split(string(out), mark)
	for i, command := range commands {
		if i >= len(gots)-1 {
			t.Fatalf("$ %s\nwas not reached; the end of what was printed:\n%s", command, gots[len(gots)-1])
		}
		if !shows(loosen(wants[i]), loosen(gots[i])) {
			t.Errorf("$ %s\nprints\n%s\ndocs/testing.md shows\n%s", command, gots[i], wants[i])
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
