package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// This file makes pods of processes: folders stand for the file systems of
// their containers.

// programEnv makes the test binary one of the two programs.
const programEnv = "KFS_TEST_PROGRAM"

func TestMain(m *testing.M) {
	var p podFolders
	if err := json.Unmarshal([]byte(os.Getenv("KFS_TEST_POD")), &p); err != nil && os.Getenv(programEnv) != "" {
		panic(err)
	}
	switch os.Getenv(programEnv) {
	case "launch":
		os.Unsetenv(programEnv) // the command may be this binary too
		os.Exit(Run(p.config(), os.Args[1], os.Args[2:]))
	case "serve":
		cfg := p.config()
		cfg.Open = func(context.Context, string) (Store, error) { return folderStore(os.Getenv("KFS_TEST_STORE")), nil }
		if err := Serve(context.Background(), cfg); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A folderStore keeps files in a folder. While there is one called hang in it,
// it never has done with one.
type folderStore string

func (s folderStore) Put(_ context.Context, key string, r io.ReaderAt, size int64) error {
	for {
		if _, err := os.Stat(filepath.Join(string(s), "hang")); err != nil {
			break
		}
		os.WriteFile(filepath.Join(string(s), "hangs"), nil, 0o666)
		time.Sleep(10 * time.Millisecond)
	}
	data, err := io.ReadAll(io.NewSectionReader(r, 0, size))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(string(s), strings.ReplaceAll(key, "/", "_")), data, 0o666)
}

func (s folderStore) Get(context.Context, string) (io.ReadCloser, error) {
	return nil, errors.ErrUnsupported
}

// A memStore keeps files in memory. Fail, if not nil, is asked before each call.
type memStore struct {
	fail func(verb, key string) error

	mu    sync.Mutex
	files map[string]string
}

func (s *memStore) call(verb, key string) error {
	if s.fail == nil {
		return nil
	}
	return s.fail(verb, key)
}

func (s *memStore) open(context.Context, string) (Store, error) { return s, s.call("open", "") }

func (s *memStore) Put(_ context.Context, key string, r io.ReaderAt, size int64) error {
	if err := s.call("put", key); err != nil {
		return err
	}
	data, err := io.ReadAll(io.NewSectionReader(r, 0, size))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		s.files = map[string]string{}
	}
	s.files[key] = string(data)
	return nil
}

func (s *memStore) Get(_ context.Context, key string) (io.ReadCloser, error) {
	if err := s.call("get", key); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.files[key]
	if !ok {
		return nil, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	return io.NopCloser(strings.NewReader(data)), nil
}

func (s *memStore) get(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[key]
}

type podFolders struct{ Root, Dir, Message, Launcher string }

func (p podFolders) config() Config {
	return Config{Root: p.Root, Dir: p.Dir, Message: p.Message, Launcher: p.Launcher, Patience: 2 * time.Second}
}

// A pod is a pod of one test.
type pod struct {
	podFolders
	t   *testing.T
	env []string // of the step
	log lockedBuffer
}

func newPod(t *testing.T) *pod {
	dir := t.TempDir()
	p := &pod{t: t, podFolders: podFolders{
		Root: filepath.Join(dir, "main"), Dir: filepath.Join(dir, "kfs"),
		Message: filepath.Join(dir, "message"), Launcher: filepath.Join(dir, "image-launch"),
	}}
	for _, d := range []string{p.Root, p.Dir} {
		if err := os.Mkdir(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	p.env = []string{"ROOT=" + p.Root, "KFS=" + p.Dir}
	p.write(p.Launcher, "the launcher")
	return p
}

func (p *pod) write(file, text string) {
	p.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		p.t.Fatal(err)
	}
}

// program returns the test binary as one of the programs.
func (p *pod) program(name string, args ...string) *exec.Cmd {
	folders, _ := json.Marshal(p.podFolders)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), append(p.env, programEnv+"="+name, "KFS_TEST_POD="+string(folders))...)
	return cmd
}

// launch returns kfs-launch, ready to run a shell script. The script knows the
// root of its files as $ROOT and the shared folder as $KFS.
func (p *pod) launch(s Spec, script string) *exec.Cmd {
	return p.program("launch", s.Encode(), "sh", "-c", script)
}

// result runs kfs-launch and returns what it tells and has written.
func (p *pod) result(cmd *exec.Cmd) (*Result, string) {
	p.t.Helper()
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.told(cmd.ProcessState.ExitCode()), out.String()
}

func (p *pod) told(code int) *Result {
	p.t.Helper()
	message, err := os.ReadFile(p.Message)
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := ParseFrame(string(message))
	if err != nil {
		p.t.Fatalf("exit code %d, message %q: %v", code, message, err)
	}
	if r.ExitCode != code {
		p.t.Errorf("exit code %d, and the result says %d", code, r.ExitCode)
	}
	return r
}

// io returns how kfs-io is set up.
func (p *pod) io(store *memStore, s IOSpec) Config {
	cfg := p.config()
	if store != nil {
		cfg.Open, s.Store = store.open, "a store"
	}
	cfg.Log = &p.log
	cfg.Getenv = func(name string) string {
		if name == EnvIOSpec {
			return s.Encode()
		}
		return ""
	}
	return cfg
}

// serve runs kfs-io until the test ends, or stop is called.
func (p *pod) serve(cfg Config) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, cfg) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("serve: %v", err)
		}
	})
	p.t.Cleanup(stop)
	return stop
}

// waitFor waits until a file exists.
func (p *pod) waitFor(file string) {
	p.t.Helper()
	for range 2000 {
		if _, err := os.Stat(file); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	p.t.Fatalf("%s does not exist after 10 s", file)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
