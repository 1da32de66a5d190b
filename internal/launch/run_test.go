package launch

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		script string
		code   int
	}{
		{"exit 0", 0},
		{"exit 3", 3},
		{"exit 255", 255},
		{"kill -9 $$", 137},
		{"/no/such/command", 127},
	} {
		// A step that fails leaves no outputs, whatever it has written.
		p := newPod(t)
		r, _ := p.result(p.launch(Spec{Outputs: []Output{{Name: "o", Path: "/o"}}}, "echo x > $ROOT/o; "+tt.script))
		want := Result{ExitCode: tt.code}
		if tt.code == 0 {
			want.Texts = map[string]string{"o": "x"}
		}
		if r.ExitCode != tt.code || r.Fault != "" || r.Signal != 0 || !maps.Equal(r.Texts, want.Texts) {
			t.Errorf("%s: %+v; want %+v", tt.script, *r, want)
		}
	}
}

func TestStreamsAndFolder(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	cmd := p.launch(Spec{}, `cat; echo err >&2; pwd; echo "$0"`)
	cmd.Stdin, cmd.Dir = strings.NewReader("in\n"), p.Root
	if r, out := p.result(cmd); r.ExitCode != 0 || out != "in\nerr\n"+p.Root+"\nsh\n" {
		t.Errorf("%+v, wrote %q", r, out)
	}
}

func TestCannotRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, tt := range []struct {
		argv   []string
		code   int
		reason string
	}{
		{[]string{"/no/such/program"}, 127, `program "/no/such/program" does not exist`},
		{[]string{"no-such-program"}, 127, `program "no-such-program" is not in PATH`},
		{[]string{dir}, 126, "is a folder"},
		{[]string{file("plain", "x", 0o644)}, 126, "is not executable: chmod +x it"},
		{[]string{file("text", "x", 0o755)}, 126, "is neither a program of this machine nor a script with #!"},
		{[]string{file("script", "#!/no/such/interpreter\n", 0o755)}, 127, "or the interpreter that its #! names, does not exist"},
		{[]string{""}, 126, "the program is an empty text"},
		{nil, 126, "no command"},
	} {
		p := newPod(t)
		p.env = append(p.env, "PATH=/usr/bin:/bin") // nothing in it that the user may not see
		r, out := p.result(p.program("launch", append([]string{(&Spec{}).Encode()}, tt.argv...)...))
		if r.Fault != CannotRun || r.ExitCode != tt.code || !strings.Contains(r.Reason, tt.reason) || !strings.Contains(out, tt.reason) {
			t.Errorf("%q: %+v, wrote %q; want cannot run, %d, %q", tt.argv, *r, out, tt.code, tt.reason)
		}
	}
	p := newPod(t)
	if r, _ := p.result(p.program("launch", "no spec", "true")); r.Fault != CannotRun {
		t.Errorf("a damaged spec: %+v", *r)
	}
	os.Remove(p.Dir)
	if r, _ := p.result(p.launch(Spec{}, "true")); r.Fault != CannotRun {
		t.Errorf("no shared folder: %+v", *r)
	}
}

// TestAgain starts a command a second time, as a kubelet may after its machine
// has crashed.
func TestAgain(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	script := "echo ran >> $ROOT/times"
	if r, _ := p.result(p.launch(Spec{}, script)); r.ExitCode != 0 {
		t.Fatalf("%+v", *r)
	}
	r, _ := p.result(p.launch(Spec{}, script))
	if r.Fault != Again || r.ExitCode != ExitAgain || r.Reason == "" {
		t.Errorf("%+v; want again", *r)
	}
	if times, _ := os.ReadFile(filepath.Join(p.Root, "times")); string(times) != "ran\n" {
		t.Errorf("it ran: %q", times)
	}
}

func TestBadOutputs(t *testing.T) {
	t.Parallel()
	const path = "/tmp/sub/out"
	for _, tt := range []struct{ name, script, want string }{
		{"missing", "true", `output "out" was not written: the step must leave a file at /tmp/sub/out`},
		{"oversize", "head -c 11 /dev/zero | tr '\\0' x > $O", `output "out" at /tmp/sub/out is larger than 10 bytes`},
		{"not UTF-8", `printf 'a\377b' > $O`, "is not text"},
		{"zero byte", `printf 'a\000b' > $O`, "is not text"},
		{"folder", "mkdir $O", "is a folder"},
		{"link", "ln -s /etc/passwd $O", "is a symbolic link"},
		{"link to a file of its own", "echo x > $O.x; ln -s $O.x $O", "is a symbolic link"},
		{"pipe", "mkfifo $O", "is a named pipe"},
		{"no folder", "rmdir $ROOT/tmp/sub; echo x > $ROOT/tmp/sub", "not a directory"},
		{"not readable", "echo x > $O; chmod 0 $O", "permission denied"},
	} {
		if tt.name == "not readable" && os.Getuid() == 0 {
			continue
		}
		for _, o := range []Output{{Name: "out", Path: path}, {Name: "out", Path: path, File: true, Keep: true}} {
			p := newPod(t)
			r, _ := p.result(p.launch(Spec{MaxText: 10, Outputs: []Output{o}}, "O=$ROOT"+path+"; "+tt.script))
			if any := strings.Contains("oversize not UTF-8 zero byte folder", tt.name); o.File && any {
				if f := r.Files["out"]; r.Fault != "" || r.Texts != nil || f.SHA256 == nil || f.Tar != (tt.name == "folder") {
					t.Errorf("%s, as a file: %+v", tt.name, *r)
				}
				continue
			}
			if r.Fault != BadOutput || r.ExitCode != ExitOutputs || !strings.Contains(r.Reason, tt.want) || r.Texts != nil || r.Files != nil {
				t.Errorf("%s: %+v; want bad output, %q", tt.name, *r, tt.want)
			}
		}
	}
}

// TestLinkedFolder has an output below an absolute link of the image.
func TestLinkedFolder(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(p.Root, "var")); err != nil {
		t.Fatal(err)
	}
	r, _ := p.result(p.launch(Spec{Outputs: []Output{{Name: "o", Path: "/var/run/o/"}}}, "echo x > $ROOT/var/run/o"))
	if r.Texts["o"] != "x" {
		t.Errorf("%+v", *r)
	}
}

func TestFolderOfOutput(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	p.write(filepath.Join(p.Root, "file"), "")
	r, _ := p.result(p.launch(Spec{Outputs: []Output{{Name: "o", Path: "/file/o"}}}, "rm $ROOT/file"))
	if want := "was not written: the step must leave a file at /file/o, whose folder could not be made: "; !strings.Contains(r.Reason, want) {
		t.Errorf("%q; want %q", r.Reason, want)
	}
}

// TestSmall has outputs for which a frame has room: kfs-io is not needed.
func TestSmall(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	r, _ := p.result(p.launch(Spec{Outputs: []Output{
		{Name: "text", Path: "/d/text"},
		{Name: "file", Path: "/d/file", File: true, Keep: true},
		{Name: "tree", Path: "/d/tree", File: true, Keep: true},
		{Name: "unused", Path: "/d/unused", File: true},
		{Name: "both", Path: "/d/both", Keep: true},
	}}, `cd $ROOT/d
printf 'line\n\n' > text
printf '#!/bin/sh\n\0' > file; chmod +x file
mkdir -p tree/sub; echo deep > tree/sub/file
echo u > unused
echo b > both`))
	if want := map[string]string{"text": "line\n", "unused": "u", "both": "b"}; !maps.Equal(r.Texts, want) {
		t.Errorf("texts %q; want %q", r.Texts, want)
	}
	if f := r.Files["file"]; string(f.Data) != "#!/bin/sh\n\x00" || !f.Exec || f.Tar || f.Stored {
		t.Errorf("file %+v", f)
	}
	if f := r.Files["tree"]; !f.Tar || f.Exec || f.Size == 0 {
		t.Errorf("tree %+v", f)
	}
	if f := r.Files["both"]; string(f.Data) != "b\n" {
		t.Errorf("both %+v", f)
	}
	if r.Fault != "" || r.Rest != nil || len(r.Files) != 3 {
		t.Errorf("%+v", *r)
	}
	if exists(must(os.OpenRoot(p.Dir)), manifestFile) {
		t.Error("kfs-io was asked for something")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestLimits(t *testing.T) {
	t.Parallel()
	keep := func(name string) Output { return Output{Name: name, Path: "/" + name, File: true, Keep: true} }
	var many []Output
	for i := range 6 {
		many = append(many, Output{Name: fmt.Sprintf("o%d", i), Path: fmt.Sprintf("/o%d", i)})
	}
	for _, tt := range []struct {
		name, script, want string
		spec               Spec
	}{
		{"a file without a store", "head -c 262145 /dev/zero > $ROOT/f",
			`output "f" has 262145 bytes: without an artifact store a file of at most 256 KiB can be passed on; name one with --artifacts`,
			Spec{Outputs: []Output{keep("f")}}},
		{"a folder without a store", "mkdir $ROOT/f; head -c 300000 /dev/zero > $ROOT/f/x",
			`output "f" is a folder of more than 262144 bytes: without an artifact store`, Spec{Outputs: []Output{keep("f")}}},
		{"a file that grows", `yes > $ROOT/f & sleep 0.1; kill -STOP $!`, `without an artifact store`, Spec{Outputs: []Output{keep("f")}}},
		{"many texts", "for i in 0 1 2 3 4 5; do head -c 200000 /dev/zero | tr '\\0' x > $ROOT/o$i; done",
			`output "o5" has 200000 bytes, and all outputs of the step 1200000: at most 1048576 can be passed on as values; pass them on as files, and name an artifact store with --artifacts`,
			Spec{Outputs: many}},
	} {
		p := newPod(t)
		r, _ := p.result(p.launch(tt.spec, tt.script))
		if r.Fault != BadOutput || r.ExitCode != ExitOutputs || !strings.Contains(r.Reason, tt.want) {
			t.Errorf("%s: %+v; want bad output, %q", tt.name, *r, tt.want)
		}
	}
}

func TestTrees(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, script, want string }{
		{"link out", "ln -s ../../etc out", "holds the link out, which leads out of it: ../../etc"},
		{"absolute link", "ln -s /etc/passwd out", "holds the link out, which leads out of it: /etc/passwd"},
		{"absolute link to the inside", "echo x > x; ln -s $ROOT/t/x out", "holds the link out, which leads out of it: "},
		{"link that leads out by another", "mkdir -p a/b; ln -s ../.. a/b/top; ln -s a/b/top/../main out; ls out >&2", "holds the link out, which leads out of it: "},
		{"pipe", "mkdir sub; mkfifo sub/p", "holds sub/p, which is a named pipe"},
		{"fine", `mkdir -p sub/empty; echo a > sub/a; ln -s a sub/link; ln -s sub dir; ln -s nowhere dangling; ln -s ../sub/a sub/far
printf '#!/bin/sh\necho ran' > run; chmod +x run; : > 'odd name
'`, ""},
	} {
		p := newPod(t)
		tree := Output{Name: "tree", Path: "/t", File: true, Keep: true}
		r, _ := p.result(p.launch(Spec{Outputs: []Output{tree}}, "mkdir $ROOT/t && cd $ROOT/t && "+tt.script))
		if tt.want != "" {
			if r.Fault != BadOutput || !strings.Contains(r.Reason, `output "tree" at /t `+tt.want) {
				t.Errorf("%s: %+v; want bad output, %q", tt.name, *r, tt.want)
			}
			continue
		}
		f := r.Files["tree"]
		to := filepath.Join(p.Root, "copy")
		if err := readTree(to, bytes.NewReader(f.Data)); err != nil {
			t.Fatalf("%v, of %+v", err, *r)
		}
		got := must(exec.Command("sh", "-c", `cd "$0"; find . -print0 | sort -z | tr '\0' ' '; cat sub/link dir/far; ./run; readlink dangling`, to).Output())
		want := ". ./dangling ./dir ./odd name\n ./run ./sub ./sub/a ./sub/empty ./sub/far ./sub/link a\na\nran\nnowhere\n"
		if string(got) != want {
			t.Errorf("the copy holds %q; want %q", got, want)
		}
		again := newPod(t)
		r, _ = again.result(again.launch(Spec{Outputs: []Output{tree}}, "mkdir $ROOT/t && cd $ROOT/t && "+tt.script))
		if !bytes.Equal(r.Files["tree"].SHA256, f.SHA256) {
			t.Error("an equal folder made another tar")
		}
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, script string
		send         []syscall.Signal
		want         Result
	}{
		{"by default", "echo > $ROOT/ready; sleep 60 & wait", []syscall.Signal{syscall.SIGTERM}, Result{ExitCode: 143, Signal: 15}},
		{"handled", "trap 'exit 7' TERM; echo > $ROOT/ready; while :; do sleep 0.1; done", []syscall.Signal{syscall.SIGTERM}, Result{ExitCode: 7, Signal: 15}},
		{"handled well", "trap 'echo saved > $ROOT/o; exit 0' INT; echo > $ROOT/ready; while :; do sleep 0.1; done", []syscall.Signal{syscall.SIGINT},
			Result{Signal: 2, Texts: map[string]string{"o": "saved"}}},
		{"the first counts", "trap '' HUP; trap 'exit 3' QUIT; echo > $ROOT/ready; while :; do sleep 0.1; done", []syscall.Signal{syscall.SIGHUP, syscall.SIGQUIT}, Result{ExitCode: 3, Signal: 1}},
		{"harmless", "trap 'exit 3' WINCH; echo > $ROOT/ready; while :; do sleep 0.1; done", []syscall.Signal{syscall.SIGWINCH}, Result{ExitCode: 3}},
		{"real-time", "trap 'exit 3' RTMIN+3; echo > $ROOT/ready; while :; do sleep 0.1; done", []syscall.Signal{37}, Result{ExitCode: 3, Signal: 37}},
		{"to what the shell waits for", "sh -c 'trap \"echo saved > $ROOT/child; exit 0\" TERM; echo > $ROOT/ready; while :; do sleep 0.1; done'; sleep 60 & wait", []syscall.Signal{syscall.SIGTERM}, Result{ExitCode: 143, Signal: 15}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			cmd := p.launch(Spec{Outputs: []Output{{Name: "o", Path: "/o"}}}, tt.script)
			if tt.name == "real-time" {
				if _, err := exec.LookPath("bash"); err != nil {
					t.Skip("no bash: other shells know no real-time signals")
				}
				cmd = p.program("launch", (&Spec{}).Encode(), "bash", "-c", tt.script)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			p.waitFor(filepath.Join(p.Root, "ready"))
			for _, s := range tt.send {
				cmd.Process.Signal(s)
				time.Sleep(200 * time.Millisecond)
			}
			cmd.Wait()
			if r := p.told(cmd.ProcessState.ExitCode()); r.ExitCode != tt.want.ExitCode || r.Signal != tt.want.Signal || r.Fault != "" || !maps.Equal(r.Texts, tt.want.Texts) {
				t.Errorf("%+v; want %+v", *r, tt.want)
			}
		})
	}
}

// TestStopped sends a signal while files are put in their places.
func TestStopped(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	var s Spec
	for range 20_000 { // as one file, again and again
		s.Inputs = append(s.Inputs, Input{Name: "i", Path: "/i", Text: "x"})
	}
	cmd := p.launch(s, "echo > $ROOT/ran")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.waitFor(filepath.Join(p.Root, "i"))
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if r := p.told(cmd.ProcessState.ExitCode()); r.Fault != Stopped || r.ExitCode != 143 || r.Signal != 15 {
		t.Errorf("%+v; want stopped, 143", *r)
	}
	if _, err := os.Stat(filepath.Join(p.Root, "ran")); err == nil {
		t.Error("the command ran")
	}
}

// TestBadInputPath has an input where no file can be.
func TestBadInputPath(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	p.write(filepath.Join(p.Root, "file"), "")
	r, _ := p.result(p.launch(Spec{Inputs: []Input{{Name: "i", Path: "/file/x", Text: "x"}}}, "true"))
	if r.Fault != NoInputs || r.ExitCode != ExitNoInputs || !strings.HasPrefix(r.Reason, `file "i": `) {
		t.Errorf("%+v; want no inputs", *r)
	}
}

// TestLeftovers shows that nothing of a command lives on while its outputs are
// read.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	r, _ := p.result(p.launch(Spec{Outputs: []Output{{Name: "pid", Path: "/pid"}}}, "sleep 300 & echo $! > $ROOT/pid"))
	pid, err := strconv.Atoi(r.Texts["pid"])
	if err != nil {
		t.Fatalf("%+v", *r)
	}
	for range 200 {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d, which the command left running, lives on", pid)
	syscall.Kill(pid, syscall.SIGKILL)
}

func TestInputTexts(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	p.write(filepath.Join(p.Root, "there"), "what the image has, which is longer")
	if err := os.Chmod(filepath.Join(p.Root, "there"), 0o444); err != nil {
		t.Fatal(err)
	}
	r, _ := p.result(p.launch(Spec{
		Inputs:  []Input{{Name: "a", Path: "/in/a", Text: "$(A)\n"}, {Name: "b", Path: "/there", Text: "new"}, {Name: "c", Path: "/in/deep/c"}},
		Outputs: []Output{{Name: "o", Path: "/o"}},
	}, "cd $ROOT; cat in/a there in/deep/c > o; echo more >> in/a"))
	if r.Texts["o"] != "$(A)\nnew" {
		t.Errorf("%+v", *r)
	}
}

// TestNoSpace has a shared folder that is too small.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	for _, store := range []bool{true, false} {
		p := newPod(t)
		mountSmall(t, p.Dir)
		r, _ := p.result(p.launch(Spec{Store: store, Outputs: []Output{{Name: "o", Path: "/o", File: true, Keep: true}}}, "head -c 250000 /dev/urandom > $ROOT/o"))
		if r.Fault != Lost || r.ExitCode != ExitOutputs || !strings.Contains(r.Reason, "no space left") {
			t.Errorf("%+v; want lost, no space left", *r)
		}
	}
}
