//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// This file runs the containers of the pipeline on a real cluster.

const (
	// clusterImage is what images-cluster.yaml names.
	clusterImage = "localhost/kfs-mnist:dev"

	// deployer is the account of cluster.yaml.
	deployer = "mnist-deployer"

	// claim is the claim of newNamespace: a folder that pods mount at /mnt.
	claim = "mnist"
)

// TestE2EMnistDeployers trains a model in a pod, deploys a server and a page
// by two more, and asks the server for predictions.
func TestE2EMnistDeployers(t *testing.T) {
	loadImage(t)
	ns := newNamespace(t)
	train := func(steps string) string {
		return runPod(t, ns, "train-"+steps, "", "Succeeded", "/opt/model.py", "--tf-export-dir", "/mnt/export", "--tf-train-steps", steps)
	}
	serve := func(name, account, phase string) string {
		return runPod(t, ns, name, account, phase, "--model-export-path", "/mnt/export", "--server-name", "mnist-service",
			"--cluster-name", "mnist-pipeline", "--pvc-name", claim)
	}
	generation := func() string {
		return kubectl(t, "", "-n", ns, "get", "deployment", "mnist-service", "-o", "jsonpath={.metadata.generation}")
	}
	train("200")
	for _, tt := range []struct{ name, account, want string }{
		{"serve-without-account", "", "--set service_account=NAME"},
		{"serve-without-role", "default", "the Role in examples/mnist/cluster.yaml allows what is needed"},
	} {
		if log := serve(tt.name, tt.account, "Failed"); !strings.Contains(log, tt.want) {
			t.Errorf("the deployer %s says\n%s\nwant %q", tt.name, log, tt.want)
		}
	}
	serve("serve", deployer, "Succeeded")
	runPod(t, ns, "web-ui", deployer, "Succeeded", "--image", "gcr.io/kubeflow-examples/mnist/web-ui:v1", "--name", "web-ui",
		"--container-port", "5000", "--service-port", "80", "--service-type", "LoadBalancer", "--cluster-name", "mnist-pipeline")
	checkServed(t, ns)

	serve("serve-again", deployer, "Succeeded")
	if got := generation(); got != "1" {
		t.Errorf("deployed again, the model server is of generation %s, want 1", got)
	}
	train("300")
	serve("serve-other", deployer, "Succeeded")
	if got := generation(); got != "2" {
		t.Errorf("with another model, the model server is of generation %s, want 2", got)
	}
	checkServed(t, ns)
}

// TestE2EMnist runs the pipeline on the cluster by kfs, and asks the model that
// it serves for predictions.
func TestE2EMnist(t *testing.T) {
	loadImage(t)
	ns := newNamespace(t)
	kfs := filepath.Join(t.TempDir(), "kfs")
	if out, err := exec.Command("go", "build", "-o", kfs, "../../cmd/kfs").CombinedOutput(); err != nil {
		t.Fatalf("build kfs: %v\n%s", err, out)
	}
	out, err := exec.Command(kfs, "run", "../mnist.star", "-n", ns, "--images", "images-cluster.yaml", "--run-name", "mnist",
		"--set", "platform=onprem", "--set", "service_account="+deployer,
		"-p", "pvc_name="+claim, "-p", "model_export_dir=/mnt/export").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "run mnist succeeded") {
		t.Fatalf("kfs run: %v\n%s", err, out)
	}
	checkServed(t, ns)
	if out, err := exec.Command(kfs, "delete", "mnist", "-n", ns).CombinedOutput(); err != nil {
		t.Fatalf("kfs delete: %v\n%s", err, out)
	}
	checkServed(t, ns) // what the run has deployed outlives it
}

// loadImage gives the node the image of this program.
func loadImage(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("../../bin/cluster", "image", "build", "-t", clusterImage, ".").CombinedOutput(); err != nil {
		t.Fatalf("build and load %s: %v\n%s", clusterImage, err, out)
	}
}

// newNamespace makes a namespace with what the pipeline wants of one: a claim,
// of a folder of this machine, and the deployers' account.
func newNamespace(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	ns := kubectl(t, `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "mnist-"}}`,
		"create", "-f", "-", "-o", "jsonpath={.metadata.name}")
	t.Cleanup(func() { kubectl(t, "", "delete", "--wait=false", "namespace/"+ns, "persistentvolume/"+ns) })
	kubectl(t, strings.NewReplacer("NAME", ns, "FOLDER", folder, "CLAIM", claim).Replace(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: NAME}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  storageClassName: ""
  hostPath: {path: FOLDER}
  claimRef: {namespace: NAME, name: CLAIM}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: CLAIM, namespace: NAME}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: ""
  resources: {requests: {storage: 1Gi}}
`), "apply", "-f", "-")
	kubectl(t, "", "-n", ns, "apply", "-f", "cluster.yaml")
	return ns
}

// runPod runs a pod as a step of the pipeline runs, waits until it is in a
// phase, and returns its log. Without an account it has no token.
func runPod(t *testing.T, ns, name, account, phase string, args ...string) string {
	t.Helper()
	pod, err := json.Marshal(object{
		"apiVersion": "v1",
		"kind":       "Pod",
		"metadata":   object{"name": name},
		"spec": object{
			"restartPolicy":                "Never",
			"serviceAccountName":           account,
			"automountServiceAccountToken": account != "",
			"containers": []object{{
				"name": "main", "image": clusterImage, "args": args,
				"volumeMounts": []object{{"name": "local-storage", "mountPath": "/mnt"}},
			}},
			"volumes": []object{{"name": "local-storage", "persistentVolumeClaim": object{"claimName": claim}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, string(pod), "-n", ns, "create", "-f", "-")
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		got := kubectl(t, "", "-n", ns, "get", "pod", name, "-o", "jsonpath={.status.phase}")
		if got == phase {
			return kubectl(t, "", "-n", ns, "logs", name)
		}
		if got == "Succeeded" || got == "Failed" || time.Now().After(limit) {
			t.Fatalf("pod %s is %s, want %s\n%s", name, got, phase, kubectl(t, "", "-n", ns, "describe", "pod", name)+
				kubectl(t, "", "-n", ns, "logs", name))
		}
	}
}

// checkServed checks what the pipeline leaves in a namespace: a model server
// that knows digits, and a page.
func checkServed(t *testing.T, ns string) {
	t.Helper()
	for name, want := range map[string]string{
		"mnist-service": clusterImage + " 1 ClusterIP 8500",
		"web-ui":        clusterImage + " 1 LoadBalancer 80",
	} {
		got := kubectl(t, "", "-n", ns, "get", "deployment", name, "-o", "jsonpath={.spec.template.spec.containers[*].image} {.status.availableReplicas}") +
			kubectl(t, "", "-n", ns, "get", "service", name, "-o", "jsonpath= {.spec.type} {.spec.ports[*].port}")
		if got != want {
			t.Errorf("%s is deployed as %q, want %q", name, got, want)
		}
	}

	// The pod of the model server that is not on its way out.
	var pods struct {
		Items []struct {
			Metadata struct{ Name, DeletionTimestamp string }
		}
	}
	list := kubectl(t, "", "-n", ns, "get", "pods", "-l", "app=mnist-service", "-o", "json")
	if err := json.Unmarshal([]byte(list), &pods); err != nil {
		t.Fatal(err)
	}
	pod := ""
	for _, p := range pods.Items {
		if p.Metadata.DeletionTimestamp == "" {
			pod = p.Metadata.Name
		}
	}
	test := drawn(t, 3, 60)
	images := make([][pixels]float32, test.len())
	for i := range images {
		toFloats(&images[i], test.image(i))
	}
	request, err := json.Marshal(object{"instances": images})
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Predictions [][classes]float32 }
	text := kubectl(t, string(request), "create", "-f", "-", "--raw", "/api/v1/namespaces/"+ns+"/pods/"+pod+":8500/proxy"+predictPath)
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Predictions) != test.len() {
		t.Fatalf("the model server predicts %s, %v; want predictions for %d images", text, err, test.len())
	}
	var s score
	for i := range answer.Predictions {
		s.add(&answer.Predictions[i], test.labels[i])
	}
	if s.right < 50 {
		t.Errorf("the model server knows %d of %d digits; want 50 or more", s.right, s.n)
	}

	// By way of the Service, which selects the page's pod.
	if got := kubectl(t, "", "get", "--raw", "/api/v1/namespaces/"+ns+"/services/web-ui:80/proxy/"); !strings.Contains(got, "Draw a digit") {
		t.Errorf("the page is %s", got)
	}
}

// kubectl runs kubectl on the cluster of the tests and returns what it prints.
func kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	if os.Getenv("KFS_CLUSTER_DIR") == "" {
		t.Fatal("this test wants a cluster, as make e2e and make cluster bring up")
	}
	cmd := exec.Command("kubectl", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &stderr)
	}
	return stdout.String()
}
