package k8s

import (
	"crypto/sha256"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/launch"
	"github.com/kfs-project/kfs/internal/yaml"
)

// tree returns an object of names and values, in turn.
func tree(members ...any) dag.Object {
	var o dag.Object
	for i := 0; i < len(members); i += 2 {
		o.Set(members[i+1], members[i].(string))
	}
	return o
}

// stepAttempt is a plain attempt of the step "s".
func stepAttempt() *engine.Attempt {
	return &engine.Attempt{ID: "s-a1", RunID: "run-id", RunName: "run", Step: "s", Number: 1,
		Container: tree("image", "i:1", "command", []any{"work"}, "args", []any{"--x"})}
}

// makeTree makes the pod of an attempt, and the YAML of it.
func makeTree(t *testing.T, p *dag.Pipeline, opts Options, a *engine.Attempt, entry *entrypoint) (dag.Object, string) {
	t.Helper()
	pod, err := newPodMaker(engine.RunInfo{ID: "run-id", Name: "run"}, p, opts).pod(a, entry)
	if err != nil {
		t.Fatal(err)
	}
	return pod, string(yaml.Append(nil, pod))
}

// typedPod returns a tree as the pod that is sent.
func typedPod(t *testing.T, o dag.Object) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := typed(o, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// TestPodPlain shows the whole pod of a step that asks for nothing.
func TestPodPlain(t *testing.T) {
	_, got := makeTree(t, &dag.Pipeline{}, Options{}, stepAttempt(), nil)
	const want = `apiVersion: v1
kind: Pod
metadata:
  name: s-a1
  labels:
    app.kubernetes.io/managed-by: kfs
    kfs.dev/run: run
    kfs.dev/step: s
    kfs.dev/attempt: s-a1
    sidecar.istio.io/inject: 'false'
  annotations:
    kfs.dev/run-id: run-id
    kfs.dev/step-path: s
    kfs.dev/spec: HASH
  finalizers:
  - kfs.dev/outcome
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  containers:
  - name: main
    image: i:1
    command:
    - work
    args:
    - --x
    terminationMessagePolicy: FallbackToLogsOnError
`
	lines := strings.Split(got, "\n")
	for i, line := range lines {
		if head, _, ok := strings.Cut(line, "kfs.dev/spec: "); ok {
			lines[i] = head + "kfs.dev/spec: HASH"
		}
	}
	normal := func(text string) string { return strings.NewReplacer(`"`, `'`).Replace(text) }
	if got := normal(strings.Join(lines, "\n")); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestPodSettings shows what a step, its pipeline and the options set.
func TestPodSettings(t *testing.T) {
	conf := &dag.Conf{ServiceAccount: "of-pipeline", NodeSelector: tree("pool", "all"), ImagePullSecrets: []dag.Object{tree("name", "login")}, DNSConfig: tree("nameservers", []any{"1.1.1.1"})}
	a := stepAttempt()
	a.Timeout, a.PendingTimeout = 90*time.Second, 1500*time.Millisecond
	a.Volumes = []dag.Object{tree("name", "v", "emptyDir", dag.Object{})}
	a.Container.Set([]any{tree("name", "v", "mountPath", "/v")}, "volumeMounts")
	a.Pod = dag.Pod{
		Tolerations: []dag.Object{tree("operator", "Exists")}, Affinity: tree("nodeAffinity", dag.Object{}),
		Labels: tree("team", "ml", runLabel, "forged", "sidecar.istio.io/inject", "true"), Annotations: tree("note", "x", runIDAnnotation, "forged"),
		InitContainers: []dag.Object{tree("name", "load", "image", "i:2", "mirrorVolumeMounts", true, "volumeMounts", []any{tree("name", "own", "mountPath", "/own")})},
		Sidecars:       []dag.Object{tree("name", "db", "image", "i:3", "mirrorVolumeMounts", false), tree("name", "cache", "image", "i:4", "restartPolicy", "Never")},
	}
	o, _ := makeTree(t, &dag.Pipeline{Conf: conf}, Options{ServiceAccount: "of-options", Images: map[string]string{"i:2": "mirror/i:2", "i": "other:1"}}, a, nil)
	pod := typedPod(t, o)
	s := pod.Spec
	if s.ServiceAccountName != "of-pipeline" || s.AutomountServiceAccountToken == nil || !*s.AutomountServiceAccountToken {
		t.Errorf("service account %q; want that of the pipeline, and its token", s.ServiceAccountName)
	}
	if s.NodeSelector["pool"] != "all" || s.ImagePullSecrets[0].Name != "login" || s.DNSConfig.Nameservers[0] != "1.1.1.1" || len(s.Tolerations) != 1 || s.Affinity == nil {
		t.Errorf("settings of the pipeline are missing: %+v", s)
	}
	if d := s.ActiveDeadlineSeconds; d == nil || *d != 92 {
		t.Errorf("active deadline %v; want 90 s and the 1.5 s that it may wait, rounded up", d)
	}
	if pod.Labels[runLabel] != "run" || pod.Annotations[runIDAnnotation] != "run-id" || pod.Labels["team"] != "ml" || pod.Labels[meshLabel] != "true" {
		t.Errorf("labels %v, annotations %v; want kfs's own, and the mesh as the author has it", pod.Labels, pod.Annotations)
	}
	var names []string
	for _, c := range s.InitContainers {
		names = append(names, c.Name)
	}
	if want := []string{"load", "db", "cache"}; !slices.Equal(names, want) {
		t.Fatalf("init containers %q; want %q", names, want)
	}
	load, db := s.InitContainers[0], s.InitContainers[1]
	if load.Image != "mirror/i:2" || len(load.VolumeMounts) != 2 || load.VolumeMounts[1].MountPath != "/v" || load.RestartPolicy != nil {
		t.Errorf("init container %+v; want another image, and the mounts of the step too", load)
	}
	if db.RestartPolicy == nil || *db.RestartPolicy != corev1.ContainerRestartPolicyAlways || db.VolumeMounts != nil || db.Image != "other:1" {
		t.Errorf("sidecar %+v; want one that is restarted, without mounts, of the image that stands in for all of i", db)
	}
	a.Pod.ServiceAccount, a.Pod.NodeSelector, a.Pod.Mesh, a.Pod.Labels = "own", tree("pool", "gpu"), true, nil
	o, _ = makeTree(t, &dag.Pipeline{Conf: conf}, Options{}, a, nil)
	if pod := typedPod(t, o); pod.Spec.ServiceAccountName != "own" || pod.Spec.NodeSelector["pool"] != "gpu" || pod.Labels[meshLabel] != "" {
		t.Errorf("service account %q, selector %v, labels %v; want the step's own, and no word on the mesh", pod.Spec.ServiceAccountName, pod.Spec.NodeSelector, pod.Labels)
	}
	a.Timeout = math.MaxInt64
	o, _ = makeTree(t, &dag.Pipeline{}, Options{}, a, nil)
	if d := typedPod(t, o).Spec.ActiveDeadlineSeconds; d == nil || *d != math.MaxInt32 {
		t.Errorf("active deadline %v; want the longest that there is", d)
	}
}

// TestPodHash shows what an attempt's pod is known by: equal attempts have equal
// pods, and others have not.
func TestPodHash(t *testing.T) {
	hash := func(change func(*engine.Attempt)) string {
		a := stepAttempt()
		change(a)
		o, _ := makeTree(t, &dag.Pipeline{}, Options{}, a, nil)
		return o.Get("metadata", "annotations", specAnnotation).(string)
	}
	same := hash(func(*engine.Attempt) {})
	if hash(func(*engine.Attempt) {}) != same {
		t.Error("equal attempts have pods with two hashes")
	}
	for name, change := range map[string]func(*engine.Attempt){
		"argument": func(a *engine.Attempt) { a.Container.Append("args", "y") },
		"step":     func(a *engine.Attempt) { a.Step = "t" },
		"label":    func(a *engine.Attempt) { a.Pod.Labels = tree("x", "y") },
		"timeout":  func(a *engine.Attempt) { a.Timeout = time.Second },
	} {
		if hash(change) == same {
			t.Errorf("another %s, and the same hash", name)
		}
	}
}

// TestPodJob shows a step that runs as a Job: it starts one pod, once, which has
// the finalizer and the marks of the attempt.
func TestPodJob(t *testing.T) {
	a := stepAttempt()
	a.Primitive, a.Timeout = "job", time.Minute
	m := newPodMaker(engine.RunInfo{ID: "run-id", Name: "run"}, &dag.Pipeline{}, Options{})
	m.owner = tree("apiVersion", "v1", "kind", "ConfigMap", "name", "kfs-run", "uid", "u")
	o, err := m.pod(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	job := &batchv1.Job{}
	if err := typed(o, job); err != nil {
		t.Fatal(err)
	}
	s, pod := job.Spec, job.Spec.Template
	if job.Name != "s-a1" || len(job.OwnerReferences) != 1 || len(job.Finalizers) > 0 || *s.BackoffLimit != 0 || *s.Completions != 1 || *s.Parallelism != 1 {
		t.Errorf("job %+v; want one of the attempt's name, of one pod", job)
	}
	if pod.Name != "" || !slices.Equal(pod.Finalizers, []string{outcomeFinalizer}) || len(pod.OwnerReferences) > 0 || *pod.Spec.ActiveDeadlineSeconds != 3660 {
		t.Errorf("template %+v; want a pod with the finalizer and the deadline", pod)
	}
	for _, labels := range []map[string]string{job.Labels, pod.Labels} {
		if labels[attemptLabel] != "s-a1" || labels[runLabel] != "run" {
			t.Errorf("labels %v; want those of the attempt", labels)
		}
	}
	for _, annotations := range []map[string]string{job.Annotations, pod.Annotations} {
		if annotations[runIDAnnotation] != "run-id" || annotations[stepAnnotation] != "s" || annotations[specAnnotation] == "" {
			t.Errorf("annotations %v; want those of the attempt", annotations)
		}
	}
}

// outputsOf adds outputs to an attempt: one text and one file.
func outputsOf(a *engine.Attempt) *engine.Attempt {
	a.Outputs = []engine.Output{
		{Output: dag.Output{Name: "text", Path: "/out/text"}},
		{Output: dag.Output{Name: "file", Path: "/out/file"}, File: true, Taken: true},
		{Output: dag.Output{Name: "aside", Path: "/out/aside"}, File: true},
	}
	return a
}

// TestPodLauncher shows what is put into the pod of a step with outputs.
func TestPodLauncher(t *testing.T) {
	a := outputsOf(stepAttempt())
	a.Pod.Sidecars = []dag.Object{tree("name", "db", "image", "i:3", "mirrorVolumeMounts", true)}
	o, _ := makeTree(t, &dag.Pipeline{}, Options{Image: "kfs:1"}, a, nil)
	pod := typedPod(t, o)
	main := pod.Spec.Containers[0]
	spec := launchSpec(pod)
	if spec == nil || len(spec.Outputs) != 3 || spec.Store || spec.MaxText != 256<<10 {
		t.Fatalf("the launcher is told %+v", spec)
	}
	if text, file, aside := spec.Outputs[0], spec.Outputs[1], spec.Outputs[2]; text.Keep || text.File || !file.Keep || !file.File || aside.Keep {
		t.Errorf("outputs %+v; want that to be kept which another step takes", spec.Outputs)
	}
	if want := []string{launch.Program, "run", "--spec=" + spec.Encode(), "--", "work"}; !slices.Equal(main.Command, want) || !slices.Equal(main.Args, []string{"--x"}) {
		t.Errorf("command %q, args %q; want %q, and the args as they were", main.Command, main.Args, want)
	}
	if main.TerminationMessagePolicy != corev1.TerminationMessageReadFile || main.TerminationMessagePath != "/dev/termination-log" {
		t.Errorf("termination message %s at %s; want that of the launcher", main.TerminationMessagePolicy, main.TerminationMessagePath)
	}
	db, io := pod.Spec.InitContainers[0], pod.Spec.InitContainers[1]
	if io.Name != ioContainer || io.Image != "kfs:1" || io.RestartPolicy == nil || !slices.Equal(io.Lifecycle.PostStart.Exec.Command, []string{"/kfs", "io", "prepare"}) {
		t.Errorf("sidecar %+v; want kfs-io, which prepares when it has started", io)
	}
	if s := io.SecurityContext; !*s.RunAsNonRoot || *s.RunAsUser != 65532 || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || s.Capabilities.Drop[0] != "ALL" || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("security context %+v; want the restricted one", s)
	}
	for _, c := range []corev1.Container{main, io} {
		if len(c.VolumeMounts) != 1 || c.VolumeMounts[0].MountPath != launch.Dir || c.EnvFrom != nil {
			t.Errorf("container %s has the mounts %+v and variables %+v; want the shared folder alone", c.Name, c.VolumeMounts, c.EnvFrom)
		}
	}
	if len(db.VolumeMounts) != 0 {
		t.Errorf("a sidecar that mirrors mounts has %+v; want none of kfs's", db.VolumeMounts)
	}
	var told launch.IOSpec
	for _, v := range io.Env {
		if v.Name == launch.EnvIOSpec {
			s, err := launch.DecodeIOSpec(v.Value)
			if err != nil {
				t.Fatal(err)
			}
			told = *s
		}
	}
	if told.Store != "" || told.Prefix != "runs/run-id/s-a1" {
		t.Errorf("kfs-io is told %+v; want no store, and the prefix of the attempt", told)
	}

	// To start once needs the launcher too, though nothing is collected.
	once := stepAttempt()
	once.Once = true
	o, _ = makeTree(t, &dag.Pipeline{}, Options{Image: "kfs:1", ImageVolume: true}, once, nil)
	pod = typedPod(t, o)
	if main := pod.Spec.Containers[0]; main.Command[0] != imageAt+"/kfs-launch" || len(main.VolumeMounts) != 2 || main.VolumeMounts[1].MountPath != imageAt || pod.Spec.Volumes[1].Image.Reference != "kfs:1" {
		t.Errorf("with an image volume: command %q, mounts %+v", main.Command, main.VolumeMounts)
	}
}

// TestPodCommand shows what is run if the launcher is there: what the container
// runtime would have run without it.
func TestPodCommand(t *testing.T) {
	image := &entrypoint{Entrypoint: []any{"/entry", "$$HOME"}, Cmd: []any{"a", "$$(b)"}}
	for _, tt := range []struct {
		name          string
		command, args []any
		entry         *entrypoint
		want          []string // behind the two hyphens
		wantArgs      []string
	}{
		{"both", []any{"c"}, []any{"x"}, nil, []string{"c"}, []string{"x"}},
		{"a command", []any{"c", "d"}, nil, nil, []string{"c", "d"}, nil},
		{"arguments", nil, []any{"x"}, image, []string{"/entry", "$$HOME"}, []string{"x"}},
		{"neither", nil, nil, image, []string{"/entry", "$$HOME"}, []string{"a", "$$(b)"}},
		{"no arguments on purpose", nil, []any{}, image, []string{"/entry", "$$HOME"}, nil},
		{"an image with a Cmd alone", nil, nil, &entrypoint{Cmd: []any{"/bin/sh", "-c", "x"}}, nil, []string{"/bin/sh", "-c", "x"}},
		{"an image with a Cmd alone, and arguments", nil, []any{"/other"}, &entrypoint{Cmd: []any{"/bin/sh"}}, nil, []string{"/other"}},
	} {
		a := outputsOf(stepAttempt())
		a.Container = tree("image", "i:1")
		if tt.command != nil {
			a.Container.Set(tt.command, "command")
		}
		if tt.args != nil {
			a.Container.Set(tt.args, "args")
		}
		o, _ := makeTree(t, &dag.Pipeline{}, Options{Image: "kfs:1"}, a, tt.entry)
		main := typedPod(t, o).Spec.Containers[0]
		if got := main.Command[4:]; main.Command[3] != "--" || !slices.Equal(got, tt.want) || !slices.Equal(main.Args, tt.wantArgs) {
			t.Errorf("%s: runs %q %q; want %q %q", tt.name, got, main.Args, tt.want, tt.wantArgs)
		}
	}
	a := outputsOf(stepAttempt())
	a.Container = tree("image", "i:1")
	if _, err := newPodMaker(engine.RunInfo{}, &dag.Pipeline{}, Options{Image: "kfs:1"}).pod(a, nil); err == nil || !strings.Contains(err.Error(), "add command") {
		t.Errorf("no command at all: %v; want what to do", err)
	}
	if got := literal([]string{"$(A)", "$$", "a"}); !slices.Equal(got, []any{"$$(A)", "$$$$", "a"}) {
		t.Errorf("literal: %q; want the dollar signs doubled", got)
	}
}

// TestPodStore shows where kfs-io finds the artifact store, and that the step's
// own container has nothing of it.
func TestPodStore(t *testing.T) {
	volume := tree("name", "shared", "nfs", tree("server", "s", "path", "/p"))
	for _, tt := range []struct {
		name    string
		opts    Options
		conf    *dag.Conf
		address string
		volume  func(corev1.Volume) bool
		user    int64
	}{
		{"none", Options{}, nil, "", nil, 65532},
		{"s3", Options{Artifacts: "s3://bucket/p?endpoint=http://h", ArtifactSecret: "keys"}, nil, "s3://bucket/p?endpoint=http%3A%2F%2Fh", nil, 65532},
		{"claim", Options{Artifacts: "pvc://claim/a/b"}, nil, "file:///kfs-store?prefix=a%2Fb", func(v corev1.Volume) bool { return v.PersistentVolumeClaim.ClaimName == "claim" }, 0},
		{"data volume", Options{}, &dag.Conf{DataVolume: volume, DataPrefix: "data"}, "file:///kfs-store?prefix=data", func(v corev1.Volume) bool { return v.NFS.Server == "s" }, 0},
	} {
		tt.opts.Image = "kfs:1"
		o, _ := makeTree(t, &dag.Pipeline{Conf: tt.conf}, tt.opts, outputsOf(stepAttempt()), nil)
		pod := typedPod(t, o)
		io, main := pod.Spec.InitContainers[0], pod.Spec.Containers[0]
		told, err := launch.DecodeIOSpec(io.Env[0].Value)
		if err != nil || told.Store != tt.address {
			t.Errorf("%s: store %q, %v; want %q", tt.name, told.Store, err, tt.address)
		}
		spec := launchSpec(pod)
		if spec.Store != (tt.address != "") || spec.Outputs[2].Keep != spec.Store {
			t.Errorf("%s: the launcher is told %+v", tt.name, spec)
		}
		if tt.volume != nil {
			i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "kfs-store" })
			if i < 0 || !tt.volume(pod.Spec.Volumes[i]) || io.VolumeMounts[1].MountPath != storeAt {
				t.Errorf("%s: volumes %+v, mounts %+v", tt.name, pod.Spec.Volumes, io.VolumeMounts)
			}
		}
		if *io.SecurityContext.RunAsUser != tt.user || len(main.VolumeMounts) != 1 || main.EnvFrom != nil {
			t.Errorf("%s: kfs-io runs as %d, and the step has %+v, %+v", tt.name, *io.SecurityContext.RunAsUser, main.VolumeMounts, main.EnvFrom)
		}
		if secret := tt.opts.ArtifactSecret; secret != "" && (len(io.EnvFrom) != 1 || io.EnvFrom[0].SecretRef.Name != secret) {
			t.Errorf("%s: kfs-io has the variables %+v; want those of secret %s", tt.name, io.EnvFrom, secret)
		}
	}
	if volume.Get("name") != "shared" {
		t.Error("the author's volume was changed")
	}
}

// TestPodInputs shows how files reach a pod: as they are, from the store, and
// from the ConfigMap of an attempt's outputs, which kfs-io has mounted.
func TestPodInputs(t *testing.T) {
	sum := sha256.Sum256([]byte("x"))
	file := launch.File{Size: 1, SHA256: sum[:]}
	stored := launch.Place{Key: "runs/r/a-a1/out", File: file}.String()
	a := stepAttempt()
	for i, f := range []struct{ text, from string }{
		{"hello $(X)", ""}, {"", stored}, {"", valuesPlace("a-a1-values", "file0", file)}, {"", valuesPlace("a-a1-values", "file1", file)}, {"", valuesPlace("b-a1-values", "file0", file)},
	} {
		name := string(rune('a' + i))
		a.Artifacts = append(a.Artifacts, engine.Artifact{Artifact: dag.Artifact{Name: name, Path: "/in/" + name, Text: f.text}, From: f.from})
	}
	o, _ := makeTree(t, &dag.Pipeline{}, Options{Image: "kfs:1", Artifacts: "s3://bucket"}, a, nil)
	pod := typedPod(t, o)
	told, err := launch.DecodeIOSpec(pod.Spec.InitContainers[0].Env[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	var from []string
	for i, in := range told.Inputs {
		where := in.From
		if p, err := launch.ParsePlace(where); err == nil {
			where = p.Key + p.Path
			if string(p.SHA256) != string(sum[:]) {
				t.Errorf("input %d has lost its checksum", i)
			}
		}
		from = append(from, where)
	}
	if want := []string{"", "runs/r/a-a1/out", "/kfs-values/a-a1-values/file0", "/kfs-values/a-a1-values/file1", "/kfs-values/b-a1-values/file0"}; !slices.Equal(from, want) {
		t.Errorf("kfs-io fetches %q; want %q", from, want)
	}
	if told.Inputs[0].Text != "" || launchSpec(pod).Inputs[0].Text != "hello $(X)" {
		t.Error("a text goes to the launcher alone")
	}
	var maps []string
	for _, v := range pod.Spec.Volumes {
		if v.ConfigMap != nil {
			maps = append(maps, v.Name+"="+v.ConfigMap.Name)
		}
	}
	if want := []string{"kfs-values-1=a-a1-values", "kfs-values-2=b-a1-values"}; !slices.Equal(maps, want) {
		t.Errorf("volumes %q; want %q, each once", maps, want)
	}
}

// TestPodTooLarge shows what is refused, and that the message says what to do.
func TestPodTooLarge(t *testing.T) {
	noise := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('!' + rand.IntN(90))
		}
		return string(b)
	}
	opts := Options{Image: "kfs:1"}
	for _, tt := range []struct {
		name   string
		change func(*engine.Attempt)
		want   string // "" is taken
	}{
		{"the longest argument", func(a *engine.Attempt) { a.Container.Append("args", strings.Repeat("x", maxArgument-1)) }, ""},
		{"an argument", func(a *engine.Attempt) { a.Container.Append("args", strings.Repeat("x", maxArgument)) }, `argument 3 of container "main" has 131072 bytes: Linux takes at most 131071 in one; hand the value on in a file: input_argument_path`},
		{"a variable", func(a *engine.Attempt) {
			a.Container.Append("env", tree("name", "V", "value", strings.Repeat("x", maxArgument)))
		}, `variable "V" of container "main" has 131072 bytes`},
		{"a sidecar's argument", func(a *engine.Attempt) {
			a.Pod.Sidecars = []dag.Object{tree("name", "db", "image", "i", "args", []any{strings.Repeat("x", maxArgument)})}
		}, `argument 1 of container "db"`},
		{"an object", func(a *engine.Attempt) {
			for range 14 {
				a.Container.Append("args", noise(100_000))
			}
		}, "Kubernetes takes objects of at most 1400000; hand large values on in files: input_argument_path"},
		{"a file", func(a *engine.Attempt) {
			a.Artifacts = []engine.Artifact{{Artifact: dag.Artifact{Name: "f", Path: "/f", Text: noise(128 << 10)}}}
		}, "let a step write them into files"},
		{"a file that packs well", func(a *engine.Attempt) {
			a.Artifacts = []engine.Artifact{{Artifact: dag.Artifact{Name: "f", Path: "/f", Text: strings.Repeat("x", 1<<20)}}}
		}, ""},
	} {
		a := stepAttempt()
		tt.change(a)
		o, err := newPodMaker(engine.RunInfo{ID: "r", Name: "r"}, &dag.Pipeline{}, opts).pod(a, nil)
		if err == nil {
			err = typed(o, &corev1.Pod{})
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %.300v; want %q", tt.name, err, tt.want)
		}
	}
	// What is no pod is said to be none.
	a := stepAttempt()
	a.Container.Set("often", "resources")
	o, _ := makeTree(t, &dag.Pipeline{}, opts, a, nil)
	if err := typed(o, &corev1.Pod{}); err == nil || !strings.Contains(err.Error(), "none that Kubernetes takes") {
		t.Errorf("resources that are a text: %v", err)
	}
}

// TestPullKeys shows whose login is used for an image.
func TestPullKeys(t *testing.T) {
	keys := pullKeys{}
	for host, user := range map[string]string{
		"https://index.docker.io/v1/": "hub", "ghcr.io": "all", "ghcr.io/team": "team", "ghcr.io/vision/v1": "vision",
		"*.ecr.amazonaws.com": "ecr", "https://r.local:5000/": "local", "quay.io/v2/": "quay",
	} {
		c := keys[host]
		c.Username = user
		keys[host] = c
	}
	for _, tt := range []struct{ image, want string }{
		{"busybox", "hub"}, {"docker.io/me/x", "hub"},
		{"ghcr.io/me/x", "all"}, {"ghcr.io/team/x", "team"}, {"ghcr.io/teams/x", "all"}, {"ghcr.io/vision/x", "vision"},
		{"1.dkr.us.ecr.amazonaws.com/x", "ecr"}, {"r.local:5000/x", "local"}, {"r.local:5001/x", ""}, {"quay.io/x/y", "quay"},
		{"evil.io/ghcr.io/team", ""},
	} {
		if got := loginFor(t, keys, tt.image); got != tt.want {
			t.Errorf("%s: the login of %q; want that of %q", tt.image, got, tt.want)
		}
	}
}

func loginFor(t *testing.T, keys pullKeys, image string) string {
	t.Helper()
	ref, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	login, err := keys.Resolve(ref.Context())
	if err != nil {
		t.Fatal(err)
	}
	config, err := login.Authorization()
	if err != nil {
		t.Fatal(err)
	}
	return config.Username
}
