package k8s

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// TestPending shows why a pod does not start, as its status says, and which
// limit it has.
func TestPending(t *testing.T) {
	const backoff = `Back-off pulling image "x": ErrImagePull: `
	condition := func(reason, message string) podChange {
		return func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: message}}
		}
	}
	for _, tt := range []struct {
		pod             *corev1.Pod
		kind            waitKind
		reason, message string
	}{
		{podOf(noNode), waitsOther, "", ""},
		{podOf(waits(mainContainer, "ContainerCreating", "")), waitsOther, "", ""},
		{podOf(waits(mainContainer, "PodInitializing", "")), waitsOther, "", ""},
		{podOf(noNode, condition(corev1.PodReasonUnschedulable, "0/3 nodes are available: 3 Insufficient cpu.")), waitsScheduler, "no node for it: 0/3 nodes are available: 3 Insufficient cpu.", ""},
		{podOf(noNode, condition(corev1.PodReasonSchedulingGated, "Scheduling is blocked due to non-empty scheduling gates")), waitsOther, "held back by its scheduling gates", "Scheduling is blocked due to non-empty scheduling gates"},

		{podOf(waits(mainContainer, "InvalidImageName", `couldn't parse image name "A b"`)), waitsImage, "the image cannot be pulled: InvalidImageName", `couldn't parse image name "A b"`},
		{podOf(waits(mainContainer, "ErrImageNeverPull", "not present with pull policy of Never")), waitsImage, "the image cannot be pulled: ErrImageNeverPull", "not present with pull policy of Never"},
		{podOf(waits(mainContainer, "ErrImagePull", "dial tcp: lookup registry: no such host")), waitsPull, "the image cannot be pulled", "dial tcp: lookup registry: no such host"},
		{podOf(waits(mainContainer, "ImagePullBackOff", backoff+"429 Too Many Requests")), waitsPull, "the image cannot be pulled", backoff + "429 Too Many Requests"},
		{podOf(waits(mainContainer, "ImagePullBackOff", backoff+"registry/x:1: not found")), waitsImage, "the image cannot be pulled", backoff + "registry/x:1: not found"},
		{podOf(waits(mainContainer, "ErrImagePull", "unexpected status: 401 Unauthorized")), waitsImage, "the image cannot be pulled", "unexpected status: 401 Unauthorized"},
		{podOf(waits("load", "ImagePullBackOff", backoff+"timeout"), waits(mainContainer, "PodInitializing", "")), waitsPull, `container "load": the image cannot be pulled`, backoff + "timeout"},

		{podOf(waits(mainContainer, "CreateContainerConfigError", `secret "token" not found`)), waitsConfig, `secret "token" not found`, ""},
		{podOf(waits("load", "CreateContainerConfigError", `couldn't find key a in ConfigMap ns/c`)), waitsConfig, `container "load": couldn't find key a in ConfigMap ns/c`, ""},
		{podOf(waits(mainContainer, "CreateContainerConfigError", "context deadline exceeded")), waitsPull, "context deadline exceeded", ""},
		{podOf(waits(mainContainer, "CreateContainerConfigError", "failed to sync configmap cache: timed out waiting for the condition")), waitsPull, "failed to sync configmap cache: timed out waiting for the condition", ""},
		{podOf(waits(mainContainer, "CreateContainerError", "no space left on device")), waitsPull, "cannot be started: CreateContainerError", "no space left on device"},
		{podOf(waits(ioContainer, "CrashLoopBackOff", "back-off 10s")), waitsPull, `container "kfs-io": cannot be started: CrashLoopBackOff`, "back-off 10s"},
	} {
		if kind, reason, message := pending(tt.pod); kind != tt.kind || reason != tt.reason || message != tt.message {
			t.Errorf("got  %d, %q, %q\nwant %d, %q, %q", kind, reason, message, tt.kind, tt.reason, tt.message)
		}
	}
}

// TestByEvents shows what the events of a pod tell where its status does not.
func TestByEvents(t *testing.T) {
	type event struct {
		second          int
		reason, message string
	}
	mount := event{5, "FailedMount", "MountVolume.SetUp failed for volume \"v\" : configmap \"c\" not found\nmore"}
	for _, tt := range []struct {
		events []event
		kind   waitKind
		reason string
	}{
		{nil, waitsOther, ""},
		{[]event{{1, "Scheduled", "Successfully assigned"}}, waitsOther, ""},
		{[]event{{1, "Scheduled", ""}, mount}, waitsMount, `FailedMount: MountVolume.SetUp failed for volume "v" : configmap "c" not found`},
		{[]event{mount, {1, "Scheduled", ""}}, waitsMount, `FailedMount: MountVolume.SetUp failed for volume "v" : configmap "c" not found`}, // a list has no order
		{[]event{mount, {9, "Pulling", `Pulling image "x"`}}, waitsOther, `Pulling: Pulling image "x"`},                                      // mounted in the end
		{[]event{mount, {9, "Pulled", ""}, {10, "Created", ""}}, waitsOther, ""},
		{[]event{{1, "FailedScheduling", "0/1 nodes"}, {3, "Scheduled", ""}}, waitsOther, ""},
		{[]event{{1, "FailedScheduling", "0/1 nodes"}, {3, "TriggeredScaleUp", "pod triggered scale-up: 1->2"}}, waitsScheduler, "TriggeredScaleUp: pod triggered scale-up: 1->2"},
		{[]event{{2, "FailedCreate", `Error creating: pods "x" is forbidden: exceeded quota`}}, waitsOther, `FailedCreate: Error creating: pods "x" is forbidden: exceeded quota`},
	} {
		var events []corev1.Event
		for _, e := range tt.events {
			events = append(events, corev1.Event{Reason: e.reason, Message: e.message, LastTimestamp: at(e.second)})
		}
		if kind, reason := byEvents(events); kind != tt.kind || reason != tt.reason {
			t.Errorf("%v: %d, %q; want %d, %q", tt.events, kind, reason, tt.kind, tt.reason)
		}
	}
	// Events of the new API have only one of the times.
	old := corev1.Event{Reason: "FailedScheduling", EventTime: metav1.MicroTime(at(1))}
	created := corev1.Event{Reason: "FailedMount", ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(2)}}
	if kind, _ := byEvents([]corev1.Event{created, old}); kind != waitsMount {
		t.Errorf("the latest of two events is of kind %d; want %d", kind, waitsMount)
	}
}

// TestLimits shows the default limits: what cannot get better fails within half
// a minute, and is named before that.
func TestLimits(t *testing.T) {
	l := Limits{}.withDefaults()
	for _, tt := range []struct {
		kind waitKind
		want time.Duration
	}{
		{waitsImage, 20 * time.Second}, {waitsConfig, 30 * time.Second}, {waitsPull, 5 * time.Minute}, {waitsMount, 5 * time.Minute},
		{waitsScheduler, 0}, {waitsOther, 0},
	} {
		if got := l.limit(tt.kind); got != tt.want {
			t.Errorf("limit(%d) = %v; want %v", tt.kind, got, tt.want)
		}
	}
	if l.Slow > 5*time.Second {
		t.Errorf("events are looked at after %v; want within seconds", l.Slow)
	}
	m := newPodMaker(engine.RunInfo{}, &dag.Pipeline{}, Options{})
	gpu := dag.Object{}
	gpu.Set("1", "resources", "limits", "nvidia.com/gpu")
	for _, tt := range []struct {
		a    engine.Attempt
		want time.Duration
	}{
		{engine.Attempt{}, time.Hour},
		{engine.Attempt{Container: gpu}, 24 * time.Hour},
		{engine.Attempt{Container: gpu, PendingTimeout: time.Minute}, time.Minute},
	} {
		if got := m.pendingLimit(&tt.a); got != tt.want {
			t.Errorf("pending limit %v; want %v", got, tt.want)
		}
	}
}

// TestOverLimit shows when a pod is given up: the time of each kind of trouble
// counts from when it was first seen, and what comes and goes counts on.
func TestOverLimit(t *testing.T) {
	r := &Run{limits: Limits{BadImage: 20 * time.Second, PullBackoff: 5 * time.Minute, Mount: time.Minute}.withDefaults()}
	type look struct {
		second int
		kind   waitKind // by the status
		events waitKind // by the events
		over   bool
	}
	for _, tt := range []struct {
		name  string
		looks []look
	}{
		{"bad image", []look{{1, waitsImage, 0, false}, {20, waitsImage, 0, false}, {22, waitsImage, 0, true}}},
		{"two messages in turn", []look{{1, waitsImage, 0, false}, {10, waitsPull, 0, false}, {22, waitsImage, 0, true}}},
		{"better, then bad again", []look{{1, waitsImage, 0, false}, {15, waitsOther, 0, false}, {30, waitsImage, 0, false}, {51, waitsImage, 0, true}}},
		{"mount, by events", []look{{1, 0, waitsMount, false}, {50, 0, waitsMount, false}, {62, 0, waitsMount, true}}},
		{"mounted", []look{{1, 0, waitsMount, false}, {50, 0, waitsOther, false}, {62, 0, waitsOther, false}, {100, 0, waitsMount, false}}},
		{"no node", []look{{1, waitsScheduler, 0, false}, {3000, waitsScheduler, 0, false}, {3601, waitsScheduler, 0, true}}},
		{"nobody knows", []look{{3599, 0, 0, false}, {3601, 0, 0, true}}},
	} {
		a := &attempt{since: map[waitKind]time.Time{}, made: lookAt, limit: time.Hour}
		for _, l := range tt.looks {
			a.seen.waits, a.whyKind = l.kind, l.events
			if got := r.overLimit(a, at(l.second).Time); got != l.over {
				t.Errorf("%s: after %d s over the limit: %v; want %v", tt.name, l.second, got, l.over)
			}
		}
	}
}

// TestHopeless tells apart what a registry says.
func TestHopeless(t *testing.T) {
	for _, tt := range []struct {
		message string
		want    bool
	}{
		{`failed to pull and unpack image "localhost:5000/x:1": failed to resolve image: localhost:5000/x:1: not found`, true},
		{"pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed", true},
		{`failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://r/token: 401 Unauthorized`, true},
		{"no match for platform in manifest", true},
		{`Get "https://r/v2/": dial tcp 10.0.0.1:443: connect: connection refused`, false},
		{`Get "https://r/v2/": net/http: TLS handshake timeout`, false},
		{"toomanyrequests: You have reached your pull rate limit", false},
		{"unexpected status: 503 Service Unavailable", false},
		{"", false},
	} {
		if got := hopeless(tt.message); got != tt.want {
			t.Errorf("hopeless(%q) = %v; want %v", tt.message, got, tt.want)
		}
	}
}

// TestContainerName shows that the step's own container is not named.
func TestContainerName(t *testing.T) {
	if got := containerName(mainContainer); got != "" {
		t.Errorf("%q; want nothing", got)
	}
	if got := containerName("db"); !strings.Contains(got, `"db"`) {
		t.Errorf("%q; want its name", got)
	}
}
