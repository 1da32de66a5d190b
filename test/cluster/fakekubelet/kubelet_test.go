package fakekubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
)

// What gist says of a pod that runs.
const up = "PodReadyToStartContainers Initialized Ready ContainersReady"

func TestLives(t *testing.T) {
	always := func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyAlways }
	onFailure := func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }
	helped := func(p *corev1.Pod) {
		policy := corev1.ContainerRestartPolicyAlways
		p.Spec.InitContainers = []corev1.Container{{Name: "init"}, {Name: "io", RestartPolicy: &policy}}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "also"})
	}
	for _, tt := range []struct {
		name, behavior string
		change         func(*corev1.Pod)
		want           []string // versions of the pod in its first ten seconds
		events         []string
	}{
		{name: "default", want: []string{
			"0s Succeeded main=0/Completed Initialized"}},
		{name: "default of a service", change: always, want: []string{
			"0s Running main=running " + up}},
		{name: "succeed", behavior: "{do: succeed, pending: 1s, after: 2s, settle: 1s, message: bye}", want: []string{
			"0s Pending main=ContainerCreating Initialized",
			"1s Running main=running " + up,
			`3s Running main=0/Completed"bye" PodReadyToStartContainers Initialized`,
			`4s Succeeded main=0/Completed"bye" Initialized`}},
		{name: "fail", behavior: "{do: fail, after: 1s, message: out of luck}", want: []string{
			"0s Running main=running " + up,
			`1s Failed main=1/Error"out of luck" Initialized`}},
		{name: "fail and settle", behavior: "{do: fail, exit: 3, settle: 1s}", want: []string{
			"0s Running main=3/Error PodReadyToStartContainers Initialized",
			"1s Failed main=3/Error Initialized"}},
		{name: "oom", behavior: "{do: oom}", want: []string{
			"0s Failed main=137/OOMKilled Initialized"},
			events: []string{"Node OOMKilling: Memory cgroup out of memory: Killed process 1 (main)"}},
		{name: "oom under a launcher", behavior: "{do: oom, exit: 0}", want: []string{
			"0s Succeeded main=0/OOMKilled Initialized"},
			events: []string{"Node OOMKilling: Memory cgroup out of memory: Killed process 1 (main)"}},
		{name: "evict", behavior: "{do: evict, after: 1s}", want: []string{
			"0s Running main=running " + up,
			"1s Failed(Evicted) main=137/Error Initialized DisruptionTarget"},
			events: []string{
				"Pod Evicted: The node was low on resource: memory.",
				"spec.containers{main} Killing: Stopping container main"}},
		{name: "run", behavior: "{do: run, pending: 1s}", want: []string{
			"0s Pending main=ContainerCreating Initialized",
			"1s Running main=running " + up}},
		{name: "pending", behavior: "{do: pending}", want: []string{
			"0s Pending main=ContainerCreating Initialized"}},
		{name: "pull-backoff", behavior: "{do: pull-backoff}", want: []string{
			"0s Pending main=ErrImagePull PodReadyToStartContainers Initialized",
			"1s Pending main=ImagePullBackOff PodReadyToStartContainers Initialized"},
			events: []string{
				`spec.containers{main} Failed: Failed to pull image "registry:5000/x:1": ` + pullError("registry:5000/x:1"),
				"spec.containers{main} Failed: Error: ErrImagePull",
				`spec.containers{main} BackOff: Back-off pulling image "registry:5000/x:1"`,
				"spec.containers{main} Failed: Error: ImagePullBackOff"}},
		{name: "lost", behavior: "{do: lost, after: 1s}", want: []string{
			"0s Running main=running " + up,
			"1s Failed main=137/ContainerStatusUnknown#1<137/ContainerStatusUnknown Initialized"}},
		{name: "restart", behavior: "{do: restart, exit: 4, after: 1s}", want: []string{
			"0s Running main=running " + up,
			"1s Running main=running#1<4/Error " + up,
			"2s Succeeded main=0/Completed#1<4/Error Initialized"}},
		{name: "bad", behavior: "{do: nothing}", want: []string{
			"0s Pending main=BadBehavior Initialized"},
			events: []string{`Pod BadBehavior: behavior: do: found "nothing", want one of evict, fail, lost, oom, pending, pull-backoff, restart, run, succeed`}},
		{name: "restart of a failure", behavior: "[{do: fail, after: 1s}, {do: fail}, {do: succeed, after: 1s}]", change: onFailure, want: []string{
			"0s Running main=running " + up,
			"1s Running main=1/Error PodReadyToStartContainers Initialized",
			"2s Running main=1/Error#1<1/Error PodReadyToStartContainers Initialized",
			"3s Running main=running#2<1/Error " + up,
			"4s Succeeded main=0/Completed#2<1/Error Initialized"}},
		{name: "restart that waits", behavior: "[{do: fail}, {do: run, pending: 2s}]", change: onFailure, want: []string{
			"0s Running main=1/Error PodReadyToStartContainers Initialized",
			"3s Running main=running#1<1/Error " + up}},
		{name: "restart of a success", behavior: "[{do: succeed, after: 1s}, {do: run}]", change: always, want: []string{
			"0s Running main=running " + up,
			"1s Running main=0/Completed PodReadyToStartContainers Initialized",
			"2s Running main=running#1<0/Completed " + up}},
		{name: "init containers and a sidecar", behavior: "{pending: 1s, after: 1s, settle: 1s}", change: helped, want: []string{
			"0s Pending init=PodInitializing io=PodInitializing also=PodInitializing main=PodInitializing",
			"1s Running init=0/Completed io=running also=running main=running " + up,
			"2s Running init=0/Completed io=running also=0/Completed main=0/Completed PodReadyToStartContainers Initialized",
			"3s Succeeded init=0/Completed io=0/Completed also=0/Completed main=0/Completed Initialized"},
			events: []string{"spec.initContainers{io} Killing: Stopping container io"}},
		{name: "sidecar of an image that is not found", behavior: "{do: pull-backoff}", change: helped, want: []string{
			"0s Pending init=0/Completed io=running also=PodInitializing main=ErrImagePull PodReadyToStartContainers Initialized",
			"1s Pending init=0/Completed io=running also=PodInitializing main=ImagePullBackOff PodReadyToStartContainers Initialized"},
			events: []string{
				`spec.containers{main} Failed: Failed to pull image "registry:5000/x:1": ` + pullError("registry:5000/x:1"),
				"spec.containers{main} Failed: Error: ErrImagePull",
				`spec.containers{main} BackOff: Back-off pulling image "registry:5000/x:1"`,
				"spec.containers{main} Failed: Error: ImagePullBackOff"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				c.run(Config{})
				p := newPod("p", tt.behavior)
				if tt.change != nil {
					tt.change(p)
				}
				synctest.Wait()
				c.create(p)
				time.Sleep(10 * time.Second)
				c.became("p", tt.want)
				c.reports(tt.events)
			})
		})
	}
}

// A status has all that a kubelet writes, and leaves the rest as it was.
func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.run(Config{Events: true})
		p := newPod("p", "{do: fail, pending: 1s, after: 1s}")
		c.create(p)
		time.Sleep(10 * time.Second)
		st := c.pod("p").Status

		main := mainOf(p, &st)
		digest := "registry:5000/x@sha256:"
		if !strings.HasPrefix(main.ImageID, digest) || main.Image != "registry:5000/x:1" {
			t.Errorf("image %q has the ID %q; want %s...", main.Image, main.ImageID, digest)
		}
		if !strings.HasPrefix(main.ContainerID, "containerd://") || main.State.Terminated.ContainerID != main.ContainerID {
			t.Errorf("container IDs %q and %q; want one", main.ContainerID, main.State.Terminated.ContainerID)
		}
		at := func(s int) string { return c.begun.Add(time.Duration(s) * time.Second).UTC().Format(time.RFC3339) }
		for _, tt := range []struct{ what, got, want string }{
			{"startTime", st.StartTime.UTC().Format(time.RFC3339), at(0)},
			{"startedAt", main.State.Terminated.StartedAt.UTC().Format(time.RFC3339), at(1)},
			{"finishedAt", main.State.Terminated.FinishedAt.UTC().Format(time.RFC3339), at(2)},
			{"hostIP", st.HostIP + " " + st.HostIPs[0].IP, "10.128.0.0 10.128.0.0"},
			{"podIP", st.PodIP, st.PodIPs[0].IP},
			{"started", fmt.Sprint(*main.Started), "false"},
			{"observedGeneration", fmt.Sprint(st.ObservedGeneration), "1"},
		} {
			if tt.got != tt.want || tt.got == "" {
				t.Errorf("%s is %q; want %q", tt.what, tt.got, tt.want)
			}
		}
		var conditions []string
		for _, c := range st.Conditions {
			conditions = append(conditions, fmt.Sprintf("%s %s %s %s %s", c.Type, c.Status, c.Reason, c.Message, c.LastTransitionTime.UTC().Format(time.RFC3339)))
		}
		slices.Sort(conditions)
		want := []string{
			"ContainersReady False PodFailed  " + at(2),
			"Initialized True   " + at(0),
			"PodReadyToStartContainers False PodSandboxNotReady pod sandbox is not ready " + at(2),
			"PodScheduled True   0001-01-01T00:00:00Z",
			"Ready False PodFailed  " + at(2),
		}
		if d := cmp.Diff(want, conditions); d != "" {
			t.Errorf("conditions (-want +got):\n%s", d)
		}
		events := []string{
			`spec.containers{main} Pulled: Container image "registry:5000/x:1" already present on machine and can be accessed by the pod`,
			"spec.containers{main} Created: Container created",
			"spec.containers{main} Started: Container started",
		}
		if d := cmp.Diff(events, c.reported()); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
	})
}

// The record of a lost container does not say when it started, and the image
// that is not found is named as kubelets name it.
func TestMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.run(Config{})
		c.create(newPod("lost", "do: lost"))
		c.create(newPod("pull", "do: pull-backoff"))
		c.create(newPod("bad", "do: it"))
		time.Sleep(10 * time.Second)
		lost := c.pod("lost").Status.ContainerStatuses[0].State.Terminated
		if !lost.StartedAt.IsZero() || lost.Message != unknownMessage {
			t.Errorf("a lost container is %v", lost)
		}
		pull := c.pod("pull").Status.ContainerStatuses[0].State.Waiting.Message
		if want := `Back-off pulling image "registry:5000/x:1": ErrImagePull: rpc error`; !strings.HasPrefix(pull, want) {
			t.Errorf("the message of the pull is %q; want %q...", pull, want)
		}
		bad := c.pod("bad").Status.ContainerStatuses[0].State.Waiting.Message
		if want := `behavior: do: found "it"`; !strings.HasPrefix(bad, want) {
			t.Errorf("the message of the bad pod is %q; want %q...", bad, want)
		}
	})
}

func TestDeletion(t *testing.T) {
	finalizer := func(p *corev1.Pod) { p.Finalizers = []string{"kfs.dev/outcome"} }
	helped := func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "init"}} }
	killing := []string{"spec.containers{main} Killing: Stopping container main"}
	running := "0s Running main=running " + up
	asked := "2s Running deleted main=running " + up
	for _, tt := range []struct {
		name, behavior string
		change         func(*corev1.Pod)
		grace          int64 // of the deletion, after 2 s
		want           []string
		events         []string
	}{
		{"at once", "do: run", nil, 30, []string{
			running, asked,
			"2s Failed deleted main=143/Error Initialized",
			"2s gone"}, killing},
		{"with grace", "{do: run, grace: 3s, message: saved}", nil, 30, []string{
			running, asked,
			`5s Failed deleted main=143/Error"saved" Initialized`,
			"5s gone"}, killing},
		{"SIGTERM is trapped", "{after: 1h, term: 0, grace: 1s}", nil, 30, []string{
			running, asked,
			"3s Succeeded deleted main=0/Completed Initialized",
			"3s gone"}, killing},
		{"too slow", "{do: run, term: 0, grace: 1m}", nil, 5, []string{
			running, asked,
			"7s Failed deleted main=137/Error Initialized",
			"7s gone"}, killing},
		{"finalizer", "do: run", finalizer, 30, []string{
			running, asked,
			"2s Failed deleted main=143/Error Initialized",
			"2s Failed deleted main=143/Error Initialized"}, killing},
		{"finalizer and no grace", "{do: run, grace: 5s}", finalizer, 0, []string{
			running, asked,
			"2s Failed deleted main=137/Error Initialized",
			"2s Failed deleted main=137/Error Initialized"}, killing},
		{"ended, with a finalizer", "do: succeed", finalizer, 30, []string{
			"0s Succeeded main=0/Completed Initialized",
			"2s Succeeded deleted main=0/Completed Initialized",
			"2s Succeeded deleted main=0/Completed Initialized"}, nil},
		{"between main's end and the pod's", "{do: succeed, settle: 1h}", nil, 30, []string{
			"0s Running main=0/Completed PodReadyToStartContainers Initialized",
			"2s Running deleted main=0/Completed PodReadyToStartContainers Initialized",
			"2s Succeeded deleted main=0/Completed Initialized",
			"2s gone"}, nil},
		{"never started", "do: pending", nil, 30, []string{
			"0s Pending main=ContainerCreating Initialized",
			"2s Pending deleted main=ContainerCreating Initialized",
			"2s Failed deleted main=137/ContainerStatusUnknown Initialized",
			"2s gone"}, nil},
		{"never initialized", "pending: 1h", helped, 30, []string{
			"0s Pending init=PodInitializing main=PodInitializing",
			"2s Pending deleted init=PodInitializing main=PodInitializing",
			"2s Failed deleted init=137/ContainerStatusUnknown main=PodInitializing",
			"2s gone"}, nil},
		{"bad", "do: what", nil, 30, []string{
			"0s Pending main=BadBehavior Initialized",
			"2s Pending deleted main=BadBehavior Initialized",
			"2s Failed deleted main=137/ContainerStatusUnknown Initialized",
			"2s gone"}, []string{`Pod BadBehavior: behavior: do: found "what", want one of evict, fail, lost, oom, pending, pull-backoff, restart, run, succeed`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				c.run(Config{})
				p := newPod("p", tt.behavior)
				if tt.change != nil {
					tt.change(p)
				}
				synctest.Wait()
				c.create(p)
				time.Sleep(2 * time.Second)
				c.delete("p", tt.grace)
				time.Sleep(10 * time.Second)
				c.became("p", tt.want)
				c.reports(tt.events)
			})
		})
	}
}

// Another deletion can leave a pod less time.
func TestShorterGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.run(Config{})
		c.create(newPod("p", "{do: run, grace: 20s}"))
		synctest.Wait()
		c.delete("p", 30)
		time.Sleep(time.Second)
		c.delete("p", 3)
		time.Sleep(time.Minute)
		got := c.versions("p")
		if want := []string{"4s Failed deleted main=137/Error Initialized", "4s gone"}; !cmp.Equal(want, got[len(got)-2:]) {
			t.Errorf("got %q; want %q in the end", got, want)
		}
	})
}

// Attempts of one step are pods of different names with one key.
func TestKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k, _ := c.run(Config{})
		for i := range 5 {
			p := newPod(fmt.Sprint("a", i), "[{do: fail}, {do: pull-backoff}, {do: restart}, {do: succeed}]")
			p.Annotations[KeyAnnotation] = "step"
			c.create(p)
			time.Sleep(10 * time.Second)
		}
		c.create(newPod("other", ""))
		synctest.Wait()
		var got, starts []string
		for i := range 5 {
			got = append(got, string(c.pod(fmt.Sprint("a", i)).Status.Phase))
		}
		if want := []string{"Failed", "Pending", "Succeeded", "Succeeded", "Succeeded"}; !cmp.Equal(got, want) {
			t.Errorf("the attempts are %v; want %v", got, want)
		}
		for _, s := range k.Starts() {
			starts = append(starts, s.Key+" "+s.Pod)
		}
		if want := []string{"step a0", "step a2", "step a2", "step a3", "step a4", "default/other other"}; !cmp.Equal(starts, want) {
			t.Errorf("starts %v; want %v", starts, want)
		}
		for path, want := range map[string]string{
			"/counts":                        `{"default/other":1,"step":5}`,
			"/starts?key=none":               `[]`,
			"/starts?namespace=none":         `[]`,
			"/starts?namespace=default&key=": `[]`,
		} {
			w := httptest.NewRecorder()
			k.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if got := strings.TrimSpace(w.Body.String()); got != want || w.Code != 200 {
				t.Errorf("GET %s: %d %s; want 200 %s", path, w.Code, got, want)
			}
		}
		w := httptest.NewRecorder()
		k.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/starts?key=step&namespace=default", nil))
		var list []Start
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || !cmp.Equal(list, k.Starts()[:5]) {
			t.Errorf("GET /starts?key=step: %v, %v", list, err)
		}
	})
}

// A kubelet that comes back goes on where the pods are, and counts none twice.
func TestRestartOfKubelet(t *testing.T) {
	file := filepath.Join(t.TempDir(), "starts")
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k, stop := c.run(Config{StartsFile: file})
		c.create(newPod("ended", ""))
		c.create(newPod("running", "after: 10s"))
		c.create(newPod("waiting", "{pending: 5s, after: 1s}"))
		c.create(newPod("settling", "settle: 5s"))
		c.create(newPod("stopping", "{do: run, grace: 5s}"))
		p := newPod("crashing", "[{do: fail}, {do: run}]")
		p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		c.create(p)
		synctest.Wait()
		c.delete("stopping", 30)
		time.Sleep(500 * time.Millisecond)
		stop()
		before := k.Starts()
		if len(before) != 5 {
			t.Fatalf("starts %v; want 5", before)
		}

		// The process may have been killed in the middle of a line.
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(`{"key":"torn`)
		f.Close()

		time.Sleep(2500 * time.Millisecond)
		c.delete("waiting", 30)
		k, stop = c.run(Config{StartsFile: file})
		if d := cmp.Diff(before, k.Starts()); d != "" {
			t.Errorf("starts read (-want +got):\n%s", d)
		}
		time.Sleep(time.Minute)
		for name, want := range map[string]string{
			"ended":    "0s Succeeded main=0/Completed Initialized",
			"running":  "10s Succeeded main=0/Completed Initialized",
			"waiting":  "3s gone",
			"settling": "5s Succeeded main=0/Completed Initialized",
			"stopping": "8s gone",
			"crashing": "3s Running main=running#1<1/Error " + up,
		} {
			if got := c.versions(name); got[len(got)-1] != want {
				t.Errorf("%s: %q; want %q in the end", name, got, want)
			}
		}
		if got := k.Starts(); len(got) != 6 || got[5].Pod != "crashing" {
			t.Errorf("starts %v; want one more, of crashing", got)
		}

		stop()
		k, _ = c.run(Config{StartsFile: file})
		c.create(func() *corev1.Pod {
			p := newPod("next", "[{do: fail}, {do: fail}, {do: succeed}]")
			p.Annotations[KeyAnnotation] = "default/crashing"
			return p
		}())
		synctest.Wait()
		if got := c.pod("next").Status.Phase; got != corev1.PodSucceeded {
			t.Errorf("the third start of a key is %s; want Succeeded", got)
		}
	})
}

// A start that was recorded but not shown is not made again.
func TestStartBeforeStatus(t *testing.T) {
	file := filepath.Join(t.TempDir(), "starts")
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		_, stop := c.run(Config{StartsFile: file})
		c.create(newPod("p", "{do: restart, after: 2s}"))
		c.create(newPod("q", "{pending: 2s, after: 2s}"))
		time.Sleep(time.Second)
		c.mu.Lock()
		c.refuse = refuseWrites(1 << 30)
		c.mu.Unlock()
		time.Sleep(1500 * time.Millisecond) // p restarts and q starts, but no status says so
		stop()
		c.mu.Lock()
		c.refuse = nil
		c.mu.Unlock()
		k, _ := c.run(Config{StartsFile: file})
		time.Sleep(time.Minute)
		want := []string{
			"0s Running main=running " + up,
			"2.5s Running main=running#1<1/Error " + up,
			"4s Succeeded main=0/Completed#1<1/Error Initialized",
		}
		if d := cmp.Diff(want, c.versions("p")); d != "" {
			t.Errorf("versions of p (-want +got):\n%s", d)
		}
		want = []string{
			"0s Pending main=ContainerCreating Initialized",
			"2.5s Running main=running " + up,
			"4s Succeeded main=0/Completed Initialized",
		}
		if d := cmp.Diff(want, c.versions("q")); d != "" {
			t.Errorf("versions of q (-want +got):\n%s", d)
		}
		if n := len(k.Starts()); n != 3 {
			t.Errorf("%d starts; want 3", n)
		}
	})
}

// Without a file, pods that run go on, and are not counted.
func TestRestartWithoutFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		_, stop := c.run(Config{})
		c.create(newPod("p", "after: 10s"))
		time.Sleep(time.Second)
		stop()
		k, _ := c.run(Config{})
		time.Sleep(time.Minute)
		want := []string{
			"0s Running main=running " + up,
			"10s Succeeded main=0/Completed Initialized",
		}
		c.became("p", want)
		if got := k.Starts(); len(got) != 0 {
			t.Errorf("starts %v; want none", got)
		}
	})
}

// A pod whose start cannot be recorded waits until it can.
func TestUnrecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k, _ := c.run(Config{StartsFile: filepath.Join(t.TempDir(), "starts")})
		synctest.Wait()
		k.ledger.mu.Lock()
		good := k.ledger.file
		bad, err := os.Open(good.Name()) // not for writing
		if err != nil {
			t.Fatal(err)
		}
		defer bad.Close()
		k.ledger.file = bad
		k.ledger.mu.Unlock()
		c.create(newPod("p", "do: restart"))
		time.Sleep(time.Minute)
		if got := c.versions("p"); len(got) > 0 || len(k.Starts()) > 0 {
			t.Errorf("versions %q, starts %v; want none", got, k.Starts())
		}
		k.ledger.mu.Lock()
		k.ledger.file = good
		k.ledger.mu.Unlock()
		time.Sleep(time.Minute)
		if got := c.pod("p").Status.Phase; got != corev1.PodSucceeded || len(k.Starts()) != 2 {
			t.Errorf("phase %s, starts %v; want Succeeded after two starts", got, k.Starts())
		}
	})
}

func TestBadStartsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "starts")
	if err := os.WriteFile(file, []byte("{\"key\":\"a\"}\nwhat\n{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := New(Config{Client: newCluster(t), StartsFile: file})
	if want := file + ":2: "; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("New: %v; want an error at %s", err, want)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("New without a client: no error")
	}
}

// Nothing happens to the pods of a frozen node, and nothing is forgotten.
func TestFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.run(Config{})
		c.create(newPod("running", "after: 5s"))
		c.create(newPod("collected", "after: 5s"))
		c.create(newPod("deleted", "do: run"))
		time.Sleep(time.Second)
		c.freeze("n-0", true)
		synctest.Wait()
		c.create(newPod("new", ""))
		c.delete("deleted", 30)
		time.Sleep(time.Minute)
		c.change("collected", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
		time.Sleep(time.Second)
		frozen := map[string]int{"running": 1, "collected": 2, "deleted": 2, "new": 0}
		for name, want := range frozen {
			if got := c.versions(name); len(got) != want {
				t.Errorf("%s: %q; want %d while the node is frozen", name, got, want)
			}
		}
		c.freeze("n-0", false)
		time.Sleep(time.Minute)
		for name, want := range map[string]string{
			"running":   "1m2s Succeeded main=0/Completed Initialized",
			"collected": "1m1s Failed main=running " + up,
			"deleted":   "1m2s gone",
			"new":       "1m2s Succeeded main=0/Completed Initialized",
		} {
			if got := c.versions(name); got[len(got)-1] != want {
				t.Errorf("%s: %q; want %q in the end", name, got, want)
			}
		}
	})
}

// A node that comes, goes, freezes and wakes in no time strands no pod.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.run(Config{})
		synctest.Wait()
		nodes := c.CoreV1().Nodes()
		for i := range 50 {
			name := fmt.Sprint("p", i)
			if i%2 == 0 {
				c.freeze("n-0", true)
			} else if err := nodes.Delete(t.Context(), "n-0", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				synctest.Wait()
			}
			c.create(newPod(name, ""))
			if i%2 == 0 {
				c.freeze("n-0", false)
			} else if err := CreateNodes(t.Context(), c, NodeTemplate{Prefix: "n"}, 0, 1); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := c.pod(name).Status.Phase; got != corev1.PodSucceeded {
				t.Fatalf("%s is %s; want Succeeded", name, got)
			}
		}
	})
}

// A server that refuses what it is asked for loses nothing.
func TestFailingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k, _ := c.run(Config{})
		synctest.Wait()
		c.mu.Lock()
		c.refuse = refuseWrites(20)
		c.mu.Unlock()
		c.create(newPod("ok", ""))
		c.create(newPod("evicted", "{do: evict, after: 100ms}"))
		c.create(newPod("deleted", "do: run"))
		synctest.Wait()
		c.delete("deleted", 30)
		time.Sleep(10 * time.Second)
		for name, want := range map[string]string{
			"ok":      "Succeeded main=0/Completed Initialized",
			"evicted": "Failed(Evicted) main=137/Error Initialized DisruptionTarget",
			"deleted": "gone",
		} {
			got := c.versions(name)
			if !strings.HasSuffix(got[len(got)-1], "s "+want) {
				t.Errorf("%s: %q; want %q in the end", name, got, want)
			}
		}
		if n := len(k.Starts()); n != 3 {
			t.Errorf("%d starts; want 3", n)
		}
		events := c.reported()
		slices.Sort(events)
		if d := cmp.Diff([]string{
			"Pod Evicted: The node was low on resource: memory.",
			"spec.containers{main} Killing: Stopping container main",
			"spec.containers{main} Killing: Stopping container main",
		}, events); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
	})
}

// refuseWrites refuses the first n writes.
func refuseWrites(n int) func(a clienttesting.Action) error {
	return func(a clienttesting.Action) error {
		switch a.GetVerb() {
		case "create", "update", "patch", "delete":
			if n--; n >= 0 {
				return apierrors.NewInternalError(errors.New("etcd has no leader"))
			}
		}
		return nil
	}
}

// Where events are forbidden, as in a namespace that is being deleted, pods end
// all the same.
func TestForbiddenEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.refuse = func(a clienttesting.Action) error {
			if a.GetResource().Resource == "events" {
				return apierrors.NewForbidden(a.GetResource().GroupResource(), "", errors.New("the namespace is being terminated"))
			}
			return nil
		}
		c.run(Config{})
		c.create(newPod("p", "do: run"))
		synctest.Wait()
		c.delete("p", 30)
		synctest.Wait()
		if got := c.versions("p"); got[len(got)-1] != "0s gone" {
			t.Errorf("versions %q; want it gone", got)
		}
	})
}

// Another client changes labels and finalizers all the time.
func TestConcurrentClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.run(Config{})
		synctest.Wait()
		p := newPod("p", "after: 1s")
		p.Finalizers = []string{"kfs.dev/outcome"}
		c.create(p)
		time.Sleep(time.Second - time.Nanosecond)
		// The kubelet writes next, and knows nothing of this yet.
		conflict := true
		c.mu.Lock()
		c.refuse = func(a clienttesting.Action) error {
			if a.GetSubresource() == "status" && conflict {
				conflict = false
				p, err := c.find("default", "p")
				if err != nil {
					return err
				}
				p.Finalizers = nil
				p.Labels = map[string]string{"done": "yes"}
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "kfs.dev/seen", Status: corev1.ConditionTrue})
				c.store("MODIFIED", p)
			}
			return nil
		}
		c.mu.Unlock()
		time.Sleep(time.Second)
		got := c.pod("p")
		if got.Status.Phase != corev1.PodSucceeded || len(got.Finalizers) > 0 || got.Labels["done"] != "yes" {
			t.Errorf("phase %s, finalizers %v, labels %v; want all of both clients", got.Status.Phase, got.Finalizers, got.Labels)
		}
		if !strings.Contains(gist(got), "kfs.dev/seen") {
			t.Errorf("%s has lost a condition", gist(got))
		}
	})
}

// A pod of the same name is another pod.
func TestSameName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		k, _ := c.run(Config{})
		for range 3 {
			c.create(newPod("p", "after: 1h"))
			synctest.Wait()
			c.delete("p", 0)
		}
		c.create(newPod("p", "after: 1s"))
		time.Sleep(5 * time.Second)
		if got := c.pod("p").Status.Phase; got != corev1.PodSucceeded {
			t.Errorf("phase %s; want Succeeded", got)
		}
		if n := len(k.Starts()); n != 4 {
			t.Errorf("%d starts; want 4", n)
		}
	})
}

// Many pods that succeed at once take one write each.
func TestMany(t *testing.T) {
	const n = 2000
	c := newCluster(t)
	k, _ := c.run(Config{StartsFile: filepath.Join(t.TempDir(), "starts")})
	began := time.Now()
	for i := range n {
		c.create(newPod(fmt.Sprint("p", i), ""))
	}
	ended := 0
	c.wait(func() bool {
		ended = 0
		for _, p := range c.pods {
			if done(p) {
				ended++
			}
		}
		return ended == n
	})
	t.Logf("%d pods in %v", n, time.Since(began))
	if c.writes != n {
		t.Errorf("%d writes of statuses; want %d", c.writes, n)
	}
	if got := len(k.Starts()); got != n {
		t.Errorf("%d starts; want %d", got, n)
	}
}
