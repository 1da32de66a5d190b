package k8s

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kfs-project/kfs/artifact"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/launch"
)

// This file puts kfs-launch and kfs-io into the pods of steps that need them,
// and takes in what they tell. Package launch says what they do.

const (
	ioContainer = "kfs-io"
	ioProgram   = "/kfs"        // in kfs's own image
	shared      = "kfs"         // the volume that both containers have
	storeAt     = "/kfs-store"  // where kfs-io has a volume that is the store
	valuesAt    = "/kfs-values" // where it has ConfigMaps with files
	imageAt     = "/kfs-image"  // where the step's container has kfs's own image, as a volume
)

// launched reports whether an attempt needs the launcher: to collect outputs,
// to bring files, or to start the command once and no more.
func launched(a *engine.Attempt) bool { return len(a.Outputs) > 0 || len(a.Artifacts) > 0 || a.Once }

// launcher makes the launcher start the command of main, and returns the
// sidecar kfs-io and the volumes that both need.
func (m *podMaker) launcher(a *engine.Attempt, main *dag.Object, entry *entrypoint) (dag.Object, []dag.Object, error) {
	mount := func(name, at string, readOnly bool) dag.Object {
		o := dag.Object{{Name: "name", Value: name}, {Name: "mountPath", Value: at}}
		if readOnly {
			o.Set(true, "readOnly")
		}
		return o
	}
	volumes := []dag.Object{{{Name: "name", Value: shared}, {Name: "emptyDir", Value: dag.Object{}}}}
	mounts := []dag.Object{mount(shared, launch.Dir, false)}
	spec := launch.Spec{MaxText: int64(m.opts.Limits.Values)}
	io := launch.IOSpec{Prefix: keyPrefix(m.run.ID, a.ID)}

	var env, envFrom []dag.Object
	store, volume, err := m.store()
	if err != nil {
		return nil, nil, err
	}
	keeps := slices.ContainsFunc(a.Outputs, func(o engine.Output) bool { return o.Taken || o.File })
	takes := slices.ContainsFunc(a.Artifacts, func(f engine.Artifact) bool { return strings.HasPrefix(f.From, "store:") })
	if store != "" && (keeps || takes) {
		spec.Store, io.Store = true, store
		if volume != nil {
			volumes, mounts = append(volumes, volume), append(mounts, mount("kfs-store", storeAt, false))
		}
		if m.opts.ArtifactSecret != "" {
			envFrom = append(envFrom, dag.Object{{Name: "secretRef", Value: dag.Object{{Name: "name", Value: m.opts.ArtifactSecret}}}})
		}
	}
	mounted := map[string]bool{}
	for _, f := range a.Artifacts {
		in := launch.Input{Name: f.Name, Path: f.Path, Text: f.Text, From: f.From}
		if config, place, ok := fromValues(f.From); ok {
			in.From = place.String()
			if !mounted[config] {
				mounted[config] = true
				name := fmt.Sprintf("kfs-values-%d", len(mounted))
				volumes = append(volumes, dag.Object{{Name: "name", Value: name}, {Name: "configMap", Value: dag.Object{{Name: "name", Value: config}}}})
				mounts = append(mounts, mount(name, path.Join(valuesAt, config), true))
			}
		}
		spec.Inputs = append(spec.Inputs, in)
		in.Text = ""
		io.Inputs = append(io.Inputs, in)
	}
	for _, o := range a.Outputs {
		spec.Outputs = append(spec.Outputs, launch.Output{Name: o.Name, Path: o.Path, File: o.File, Keep: o.Taken || o.File && spec.Store})
	}
	text := spec.Encode()
	if len(text)+len("--spec=") >= maxArgument {
		return nil, nil, fmt.Errorf("the texts that it takes as files have more than 64 KiB together: let a step write them into files")
	}

	program := launch.Program
	mainMounts := []dag.Object{mount(shared, launch.Dir, false)}
	if m.opts.ImageVolume {
		program = imageAt + "/kfs-launch"
		volumes = append(volumes, dag.Object{{Name: "name", Value: "kfs-image"}, {Name: "image", Value: dag.Object{{Name: "reference", Value: m.opts.Image}}}})
		mainMounts = append(mainMounts, mount("kfs-image", imageAt, true))
	}
	command := []any{program, "run", "--spec=" + text, "--"}
	own, _ := main.Get("command").([]any)
	args, _ := main.Get("args").([]any)
	if len(own) == 0 {
		if entry == nil {
			return nil, nil, errors.New("neither the step nor its image says what to run: add command = [...]")
		}
		own = entry.Entrypoint
		if args == nil {
			args = entry.Cmd
		}
	}
	main.Set(slices.Concat(command, own), "command")
	if len(args) > 0 {
		main.Set(args, "args")
	}
	for _, mt := range mainMounts {
		main.Append("volumeMounts", mt)
	}
	main.Set("/dev/termination-log", "terminationMessagePath")
	main.Set("File", "terminationMessagePolicy")

	env = append(env, dag.Object{{Name: "name", Value: launch.EnvIOSpec}, {Name: "value", Value: io.Encode()}})
	sidecar := dag.Object{
		{Name: "name", Value: ioContainer}, {Name: "image", Value: m.opts.Image}, {Name: "restartPolicy", Value: "Always"},
		{Name: "command", Value: []any{ioProgram, "io"}}, {Name: "env", Value: list(env)},
	}
	if len(envFrom) > 0 {
		sidecar.Set(list(envFrom), "envFrom")
	}
	sidecar.Set([]any{ioProgram, "io", "prepare"}, "lifecycle", "postStart", "exec", "command")
	sidecar.Set(dag.Object{{Name: "cpu", Value: "10m"}, {Name: "memory", Value: "32Mi"}}, "resources", "requests")
	sidecar.Set(dag.Object{{Name: "memory", Value: "512Mi"}}, "resources", "limits")
	security := dag.Object{
		{Name: "allowPrivilegeEscalation", Value: false},
		{Name: "capabilities", Value: dag.Object{{Name: "drop", Value: []any{"ALL"}}}},
		{Name: "readOnlyRootFilesystem", Value: true},
		{Name: "seccompProfile", Value: dag.Object{{Name: "type", Value: "RuntimeDefault"}}},
	}
	if volume == nil {
		security.Set(true, "runAsNonRoot")
		security.Set(int64(65532), "runAsUser")
	} else {
		security.Set(int64(0), "runAsUser") // as whom volumes are made
	}
	sidecar.Set(security, "securityContext")
	sidecar.Set(list(mounts), "volumeMounts")
	return sidecar, volumes, nil
}

// literal returns texts of which the kubelet is to expand nothing.
func literal(texts []string) []any {
	var l []any
	for _, text := range texts {
		l = append(l, strings.ReplaceAll(text, "$", "$$"))
	}
	return l
}

// keyPrefix begins the keys of what an attempt leaves in the store.
func keyPrefix(runID, attempt string) string { return path.Join("runs", runID, attempt) }

// store returns the address of the artifact store as kfs-io opens it, and the
// volume kfs-store that it is on, if it is on one; "" is no store.
func (m *podMaker) store() (address string, volume dag.Object, err error) {
	if m.opts.Artifacts == "" {
		if m.conf.DataVolume == nil {
			return "", nil, nil
		}
		volume := slices.Clone(m.conf.DataVolume)
		volume.Set("kfs-store", "name")
		a := artifact.Address{Scheme: artifact.File, Name: storeAt, Prefix: strings.Trim(path.Clean("/"+m.conf.DataPrefix), "/")}
		return a.String(), volume, nil
	}
	a, err := artifact.Parse(m.opts.Artifacts)
	if err != nil {
		return "", nil, err
	}
	switch a.Scheme {
	case artifact.Claim:
		return a.Mounted(storeAt).String(), dag.Object{{Name: "name", Value: "kfs-store"},
			{Name: "persistentVolumeClaim", Value: dag.Object{{Name: "claimName", Value: a.Name}}}}, nil
	case artifact.File:
		return "", nil, fmt.Errorf("artifact store %q is a folder of this machine: want s3://BUCKET/PREFIX or pvc://CLAIM/PREFIX", m.opts.Artifacts)
	}
	return a.String(), nil, nil
}

// valuesScheme begins the place of a file in the ConfigMap of an attempt's
// outputs: configmap://NAME/KEY?..., as of a launch.Place.
const valuesScheme = "configmap://"

func valuesPlace(config, key string, f launch.File) string {
	return valuesScheme + config + strings.TrimPrefix(launch.Place{Path: "/" + key, File: f}.String(), "file://")
}

// fromValues returns the ConfigMap that a place names, and the place at which
// kfs-io finds the file when it has that mounted.
func fromValues(from string) (config string, place launch.Place, ok bool) {
	rest, ok := strings.CutPrefix(from, valuesScheme)
	if !ok {
		return "", place, false
	}
	config, file, _ := strings.Cut(rest, "/")
	place, err := launch.ParsePlace("file:///" + file)
	place.Path = path.Join(valuesAt, config, place.Path)
	return config, place, err == nil
}

// launchSpec returns what the launcher of a pod was told.
func launchSpec(pod *corev1.Pod) *launch.Spec {
	for _, c := range pod.Spec.Containers {
		if c.Name != mainContainer {
			continue
		}
		for _, arg := range c.Command {
			if text, ok := strings.CutPrefix(arg, "--spec="); ok {
				spec, err := launch.DecodeSpec(text)
				if err != nil {
					return nil
				}
				return spec
			}
		}
	}
	return nil
}

// launcherResult takes in what the launcher tells. Told reports whether it has
// told anything, and signalled whether a signal came before the command had
// ended.
func (r *Run) launcherResult(ctx context.Context, a *attempt, s sight, o *engine.Observation) (told, signalled bool) {
	result, err := launch.ParseFrame(s.frame)
	if err != nil {
		switch {
		case s.ExitCode == 0 || s.ExitCode == launch.ExitOutputs:
			o.Cause, o.Reason = engine.BadOutput, fmt.Sprintf("its outputs have not arrived whole: %v; the more containers a pod has, the less each may say", err)
		case s.ExitCode == launch.ExitAgain:
			o.Cause, o.Reason = engine.Vanished, "its container was started a second time"
		}
		return false, false
	}
	signalled = result.Signal != 0
	switch result.Fault {
	case launch.Again:
		o.Cause, o.Reason = engine.Vanished, "its container was started a second time, and the command was not: it ran at least in part"
	case launch.CannotRun:
		o.Cause, o.Reason, o.Started = engine.CannotRun, result.Reason, time.Time{}
	case launch.NoInputs, launch.Stopped:
		o.Cause, o.Reason, o.Started = engine.NotStarted, result.Reason, time.Time{}
	case launch.BadOutput:
		o.Cause, o.Reason = engine.BadOutput, result.Reason
	case launch.Lost:
		o.Cause, o.Reason = engine.Lost, result.Reason
	}
	if result.Fault != "" || s.ExitCode != 0 {
		return true, signalled
	}
	if err := r.readRest(ctx, a, result); err != nil {
		o.Cause, o.Reason = engine.Lost, err.Error()
		return true, signalled
	}
	o.Outputs, o.Files = map[string]string{}, map[string]string{}
	small := map[string][]byte{}
	size := 0
	declared := s.declared
	for _, d := range declared {
		if text, ok := result.Texts[d.Name]; ok {
			o.Outputs[d.Name] = text
			size += len(text)
		}
		if f, ok := result.Files[d.Name]; ok && !f.Stored {
			small[d.Name] = f.Data
		}
	}
	if size > maxInline || len(small) > 0 {
		if err := r.keepValues(ctx, a.id, o.Outputs, small, quotaFor); err != nil {
			if ctx.Err() == nil {
				o.Cause, o.Reason = engine.BadOutput, err.Error()
			}
			return true, signalled
		}
	}
	i := 0
	for _, name := range sortedKeys(small) {
		o.Files[name] = valuesPlace(valuesName(a.id), fileKey(i), result.Files[name])
		i++
	}
	for _, d := range declared {
		if f, ok := result.Files[d.Name]; ok && f.Stored {
			o.Files[d.Name] = launch.Place{Key: launch.Key(keyPrefix(r.info.ID, a.id), d.Name), File: f}.String()
		}
	}
	return true, signalled
}

// maxLog is how much of the log of kfs-io is read, in bytes: all of its outputs,
// twice.
const maxLog = 8 << 20

// readFor is how long it is tried to read it: as long as a node may be away
// before the cluster gives its pods up.
const readFor = 6 * time.Minute

// readRest reads the outputs that stand in the log of kfs-io.
func (r *Run) readRest(ctx context.Context, a *attempt, result *launch.Result) error {
	if result.Rest == nil {
		return nil
	}
	limit := int64(maxLog)
	opts := &corev1.PodLogOptions{Container: ioContainer, LimitBytes: &limit}
	began := time.Now()
	for n := 0; ; n++ {
		var text []byte
		err := r.cluster.once(ctx, func(ctx context.Context) (err error) {
			text, err = r.cluster.core.Get().Namespace(r.cluster.Namespace).Resource("pods").Name(a.pod).SubResource("log").
				VersionedParams(opts, parameterCodec()).Do(ctx).Raw()
			return err
		})
		if err != nil {
			err = fmt.Errorf("%w: the log of kfs-io cannot be read: %w", launch.ErrLost, err)
		} else if err = launch.ReadLog(bytes.NewReader(text), result); err == nil {
			return nil
		}
		// An answer may come from the node, which may be away while the API
		// server is not.
		if away, _ := r.cluster.health.away(); !away.IsZero() {
			began = time.Now()
		}
		if time.Since(began) > readFor || apierrors.IsNotFound(err) || sleep(ctx, backoff(n, nil)) != nil {
			return err
		}
	}
}
