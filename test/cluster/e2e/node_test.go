//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/test/cluster/image"
	"github.com/kfs-project/kfs/test/cluster/parts"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// This file tests the real node: pods, their logs, their network, their images.

// TestJob runs a Job whose pod asks the API server who it is, at the address
// and with the token that every pod gets, and reads its log back.
func TestJob(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	ns := namespace(ctx, t, client)
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "whoami"},
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32),
			Template:     corev1.PodTemplateSpec{Spec: pod("", "whoami").Spec},
		},
	}
	if _, err := client.BatchV1().Jobs(ns).Create(ctx, job, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "the job to complete", func() error {
		j, err := client.BatchV1().Jobs(ns).Get(ctx, "whoami", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if j.Status.Failed > 0 {
			t.Fatalf("the job failed: %s", j.Status.String())
		}
		if j.Status.Succeeded != 1 {
			return fmt.Errorf("the job is %s", j.Status.String())
		}
		return nil
	})
	pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "job-name=whoami"})
	if err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != 1 {
		t.Fatalf("the job has %d pods, want 1", len(pods.Items))
	}
	p := pods.Items[0]
	if p.Spec.NodeName != supervisor.Node {
		t.Errorf("the job's pod ran on node %q, want the real one, %q", p.Spec.NodeName, supervisor.Node)
	}
	log := logs(ctx, t, client, ns, p.Name)
	for _, want := range []string{"201 Created\n", `"username":"system:serviceaccount:` + ns + `:default"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log of the job's pod lacks %s:\n%s", want, log)
		}
	}
}

// TestVersions asks the servers, and the programs, for the versions that they
// were stamped with.
func TestVersions(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	want := map[string]string{}
	for _, p := range parts.All() {
		want[p.Name] = p.Version
	}
	server, err := client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(want["kubernetes"], "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	if server.GitVersion != want["kubernetes"] || server.Major != major || server.Minor != minor {
		t.Errorf("the API server says that it is %s (%s.%s), want %s", server.GitVersion, server.Major, server.Minor, want["kubernetes"])
	}
	node, err := client.CoreV1().Nodes().Get(ctx, supervisor.Node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	info := node.Status.NodeInfo
	if info.KubeletVersion != want["kubernetes"] || info.ContainerRuntimeVersion != "containerd://"+strings.TrimPrefix(want["containerd"], "v") {
		t.Errorf("the node says %s and %s, want %s and containerd %s", info.KubeletVersion, info.ContainerRuntimeVersion, want["kubernetes"], want["containerd"])
	}
	for program, part := range map[string]string{
		"kube-scheduler":          "kubernetes",
		"kube-controller-manager": "kubernetes",
		"ctr":                     "containerd",
		"etcd":                    "etcd",
		"versitygw":               "versitygw",
	} {
		out, err := exec.CommandContext(ctx, up.Spec.Programs[program], "--version").CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(strings.TrimPrefix(want[part], "v"))) {
			t.Errorf("%s --version: %v\n%s\nwant %s", program, err, out, want[part])
		}
	}
}

// TestExec runs a command in a pod by kubectl, through the forwarder and
// through the fault proxy: both must pass connections that change protocol.
func TestExec(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	ns := namespace(ctx, t, client)
	create(ctx, t, client, ns, pod("sleeper", "sleep", "1h"))
	waitPhase(ctx, t, client, ns, "sleeper", corev1.PodRunning)
	for _, kubeconfig := range []string{up.Kubeconfig(), up.FaultsKubeconfig()} {
		cmd := exec.CommandContext(ctx, up.Spec.Programs["kubectl"], "--kubeconfig", kubeconfig, "-n", ns, "exec", "sleeper", "--", "/probe", "print", "hello")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("hello\n")) {
			t.Errorf("%s: %v\n%s", cmd, err, out)
		}
	}
}

// TestRegistries pulls an image from the registry that everybody may use and
// from the one that wants a login, without and with the secret of it.
func TestRegistries(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	ns := namespace(ctx, t, client)
	img, err := image.Build(ctx, image.Config{Programs: []string{"./probe"}, Env: []string{"FROM=registry"}})
	if err != nil {
		t.Fatal(err)
	}
	login := up.Spec.PullLogin
	open, private := up.Registry()+"/probe:1", up.PrivateRegistry()+"/probe:1"
	if err := image.Push(ctx, open, img, "", ""); err != nil {
		t.Fatal(err)
	}
	if err := image.Push(ctx, private, img, login.User, login.Password); err != nil {
		t.Fatal(err)
	}
	if err := image.Push(ctx, private, img, login.User, "wrong"); err == nil {
		t.Error("the private registry took an image with a wrong password")
	}
	config, err := json.Marshal(map[string]any{"auths": map[string]any{up.PrivateRegistry(): map[string]string{"username": login.User, "password": login.Password}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pull"},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: config},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, image string
		secret      string
		want        func(*corev1.Pod) bool
		what        string
	}{
		{"open", open, "", succeeded, "succeeded"},
		{"no-login", private, "", pullFails, "refused its image"},
		{"login", private, "pull", succeeded, "succeeded"},
	}
	for _, tt := range tests {
		p := pod(tt.name, "print", "pulled")
		p.Spec.Containers[0].Image = tt.image
		p.Spec.Containers[0].ImagePullPolicy = corev1.PullAlways
		if tt.secret != "" {
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: tt.secret}}
		}
		create(ctx, t, client, ns, p)
	}
	for _, tt := range tests {
		waitPod(ctx, t, client, ns, tt.name, tt.what, tt.want)
	}
}

func succeeded(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded }

func pullFails(p *corev1.Pod) bool {
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff") {
			return true
		}
	}
	return false
}
