package launch

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestPassOn hands files of all kinds from one step to another, by way of the
// store.
func TestPassOn(t *testing.T) {
	t.Parallel()
	store := &memStore{}
	from := newPod(t)
	spec := Spec{Store: true}
	for _, name := range []string{"binary", "large", "empty", "tree", "run"} {
		spec.Outputs = append(spec.Outputs, Output{Name: name, Path: "/out/" + name, File: true, Keep: true})
	}
	spec.Outputs = append(spec.Outputs, Output{Name: "a text", Path: "/out/text", Keep: true})
	from.serve(from.io(store, IOSpec{Prefix: "runs/1"}))
	r, _ := from.result(from.launch(spec, `cd $ROOT/out; umask 077
printf 'a\0b\377\n' > binary
head -c 3000000 /dev/zero > large
: > empty
mkdir -p tree/sub; echo deep > tree/sub/file; ln -s sub/file tree/link
printf '#!/bin/sh\necho ran' > run; chmod +x run
echo words > text`))
	if r.Fault != "" || r.Rest != nil || len(r.Files) != 6 || r.Texts["a text"] != "words" || r.Texts["binary"] != "" {
		t.Fatalf("%+v", *r)
	}
	if got := store.get("runs/1/a%20text"); got != "words\n" {
		t.Errorf("the store has %q", got)
	}

	to := newPod(t)
	var inputs []Input
	for _, o := range spec.Outputs {
		place := Place{Key: Key("runs/1", o.Name), File: r.Files[o.Name]}
		inputs = append(inputs, Input{Name: o.Name, Path: "/in/" + o.Name, From: place.String()})
	}
	mounted := filepath.Join(t.TempDir(), "key")
	to.write(mounted, "from a ConfigMap")
	inputs = append(inputs, Input{Name: "mounted", Path: "/in/mounted", From: Place{Path: mounted, File: fileOf("from a ConfigMap")}.String()}, Input{Name: "t", Path: "/in/t", Text: "T"})
	if err := Prepare(t.Context(), to.io(store, IOSpec{Inputs: inputs})); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(to.Dir, "bin/kfs-launch")); err != nil || info.Mode() != 0o555 {
		t.Errorf("kfs-launch in the pod: %v, %v; want mode 0555", info, err)
	}
	r, out := to.result(to.launch(Spec{Inputs: inputs, Outputs: []Output{{Name: "saw", Path: "/saw"}}},
		`cd $ROOT/in; (od -An -c binary | tr -d ' '; wc -c < large; wc -c < empty; cat tree/link; ./run; echo; cat 'a text' mounted t) > $ROOT/saw
for f in *; do [ -d $f ] || echo more >> "$f"; done`))
	if want := "a\\0b377\\n\n3000000\n0\ndeep\nran\n\nwords\nfrom a ConfigMapT"; r.Texts["saw"] != want {
		t.Errorf("the other step saw %q (%+v, %q); want %q", r.Texts["saw"], *r, out, want)
	}
	if store.get("runs/1/binary") != "a\x00b\xff\n" {
		t.Error("what the other step changed was not a copy")
	}
}

// TestInLog has more than a frame has room for, without a store and with one.
func TestInLog(t *testing.T) {
	t.Parallel()
	for _, store := range []*memStore{nil, {}} {
		p := newPod(t)
		p.serve(p.io(store, IOSpec{Prefix: "p"}))
		spec := Spec{Store: store != nil, Outputs: []Output{
			{Name: "long", Path: "/long"},
			{Name: "file", Path: "/file", File: true, Keep: true},
			{Name: "unused", Path: "/unused", File: true},
			{Name: "unused too", Path: "/unused2", File: true},
		}}
		for i := range 300 { // more names than a frame has room for
			spec.Outputs = append(spec.Outputs, Output{Name: fmt.Sprintf("o%d", i), Path: fmt.Sprintf("/many/%d", i), File: true, Keep: i%2 == 0})
		}
		r, _ := p.result(p.launch(spec, `cd $ROOT
head -c 190000 /dev/urandom | od -An -v -tx1 | head -c 262144 > long
head -c 200000 /dev/urandom > file
cp long unused; cp long unused2; cp long $ROOT/unused3
for i in $(seq 0 299); do echo $i > many/$i; done`))
		if r.Fault != "" || r.Rest == nil || r.Texts != nil || r.Files != nil {
			t.Fatalf("%+v; want the outputs in the log", *r)
		}
		if err := ReadLog(strings.NewReader("starting\n"+p.log.String()), r); err != nil {
			t.Fatal(err)
		}
		long, _ := os.ReadFile(filepath.Join(p.Root, "long"))
		if len(long) != 262144 || r.Texts["long"] != strings.TrimSuffix(string(long), "\n") {
			t.Errorf("the text of long has %d bytes", len(r.Texts["long"]))
		}
		if r.Texts["o299"] != "299" || r.Texts["unused"] == "" || len(r.Files) != 151 {
			t.Errorf("%d texts, %d files", len(r.Texts), len(r.Files))
		}
		file, _ := os.ReadFile(filepath.Join(p.Root, "file"))
		if store == nil && !bytes.Equal(r.Files["file"].Data, file) {
			t.Error("the file is another one")
		} else if store != nil && (!r.Files["file"].Stored || store.get("p/file") != string(file) || store.get("p/o298") != "298\n") {
			t.Error("the file in the store is another one")
		}
	}
}

// TestTooMuchText leaves out what need not be there.
func TestTooMuchText(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	p.serve(p.io(nil, IOSpec{}))
	spec := Spec{Outputs: []Output{{Name: "need", Path: "/0"}}}
	for i := range 6 {
		spec.Outputs = append(spec.Outputs, Output{Name: fmt.Sprint(i), Path: fmt.Sprintf("/%d", i), File: true})
	}
	r, _ := p.result(p.launch(spec, `head -c 190000 /dev/urandom | od -An -v -tx1 | head -c 200000 > $ROOT/0; for i in 1 2 3 4 5; do cp $ROOT/0 $ROOT/$i; done`))
	if err := ReadLog(strings.NewReader(p.log.String()), r); err != nil || len(r.Texts) != 5 || r.Texts["need"] == "" {
		t.Errorf("%v, %d texts; want those for which 1 MiB has room", err, len(r.Texts))
	}
}

func TestUploadFails(t *testing.T) {
	t.Parallel()
	spec := Spec{Store: true, Outputs: []Output{{Name: "o", Path: "/o", File: true, Keep: true}}}
	denied := fmt.Errorf("write p/o in bucket \"b\": %w", fs.ErrPermission)
	for _, tt := range []struct {
		name string
		fail func(calls int32) error
		want string // "" is none
		most int32  // calls
	}{
		{"for a while", func(n int32) error {
			if n < 4 {
				return errors.New("connection reset")
			}
			return nil
		}, "", 4},
		{"for good", func(int32) error { return denied }, `output "o": write p/o in bucket "b": permission denied`, 1},
		{"for too long", func(int32) error { return errors.New("connection refused") }, `output "o": connection refused`, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			store := &memStore{fail: func(verb, _ string) error {
				if verb != "put" {
					return nil
				}
				return tt.fail(calls.Add(1))
			}}
			p := newPod(t)
			p.serve(p.io(store, IOSpec{Prefix: "p"}))
			r, _ := p.result(p.launch(spec, "echo x > $ROOT/o"))
			if tt.want == "" && r.Fault == "" && r.Files["o"].Stored && calls.Load() == tt.most {
				return
			}
			if tt.want == "" || r.Fault != Lost || r.ExitCode != ExitOutputs || r.Reason != tt.want || r.Files != nil || calls.Load() > tt.most {
				t.Errorf("%+v after %d calls; want %q after at most %d", *r, calls.Load(), tt.want, tt.most)
			}
		})
	}
}

func TestFetchFails(t *testing.T) {
	t.Parallel()
	place := func(key, data string) string { return Place{Key: key, File: fileOf(data)}.String() }
	for _, tt := range []struct {
		name   string
		store  *memStore
		inputs []Input
		want   string
	}{
		{"not there", &memStore{}, []Input{{Name: "i", Path: "/i", From: place("k", "x")}}, `file "i": k: file does not exist`},
		{"another content", &memStore{files: map[string]string{"k": "y"}}, []Input{{Name: "i", Path: "/i", From: place("k", "x")}},
			`file "i": k is not the file that was kept there: its size or checksum is another one`},
		{"longer", &memStore{files: map[string]string{"k": "xx"}}, []Input{{Name: "i", Path: "/i", From: place("k", "x")}}, "is not the file that was kept there"},
		{"longer than nothing", &memStore{files: map[string]string{"k": "xx"}}, []Input{{Name: "i", Path: "/i", From: place("k", "")}}, "is not the file that was kept there"},
		{"cut", &memStore{files: map[string]string{"k": "x"}}, []Input{{Name: "i", Path: "/i", From: place("k", "xy")}}, `file "i": k ends after 1 of 2 bytes`},
		{"no store", nil, []Input{{Name: "i", Path: "/i", From: place("k", "x")}}, `file "i": k is in an artifact store, and the run has none: name it with --artifacts`},
		{"no place", &memStore{}, []Input{{Name: "i", Path: "/i", From: "nonsense"}}, `file "i": place "nonsense"`},
		{"not mounted", nil, []Input{{Name: "i", Path: "/i", From: Place{Path: "/no/such", File: fileOf("")}.String()}}, `file "i": open /no/such: no such file`},
		{"a store that is not there", &memStore{fail: func(string, string) error { return fmt.Errorf("bucket %q: %w", "b", fs.ErrNotExist) }}, nil, `bucket "b": file does not exist`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			if err := Prepare(t.Context(), p.io(tt.store, IOSpec{Inputs: tt.inputs})); err != nil {
				t.Fatalf("the hook fails: %v", err)
			}
			r, _ := p.result(p.launch(Spec{Inputs: tt.inputs}, "echo > $ROOT/ran"))
			if r.Fault != NoInputs || r.ExitCode != ExitNoInputs || !strings.Contains(r.Reason, tt.want) {
				t.Errorf("%+v; want no inputs, %q", *r, tt.want)
			}
			if _, err := os.Stat(filepath.Join(p.Root, "ran")); err == nil {
				t.Error("the command ran")
			}
		})
	}
	p := newPod(t)
	cfg := p.io(nil, IOSpec{})
	cfg.Getenv = func(string) string { return "nonsense" }
	if err := Prepare(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if r, _ := p.result(p.launch(Spec{}, "true")); r.Fault != NoInputs {
		t.Errorf("a damaged spec of kfs-io: %+v", *r)
	}
	p = newPod(t)
	if r, _ := p.result(p.launch(Spec{Inputs: []Input{{Name: "i", Path: "/i", From: place("k", "x")}}}, "true")); r.Fault != NoInputs || !strings.Contains(r.Reason, "kfs-io has not fetched it") {
		t.Errorf("without the hook: %+v", *r)
	}
}

// TestPrepareAgain repeats the hook, as the kubelet does if kfs-io ends: before
// the step has begun it begins anew, later it does nothing.
func TestPrepareAgain(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	store := &memStore{files: map[string]string{"k": "x"}}
	cfg := p.io(store, IOSpec{Inputs: []Input{{Name: "i", Path: "/i", From: Place{Key: "k", File: fileOf("x")}.String()}}})
	in := filepath.Join(p.Dir, inFile(0))
	for _, name := range []string{"bin", "in"} { // what a hook that was killed has left
		if err := os.MkdirAll(filepath.Join(p.Dir, name, "0.tmp"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := Prepare(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(in); string(data) != "x" {
		t.Fatalf("%q, %v", data, err)
	}
	// The step has begun, and leads the way somewhere else.
	outside := t.TempDir()
	os.RemoveAll(filepath.Join(p.Dir, "in"))
	for _, name := range []string{"in", "bin", "beat", "ack", "out"} {
		os.RemoveAll(filepath.Join(p.Dir, name))
		if err := os.Symlink(outside, filepath.Join(p.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, marker := range []string{fetchedFile, startedFile} {
		p.write(filepath.Join(p.Dir, marker), "{}")
		if err := Prepare(t.Context(), cfg); err != nil {
			t.Error(err)
		}
		os.Remove(filepath.Join(p.Dir, marker))
	}
	if _, err := os.Lstat(filepath.Join(p.Dir, "in/0")); err == nil {
		t.Error("the hook did its work again")
	}
	// It even hides that it has.
	if err := Prepare(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("the hook wrote outside of the shared folder: %v", left)
	}
}

// TestHostile plants links to what only kfs-io may see, and asks it to bring
// that out.
func TestHostile(t *testing.T) {
	t.Parallel()
	const content = "the keys of the store"
	const uploads = `{"uploads":[{"name":"o","n":0,"size":21}]}` // as long as the secret
	for _, tt := range []struct{ name, script string }{
		{"a link", "rm -f $KFS/out/0; ln -s $SECRET $KFS/out/0"},
		{"a folder that is a link", "rm -rf $KFS/out; ln -s $(dirname $SECRET) $KFS/out; mv $SECRET $(dirname $SECRET)/0 2>&-; :"},
		{"a pipe", "rm -f $KFS/out/0; mkfifo $KFS/out/0"},
		{"a folder", "rm -f $KFS/out/0; mkdir $KFS/out/0"},
		{"another size", "echo more >> $KFS/out/0"},
		{"no file", "rm $KFS/out/0"},
		{"a manifest that is a link", "ln -sf $SECRET $KFS/manifest"},
		{"a manifest that is a pipe", "rm -f $KFS/manifest; mkfifo $KFS/manifest"},
		{"a manifest of nonsense", "echo nonsense > $KFS/manifest"},
		{"an output with a path as name", `echo '{"uploads":[{"name":"../../x","n":0,"size":21}]}' > $KFS/manifest; ln -sf $SECRET $KFS/out/0`},
		{"the rest, a link", `echo '{"print":true}' > $KFS/manifest; ln -sf $SECRET $KFS/out/rest`},
		{"the rest, too large", `echo '{"print":true}' > $KFS/manifest; head -c 3000000 /dev/zero > $KFS/out/rest`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			secret := filepath.Join(t.TempDir(), "token")
			p.write(secret, content)
			store := &memStore{}
			p.env = append(p.env, "SECRET="+secret)
			if err := os.Mkdir(filepath.Join(p.Dir, "out"), 0o777); err != nil {
				t.Fatal(err)
			}
			p.write(filepath.Join(p.Dir, "out/0"), strings.Repeat("x", len(content)))
			p.write(filepath.Join(p.Dir, "manifest.new"), uploads)
			// The step does it all while kfs-launch waits for it to end.
			p.serve(p.io(store, IOSpec{Prefix: "runs/1"}))
			r, out := p.result(p.launch(Spec{}, "mv $KFS/manifest.new $KFS/m; "+strings.ReplaceAll(tt.script, "$KFS/manifest", "$KFS/m")+"; mv $KFS/m $KFS/manifest; while [ ! -e $KFS/ack ]; do sleep 0.02; done"))
			if r.ExitCode != 0 {
				t.Fatalf("%+v, wrote %q", *r, out)
			}
			var ack word
			if err := readJSON(must(os.OpenRoot(p.Dir)), ackFile, &ack); err != nil || ack.Error == "" {
				t.Errorf("kfs-io said %+v, %v; want an error", ack, err)
			}
			store.mu.Lock()
			defer store.mu.Unlock()
			if len(store.files) > 0 {
				t.Errorf("the store has %q", store.files)
			}
			if strings.Contains(p.log.String(), content) || strings.Contains(p.log.String(), "kfs1:") {
				t.Errorf("the log has %q", p.log.String())
			}
		})
	}
}

// TestHostileTar fetches a tar that another step has made up.
func TestHostileTar(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "outside")
	for _, tt := range []struct {
		name    string
		headers []tar.Header
	}{
		{"a path", []tar.Header{{Name: "../../outside", Typeflag: tar.TypeReg, Size: 1}}},
		{"an absolute path", []tar.Header{{Name: outside, Typeflag: tar.TypeReg, Size: 1}}},
		{"a link", []tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}}},
		{"a link, and a file behind it", []tar.Header{{Name: "a/s", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l", Typeflag: tar.TypeSymlink, Linkname: "a/s/../.."}, {Name: "l/outside", Typeflag: tar.TypeReg, Size: 1}}},
		{"a hard link", []tar.Header{{Name: "l", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}}},
		{"a device", []tar.Header{{Name: "d", Typeflag: tar.TypeChar}}},
		{"a file twice", []tar.Header{{Name: "f", Typeflag: tar.TypeReg, Size: 1}, {Name: "f", Typeflag: tar.TypeReg, Size: 1}}},
	} {
		var data bytes.Buffer
		w := tar.NewWriter(&data)
		for _, h := range tt.headers {
			h.Mode = 0o777
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				w.Write([]byte("x"))
			}
		}
		w.Close()
		to := filepath.Join(t.TempDir(), "sub", "to")
		if err := readTree(to, &data); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
		for _, file := range []string{outside, filepath.Join(to, "../outside"), filepath.Join(to, "../../outside")} {
			if _, err := os.Lstat(file); err == nil {
				t.Errorf("%s: wrote %s", tt.name, file)
			}
		}
	}
}

// TestServeKilled kills kfs-io in the middle of an upload. The next one does it
// all again.
func TestServeKilled(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	store := t.TempDir()
	p.write(filepath.Join(store, "hang"), "")
	p.env = append(p.env, EnvIOSpec+"="+(&IOSpec{Store: "s", Prefix: "p"}).Encode(), "KFS_TEST_STORE="+store)
	serve := p.program("serve")
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	spec := Spec{Store: true, Outputs: []Output{{Name: "o", Path: "/o", File: true, Keep: true}, {Name: "long", Path: "/long"}}}
	cmd := p.launch(spec, "echo x > $ROOT/o; head -c 6000 /dev/urandom | od -An -v -tx1 > $ROOT/long")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.waitFor(filepath.Join(store, "hangs"))
	serve.Process.Kill()
	serve.Wait()
	if err := os.Remove(filepath.Join(store, "hang")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second one finds all done, and fills its own log
		serve = p.program("serve")
		var log lockedBuffer
		serve.Stdout = &log
		if err := serve.Start(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		r := p.told(cmd.ProcessState.ExitCode())
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			err := ReadLog(strings.NewReader(log.String()), r)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v, of %+v", err, *r)
			}
		}
		if r.Fault != "" || !r.Files["o"].Stored || len(r.Texts["long"]) < 12000 {
			t.Errorf("%+v", *r)
		}
		serve.Process.Kill()
		serve.Wait()
	}
	if data, err := os.ReadFile(filepath.Join(store, "p_o")); string(data) != "x\n" {
		t.Errorf("the store has %q, %v", data, err)
	}
}

// TestSilence has no kfs-io: after a while the outputs are given up.
func TestSilence(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	start := time.Now()
	r, _ := p.result(p.launch(Spec{Store: true, Silence: 500 * time.Millisecond, Outputs: []Output{{Name: "o", Path: "/o", Keep: true}}}, "echo x > $ROOT/o"))
	if r.Fault != Lost || r.ExitCode != ExitOutputs || !strings.HasPrefix(r.Reason, "kfs-io has shown no life for ") || time.Since(start) > 5*time.Second {
		t.Errorf("%+v after %v", *r, time.Since(start))
	}
}

// TestSlowUpload takes longer than kfs-io may be silent, and is told to end
// meanwhile, as kfs-launch is.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	began := make(chan bool)
	store := &memStore{fail: func(verb, _ string) error {
		if verb == "put" {
			began <- true
			time.Sleep(4 * time.Second)
		}
		return nil
	}}
	stop := p.serve(p.io(store, IOSpec{Prefix: "p"}))
	cmd := p.launch(Spec{Store: true, Silence: 2 * time.Second, Outputs: []Output{{Name: "o", Path: "/o", Keep: true}}}, "echo x > $ROOT/o")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-began
	cmd.Process.Signal(syscall.SIGTERM)
	stop() // returns when the upload is done
	if store.get("p/o") != "x\n" {
		t.Error("kfs-io ended before it had uploaded what it was to")
	}
	cmd.Wait()
	if r := p.told(cmd.ProcessState.ExitCode()); r.Fault != "" || r.Signal != 0 || !r.Files["o"].Stored {
		t.Errorf("%+v; want no fault, and no signal: the command had ended", *r)
	}
}

// TestServeIdle ends kfs-io while there is nothing to do.
func TestServeIdle(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	stop := p.serve(p.io(nil, IOSpec{}))
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	if stop(); time.Since(start) > 400*time.Millisecond {
		t.Errorf("it took %v", time.Since(start))
	}
	if left, err := os.ReadDir(p.Dir); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// TestSpecFile reads the spec of kfs-io from a file.
func TestSpecFile(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	file := filepath.Join(t.TempDir(), "spec")
	place := Place{Key: "k", File: fileOf("x")}
	p.write(file, (&IOSpec{Store: "s", Inputs: []Input{{Name: "i", From: place.String()}}}).Encode())
	store := &memStore{files: map[string]string{"k": "x"}}
	cfg := p.io(store, IOSpec{})
	cfg.Getenv = func(name string) string { return map[string]string{EnvIOSpecFile: file}[name] }
	if err := Prepare(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(p.Dir, "in/0")); err != nil || sha256.Sum256(data) != sha256.Sum256([]byte("x")) {
		t.Errorf("%q, %v", data, err)
	}
	os.Remove(file)
	p = newPod(t)
	if cfg.Dir = p.Dir; Prepare(t.Context(), cfg) != nil {
		t.Error("the hook fails if there is no spec")
	}
}
