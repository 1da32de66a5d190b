package k8s

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/launch"
)

// lookAt is when the pods of these tests are made; they are looked at an hour
// later.
var lookAt = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// A podChange makes a pod of a test what it is.
type podChange func(*corev1.Pod)

// podOf returns a plain pod that has a node, changed.
func podOf(changes ...podChange) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "s-a1", Labels: map[string]string{attemptLabel: "s-a1"}, Annotations: map[string]string{}, CreationTimestamp: metav1.NewTime(lookAt)},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: mainContainer}}},
		Status:     corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: mainContainer}}},
	}
	for _, change := range changes {
		change(pod)
	}
	return pod
}

func at(second int) metav1.Time {
	return metav1.NewTime(lookAt.Add(time.Duration(second) * time.Second))
}

func hasPhase(phase corev1.PodPhase) podChange {
	return func(p *corev1.Pod) { p.Status.Phase = phase }
}

// says sets reason and message of the status.
func says(reason, message string) podChange {
	return func(p *corev1.Pod) { p.Status.Reason, p.Status.Message = reason, message }
}

func deleted(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: lookAt.Add(40 * time.Second)} }

func noNode(p *corev1.Pod) { p.Spec.NodeName, p.Status.ContainerStatuses = "", nil }

// endedBy is the annotation of a pod that kfs has ended.
func endedBy(cause engine.Cause, reason string, second int) podChange {
	return func(p *corev1.Pod) {
		text, _ := json.Marshal(ending{Cause: cause, Reason: reason, At: at(second).Time})
		p.Annotations[endAnnotation] = string(text)
	}
}

func disruptedBy(reason string) podChange {
	return func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason})
	}
}

// statusOf returns the status of a container; those of init containers are made.
func statusOf(p *corev1.Pod, name string) *corev1.ContainerStatus {
	if name == mainContainer {
		return &p.Status.ContainerStatuses[0]
	}
	for i := range p.Status.InitContainerStatuses {
		if p.Status.InitContainerStatuses[i].Name == name {
			return &p.Status.InitContainerStatuses[i]
		}
	}
	p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: name})
	p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, corev1.ContainerStatus{Name: name})
	return &p.Status.InitContainerStatuses[len(p.Status.InitContainerStatuses)-1]
}

func runs(name string) podChange {
	return func(p *corev1.Pod) {
		c := statusOf(p, name)
		c.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(10)}}
		c.ContainerID = "containerd://1"
		if p.Status.Phase == corev1.PodPending && name == mainContainer {
			p.Status.Phase = corev1.PodRunning
		}
	}
}

// exited ends a container that began after 10 s and ran for 20.
func exited(name string, code int32, reason, message string) podChange {
	return func(p *corev1.Pod) {
		runs(name)(p)
		c := statusOf(p, name)
		c.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message, StartedAt: at(10), FinishedAt: at(30)}}
	}
}

func waits(name, reason, message string) podChange {
	return func(p *corev1.Pod) {
		statusOf(p, name).State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
}

// unlocated is what a kubelet writes for a container of a pod that is over, if
// it does not know it; the container may never have been there.
func unlocated(name string) podChange {
	return func(p *corev1.Pod) {
		statusOf(p, name).State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: 137, Reason: statusUnknown, Message: "The container could not be located when the pod was terminated"}}
	}
}

// restarted sets how often a container was started again, and its end before.
func restarted(name string, n int32, code int32, reason string) podChange {
	return func(p *corev1.Pod) {
		c := statusOf(p, name)
		c.RestartCount = n
		c.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}
	}
}

// withLauncher makes a pod one whose command the launcher runs.
func withLauncher(p *corev1.Pod) {
	runs(ioContainer)(p)
	p.Spec.InitContainers[len(p.Spec.InitContainers)-1].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	spec := launch.Spec{Outputs: []launch.Output{{Name: "out", Path: "/out"}}}
	p.Spec.Containers[0].Command = []string{launch.Program, "run", "--spec=" + spec.Encode(), "--", "true"}
}

func sidecar(name string) podChange {
	return func(p *corev1.Pod) {
		statusOf(p, name)
		p.Spec.InitContainers[len(p.Spec.InitContainers)-1].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	}
}

func memory(limit string) podChange {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)}
	}
}

// TestLook shows what is made of a pod: once an attempt has ended, its cause
// and why.
func TestLook(t *testing.T) {
	const (
		finished = engine.PhaseFinished
		yes, no  = true, false
	)
	failed, succeeded := hasPhase(corev1.PodFailed), hasPhase(corev1.PodSucceeded)
	for _, tt := range []struct {
		name    string
		pod     *corev1.Pod
		phase   engine.Phase
		cause   engine.Cause
		reason  string // a part of it; "" is none at all
		decided bool
	}{
		// Of its own.
		{"new", podOf(noNode), engine.PhasePending, "", "", no},
		{"creating", podOf(waits(mainContainer, "ContainerCreating", "")), engine.PhasePending, "", "", no},
		{"running", podOf(runs(mainContainer)), engine.PhaseRunning, "", "", no},
		{"exited with 0, before its phase says so", podOf(exited(mainContainer, 0, "Completed", "")), finished, engine.Exited, "", yes},
		{"succeeded", podOf(exited(mainContainer, 0, "Completed", ""), succeeded), finished, engine.Exited, "", yes},
		{"exited with 3, before its phase says why", podOf(exited(mainContainer, 3, "Error", "")), finished, engine.Exited, "exited with 3", no},
		{"failed", podOf(exited(mainContainer, 3, "Error", ""), failed), finished, engine.Exited, "exited with 3", yes},
		{"no program", podOf(exited(mainContainer, 127, "Error", ""), failed), finished, engine.Exited, "a command was not found", yes},
		{"another container failed", podOf(exited(mainContainer, 0, "Completed", ""), failed), finished, engine.Exited, "", yes},
		{"cannot start", podOf(exited(mainContainer, 128, "StartError", `failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "nope": executable file not found in $PATH: unknown`), failed),
			finished, engine.CannotRun, `cannot run: exec: "nope": executable file not found in $PATH`, yes},
		{"deadline", podOf(exited(mainContainer, 143, "Error", ""), failed, says("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")), finished, engine.TimedOut, "deadline", yes},
		{"deadline, trapped", podOf(exited(mainContainer, 0, "Completed", ""), failed, says("DeadlineExceeded", "")), finished, engine.TimedOut, "deadline", yes},
		{"deadline, before it began", podOf(unlocated(mainContainer), failed, says("DeadlineExceeded", "")), finished, engine.CannotRun, "did not start before its deadline", yes},

		// Memory.
		{"out of memory", podOf(exited(mainContainer, 137, "OOMKilled", ""), failed, memory("64Mi")), finished, engine.Exited, "out of memory, exited with 137: its limit is 64Mi", yes},
		{"out of memory without a limit", podOf(exited(mainContainer, 137, "OOMKilled", ""), failed), finished, engine.Exited, "its node ran out of memory", yes},
		{"out of memory and exited with 0", podOf(exited(mainContainer, 0, "OOMKilled", ""), succeeded, memory("64Mi")), finished, engine.Exited, "exited with 0, but something in it ran out of memory: its limit is 64Mi", yes},

		// Before the start.
		{"deleted without a node", podOf(noNode, deleted), finished, engine.NotStarted, "its pod was deleted by somebody, before it was started", yes},
		{"preempted without a node", podOf(noNode, deleted, disruptedBy("PreemptionByScheduler")), finished, engine.NotStarted, "preempted by a pod of higher priority, before it was started", yes},
		{"being deleted, and the node has not said", podOf(waits(mainContainer, "ContainerCreating", ""), deleted), engine.PhasePending, "", "", no},
		{"deleted while its image was pulled", podOf(unlocated(mainContainer), failed, deleted), finished, engine.NotStarted, "its pod was deleted by somebody, before it was started", yes},
		{"evicted while its image was pulled", podOf(unlocated(mainContainer), failed, deleted, disruptedBy("EvictionByEvictionAPI")), finished, engine.NotStarted, "evicted, before it was started", yes},
		{"refused by its node", podOf(func(p *corev1.Pod) { p.Status.ContainerStatuses = nil }, failed, says("UnexpectedAdmissionError", "Pod was rejected: Allocate failed due to no devices.")),
			finished, engine.NotStarted, "unexpectedAdmissionError: Pod was rejected: Allocate failed due to no devices, before it was started", yes},
		{"refused for another reason", podOf(func(p *corev1.Pod) { p.Status.ContainerStatuses = nil }, failed, says("TopologyAffinityError", "")), finished, engine.NotStarted, "topologyAffinityError, before it was started", yes},
		{"evicted by its node before the start", podOf(unlocated(mainContainer), failed, says("Evicted", "The node was low on resource: memory. ")), finished, engine.NotStarted, "evicted: The node was low on resource: memory, before it was started", yes},
		{"node gone before the start", podOf(waits(mainContainer, "ContainerCreating", ""), failed, deleted, disruptedBy("DeletionByPodGC")), finished, engine.NotStarted, "its node is gone, before it was started", yes},
		{"failed, nobody says why", podOf(waits(mainContainer, "ContainerCreating", ""), failed), finished, engine.NotStarted, "its pod failed, before it was started", yes},

		// Init containers and sidecars.
		{"init container failed", podOf(exited("load", 4, "Error", "no such file\n"), waits(mainContainer, "PodInitializing", ""), failed), finished, engine.Exited, `init container "load" exited with 4`, yes},
		{"deleted in an init container", podOf(exited("load", 143, "Error", ""), waits(mainContainer, "PodInitializing", ""), failed, deleted), finished, engine.Lost, "its pod was deleted by somebody, before its command was started", yes},
		{"evicted in an init container", podOf(exited("load", 137, "Error", ""), waits(mainContainer, "PodInitializing", ""), failed, says("Evicted", "Too much")), finished, engine.Lost, "evicted: Too much, before its command was started", yes},
		{"deleted after the init containers", podOf(exited("load", 0, "Completed", ""), unlocated(mainContainer), failed, deleted), finished, engine.Lost, "before its command was started", yes},
		{"deleted before the init containers", podOf(unlocated("load"), unlocated(mainContainer), failed, deleted), finished, engine.NotStarted, "before it was started", yes},
		{"deleted when only kfs-io ran", podOf(withLauncher, unlocated(mainContainer), failed, deleted), finished, engine.NotStarted, "before it was started", yes},
		{"deleted when a sidecar ran", podOf(sidecar("db"), exited("db", 0, "Completed", ""), unlocated(mainContainer), failed, deleted), finished, engine.Lost, "before its command was started", yes},
		{"a sidecar failed", podOf(sidecar("db"), exited("db", 1, "Error", ""), exited(mainContainer, 0, "Completed", ""), succeeded), finished, engine.Exited, "", yes},

		// Disruptions of what ran.
		{"evicted by its node", podOf(exited(mainContainer, 137, "Error", ""), failed, says("Evicted", "The node was low on resource: memory."), disruptedBy("TerminationByKubelet")), finished, engine.Lost, "evicted: The node was low on resource: memory", yes},
		{"evicted by its node, trapped", podOf(exited(mainContainer, 0, "Completed", ""), failed, says("Evicted", "The node was low on resource: memory."), disruptedBy("TerminationByKubelet")), finished, engine.Lost, "evicted: The node was low", yes},
		{"evicted and thrown away", podOf(unlocated(mainContainer), restarted(mainContainer, 0, 137, statusUnknown), failed, says("Evicted", "Usage of EmptyDir volume exceeds the limit.")), finished, engine.Lost, "evicted: Usage of EmptyDir volume exceeds the limit", yes},
		{"evicted and being thrown away", podOf(waits(mainContainer, "ContainerCreating", ""), restarted(mainContainer, 0, 137, statusUnknown), failed, says("Evicted", "Usage")), finished, engine.Lost, "evicted: Usage", yes},
		{"shutdown of its node", podOf(exited(mainContainer, 143, "Error", ""), failed, says("Terminated", "Pod was terminated in response to imminent node shutdown.")), finished, engine.Lost, "terminated: Pod was terminated in response to imminent node shutdown", yes},
		{"node gone while it ran", podOf(runs(mainContainer), failed, deleted, disruptedBy("DeletionByPodGC")), finished, engine.Vanished, "its node is gone, while it ran", yes},
		{"record lost", podOf(unlocated(mainContainer), restarted(mainContainer, 1, 137, statusUnknown), failed), finished, engine.Vanished, "lost the record of how it ended", yes},
		{"record lost, and deleted", podOf(unlocated(mainContainer), restarted(mainContainer, 0, 137, statusUnknown), failed, deleted), finished, engine.Vanished, "lost the record of how it ended", yes},
		{"another disruption", podOf(exited(mainContainer, 143, "Error", ""), failed, disruptedBy("WorkloadPreempted")), finished, engine.Lost, "was disrupted: WorkloadPreempted", yes},
		// These may have ended by themselves before: judge decides.
		{"evicted by request", podOf(exited(mainContainer, 143, "Error", ""), failed, deleted, disruptedBy("EvictionByEvictionAPI")), finished, engine.Exited, "exited with 143 (terminated)", yes},
		{"tainted", podOf(exited(mainContainer, 0, "Completed", ""), succeeded, deleted, disruptedBy("DeletionByTaintManager")), finished, engine.Exited, "", yes},
		{"being deleted", podOf(runs(mainContainer), deleted), engine.PhaseRunning, "", "its pod is being deleted by somebody", no},
		{"being evicted", podOf(runs(mainContainer), deleted, disruptedBy("EvictionByEvictionAPI")), engine.PhaseRunning, "", "is asked to end: evicted", no},

		// Ended by kfs.
		{"stopped, still running", podOf(runs(mainContainer), deleted, endedBy(engine.Stopped, "stopped", 20)), engine.PhaseRunning, "", "is asked to end", no},
		{"stopped", podOf(exited(mainContainer, 143, "Error", ""), deleted, endedBy(engine.Stopped, "stopped", 20)), finished, engine.Stopped, "stopped: exited with 143 (terminated)", yes},
		{"stopped, trapped", podOf(exited(mainContainer, 0, "Completed", ""), deleted, endedBy(engine.Stopped, "stopped", 20)), finished, engine.Stopped, "stopped", yes},
		{"stopped without a node", podOf(noNode, deleted, endedBy(engine.Stopped, "stopped", 20)), finished, engine.Stopped, "stopped", yes},
		{"given up", podOf(unlocated(mainContainer), failed, deleted, endedBy(engine.CannotRun, "did not start in 3s: no node", 20)), finished, engine.CannotRun, "did not start in 3s: no node", yes},
		{"given up, and begun", podOf(exited(mainContainer, 137, "Error", ""), failed, deleted, endedBy(engine.CannotRun, "did not start in 3s", 20)), finished, engine.Lost, "began when it was given up", yes},
		{"to be stopped, and ended before it was", podOf(exited(mainContainer, 0, "Completed", ""), endedBy(engine.Stopped, "stopped", 20)), finished, engine.Exited, "", yes},

		// Started again in one pod.
		{"started twice", podOf(exited(mainContainer, 0, "Completed", ""), restarted(mainContainer, 1, 1, "Error"), succeeded), finished, engine.Exited, "exited with 0, but its container was started 2 times in its pod", yes},
		{"started three times", podOf(exited(mainContainer, 5, "Error", ""), restarted(mainContainer, 2, 1, "Error"), failed), finished, engine.Exited, "exited with 5, but its container was started 3 times in its pod", yes},
		{"running again", podOf(runs(mainContainer), restarted(mainContainer, 1, 1, "Error")), engine.PhaseRunning, "", "", no},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := look(tt.pod, func(t time.Time) time.Time { return t }, lookAt.Add(time.Hour))
			if s.Phase != tt.phase || s.Cause != tt.cause || !strings.Contains(s.Reason, tt.reason) || tt.reason == "" && s.Reason != "" || s.decided != tt.decided {
				t.Errorf("phase %d, cause %q, reason %q, decided %v; want %d, %q, %q, %v", s.Phase, s.Cause, s.Reason, s.decided, tt.phase, tt.cause, tt.reason, tt.decided)
			}
			if s.ended != (s.Phase == finished) || s.ID != "s-a1" {
				t.Errorf("ended %v in phase %d of %q", s.ended, s.Phase, s.ID)
			}
			if s.Phase == finished && s.Finished.IsZero() {
				t.Error("finished, and nobody knows when")
			}
			if ran := s.Cause == engine.Exited && s.ran || s.Cause == engine.Vanished && s.Reason == "its node is gone, while it ran"; ran && !s.Started.Equal(at(10).Time) {
				t.Errorf("started %v; want %v", s.Started, at(10))
			}
			if (s.Cause == engine.NotStarted || s.Cause == engine.CannotRun) && !s.Started.IsZero() {
				t.Errorf("started %v; want never", s.Started)
			}
		})
	}
}

// TestLookTells shows what else a pod tells.
func TestLookTells(t *testing.T) {
	same := func(t time.Time) time.Time { return t }
	now := lookAt.Add(time.Hour)

	if s := look(podOf(unlocated(mainContainer), hasPhase(corev1.PodFailed), deleted), same, now); !s.unlocated || !s.stranger {
		t.Errorf("a container that nobody has seen: unlocated %v, deleted by a stranger %v; want true, true", s.unlocated, s.stranger)
	}
	if s := look(podOf(unlocated(mainContainer), restarted(mainContainer, 1, 137, statusUnknown), hasPhase(corev1.PodFailed)), same, now); s.unlocated {
		t.Error("a container whose record is lost has been seen")
	}
	if s := look(podOf(noNode, deleted, endedBy(engine.Stopped, "stopped", 1)), same, now); s.stranger || s.unlocated {
		t.Error("kfs has deleted it, not somebody")
	}
	s := look(podOf(withLauncher, exited(mainContainer, 0, "Completed", "kfs1:...")), same, now)
	if !s.launched || s.frame != "kfs1:..." || len(s.declared) != 1 || s.declared[0].Name != "out" || s.Message != "" {
		t.Errorf("of a launcher's pod: %+v; want its frame and what it declares", s)
	}
	if s := look(podOf(exited(mainContainer, 1, "Error", "last line\n"), hasPhase(corev1.PodFailed)), same, now); s.Message != "last line" || s.launched {
		t.Errorf("message %q; want the last lines of the log", s.Message)
	}
	condition := func(status corev1.ConditionStatus) podChange {
		return func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers, Status: status}}
		}
	}
	ended := exited(mainContainer, 0, "Completed", "")
	if look(podOf(ended), same, now).swept || look(podOf(ended, condition(corev1.ConditionTrue)), same, now).swept || !look(podOf(ended, condition(corev1.ConditionFalse)), same, now).swept {
		t.Error("a sandbox is gone if a condition says so")
	}
	gpu := podOf(func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")}
	})
	if !look(gpu, same, now).extended || look(podOf(memory("1Gi")), same, now).extended {
		t.Error("extended resources are those with a domain")
	}
	// What kfs has ended has ended after that, by the clock of whoever says when
	// it began.
	stopped := podOf(exited(mainContainer, 143, "Error", ""), deleted, endedBy(engine.Stopped, "stopped", 31))
	if s := look(stopped, same, now); !s.Finished.Equal(at(31).Time) {
		t.Errorf("finished %v; want not before it was stopped, at %v", s.Finished, at(31))
	}
	// Unless its own record says otherwise, which its events confirm or not.
	early := podOf(exited(mainContainer, 0, "Completed", ""), deleted, endedBy(engine.TimedOut, "", 35))
	s = look(early, same, now)
	if s.early == nil || s.Cause != engine.Exited || !s.Finished.Equal(at(30).Time) || !s.decided {
		t.Errorf("ended 5 s before it was stopped: %+v; want its own end, with a doubt", s)
	}
	if s.endBy(s.early); s.Cause != engine.TimedOut || s.Reason != "" || !s.Finished.Equal(at(35).Time) {
		t.Errorf("killed after all: %+v; want timed out", s.Observation)
	}
	// What may be started again has not ended for good.
	for name, change := range map[string]podChange{
		"pod":       func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure },
		"container": func(p *corev1.Pod) { p.Spec.Containers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways) },
		"rule":      func(p *corev1.Pod) { p.Spec.Containers[0].RestartPolicyRules = make([]corev1.ContainerRestartRule, 1) },
	} {
		for _, code := range []int{0, 1} {
			if s := look(podOf(exited(mainContainer, int32(code), "", ""), change), same, now); s.decided || !s.restarts {
				t.Errorf("exited with %d, restarted by its %s: decided %v", code, name, s.decided)
			}
			if s := look(podOf(exited(mainContainer, int32(code), "", ""), change, hasPhase(corev1.PodSucceeded)), same, now); !s.decided {
				t.Errorf("exited with %d, restarted by its %s, over: not decided", code, name)
			}
		}
	}
}

// TestLookClocks shows when a step began and ended if its node's clock, or that
// of the API server, is not this machine's.
func TestLookClocks(t *testing.T) {
	// The pod is made at 0, gets its node at 1, and the node takes it at once.
	// The command runs from 10 to 30, and this driver looks at 31.
	pod := func(ahead time.Duration, late time.Duration) *corev1.Pod {
		p := podOf(exited(mainContainer, 0, "Completed", ""))
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: at(1)}}
		shift := func(t metav1.Time) metav1.Time { return metav1.NewTime(t.Add(ahead)) }
		taken := shift(metav1.NewTime(at(1).Add(late)))
		p.Status.StartTime = &taken
		end := p.Status.ContainerStatuses[0].State.Terminated
		end.StartedAt, end.FinishedAt = shift(end.StartedAt), shift(end.FinishedAt)
		return p
	}
	for _, tt := range []struct {
		name           string
		ahead, late    time.Duration // of the node
		server         time.Duration // the server's clock and the nodes' are so much ahead of ours
		started, ended int
	}{
		{"equal", 0, 0, 0, 10, 30},
		{"a little ahead", time.Second, 0, 0, 11, 31},
		{"a little behind", -2 * time.Second, 0, 0, 8, 28},
		{"ahead by minutes", 10 * time.Minute, 0, 0, 10, 30},
		{"behind by minutes", -10 * time.Minute, 0, 0, 10, 30},
		{"behind by years", -300000 * time.Hour, 0, 0, 10, 30},
		{"a node that was late", 0, 8 * time.Second, 0, 10, 30},
		{"a server ahead", 0, 0, time.Hour, 10, 30},
		{"a server behind", 0, 0, -time.Hour, 10, 30},
		{"a server ahead and a node behind it", -time.Minute, 0, time.Hour, 10, 30},
	} {
		local := func(t time.Time) time.Time { return t.Add(-tt.server) }
		s := look(pod(tt.ahead, tt.late), local, local(at(31).Time))
		started, ended := int(s.Started.Sub(local(lookAt)).Seconds()), int(s.Finished.Sub(local(lookAt)).Seconds())
		if started != tt.started || ended != tt.ended {
			t.Errorf("%s: ran from %d to %d; want %d to %d", tt.name, started, ended, tt.started, tt.ended)
		}
	}

	// Without any time but wrong ones, nothing begins before its pod was made,
	// or after now.
	for _, second := range []int{-100, 100000} {
		p := podOf(runs(mainContainer))
		p.Status.ContainerStatuses[0].State.Running.StartedAt = at(second)
		s := look(p, func(t time.Time) time.Time { return t }, at(60).Time)
		if s.Started.Before(lookAt) || s.Started.After(at(60).Time) {
			t.Errorf("began at %v; want between %v and %v", s.Started, lookAt, at(60))
		}
	}
	var none metav1.Time
	p := podOf(runs(mainContainer))
	p.Status.ContainerStatuses[0].State.Running.StartedAt = none
	if s := look(p, func(t time.Time) time.Time { return t }, at(60).Time); !s.Started.IsZero() {
		t.Errorf("began at %v; want nobody knows", s.Started)
	}
}
