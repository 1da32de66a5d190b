package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An apiServer answers what the deployers ask of Kubernetes.
type apiServer struct {
	answers map[string][]string // status and body by method and path; the last repeats
	applied map[string]string   // bodies by path
	tokens  []string            // of all requests
	account string              // folder of the service account
}

// newAPIServer starts an API server for a test, which then is in its cluster,
// as pod step-1.
func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{answers: map[string][]string{}, applied: map[string]string{}, account: t.TempDir()}
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	s.write(t, "namespace", "team")
	s.write(t, "token", "first\n")
	dir := accountDir
	accountDir = s.account
	t.Cleanup(func() { accountDir = dir })
	t.Setenv("KUBERNETES_SERVICE_HOST", host)
	t.Setenv("KUBERNETES_SERVICE_PORT", port)
	t.Setenv("HOSTNAME", "step-1")
	t.Setenv("MNIST_HOME", t.TempDir())
	s.answers["GET /api/v1/namespaces/team/pods/step-1"] = []string{"200 " + stepPod}
	return s
}

func (s *apiServer) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.account, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.tokens = append(s.tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	call := r.Method + " " + r.URL.RequestURI()
	answers := s.answers[call]
	if len(answers) > 1 {
		s.answers[call] = answers[1:]
	}
	answer := "404 {}"
	if len(answers) > 0 {
		answer = answers[0]
	} else if path, ok := strings.CutSuffix(call, "?fieldManager=mnist&force=true"); ok && r.Header.Get("Content-Type") == "application/apply-patch+yaml" {
		var body bytes.Buffer
		body.ReadFrom(r.Body)
		s.applied[path] = body.String()
		answer = "200 {}"
	}
	var status int
	fmt.Sscan(answer, &status)
	w.WriteHeader(status)
	w.Write([]byte(answer[4:]))
}

// stepPod is the pod of a step, as the API server shows it.
const stepPod = `{
	"metadata": {"name": "step-1", "namespace": "team"},
	"spec": {
		"serviceAccountName": "mnist-deployer",
		"securityContext": {"runAsUser": 1000},
		"imagePullSecrets": [{"name": "registry"}],
		"containers": [
			{"name": "istio-proxy", "image": "istio/proxyv2:1"},
			{"name": "main", "image": "team/mnist:3", "imagePullPolicy": "IfNotPresent", "securityContext": {"privileged": false}, "volumeMounts": [
				{"name": "local-storage", "mountPath": "/mnt"},
				{"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]}],
		"volumes": [
			{"name": "local-storage", "persistentVolumeClaim": {"claimName": "mnist"}},
			{"name": "kube-api-access", "projected": {}}]}}`

const (
	rolling   = `200 {"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}`
	surging   = `200 {"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1}}`
	available = `200 {"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}`
)

// TestDeployInCluster runs both deployers, with the arguments that the pipeline
// passes, in a pod.
func TestDeployInCluster(t *testing.T) {
	api := newAPIServer(t)
	export, net := t.TempDir(), make(network, params)
	if err := saveModel(export, net); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(encodeModel(net)))
	for _, tt := range []struct {
		name, args, stdout string
		deployment         string
		service            string
	}{
		{
			"mnist-service",
			"--model-export-path " + export + " --server-name mnist-service --cluster-name mnist-pipeline --pvc-name mnist",
			"mnist-service serves " + modelFile(export) + "; to reach it: kubectl -n team port-forward service/mnist-service 8500\n",
			`{
				"apiVersion": "apps/v1", "kind": "Deployment",
				"metadata": {"name": "mnist-service", "labels": {"app": "mnist-service"}},
				"spec": {
					"replicas": 1,
					"selector": {"matchLabels": {"app": "mnist-service"}},
					"template": {"metadata": {"labels": {"app": "mnist-service"}}, "spec": {
						"automountServiceAccountToken": false,
						"securityContext": {"runAsUser": 1000},
						"imagePullSecrets": [{"name": "registry"}],
						"containers": [{
							"name": "server", "image": "team/mnist:3", "imagePullPolicy": "IfNotPresent",
							"command": ["SELF", "server", "--dir", "EXPORT", "--listen", ":8500", "--id", "SUM"],
							"ports": [{"name": "http", "containerPort": 8500}],
							"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
							"readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2},
							"securityContext": {"privileged": false},
							"terminationMessagePolicy": "FallbackToLogsOnError",
							"volumeMounts": [{"name": "local-storage", "mountPath": "/mnt", "readOnly": true}]}],
						"volumes": [{"name": "local-storage", "persistentVolumeClaim": {"claimName": "mnist"}}]}}}}`,
			`{
				"apiVersion": "v1", "kind": "Service",
				"metadata": {"name": "mnist-service", "labels": {"app": "mnist-service"}},
				"spec": {"type": "ClusterIP", "selector": {"app": "mnist-service"}, "ports": [{"name": "http", "port": 8500, "targetPort": "http"}]}}`,
		},
		{
			"web-ui",
			"--image gcr.io/kubeflow-examples/mnist/web-ui:v1 --name web-ui --container-port 5000 --service-port 80 --service-type LoadBalancer",
			"web-ui: draw a digit at http://localhost:5000/ after: kubectl -n team port-forward service/web-ui 5000:80\n",
			`{
				"apiVersion": "apps/v1", "kind": "Deployment",
				"metadata": {"name": "web-ui", "labels": {"app": "web-ui"}},
				"spec": {
					"replicas": 1,
					"selector": {"matchLabels": {"app": "web-ui"}},
					"template": {"metadata": {"labels": {"app": "web-ui"}}, "spec": {
						"automountServiceAccountToken": false,
						"securityContext": {"runAsUser": 1000},
						"imagePullSecrets": [{"name": "registry"}],
						"containers": [{
							"name": "server", "image": "team/mnist:3", "imagePullPolicy": "IfNotPresent",
							"command": ["SELF", "page", "--listen", ":5000", "--model", "http://mnist-service:8500"],
							"ports": [{"name": "http", "containerPort": 5000}],
							"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
							"readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2},
							"securityContext": {"privileged": false},
							"terminationMessagePolicy": "FallbackToLogsOnError"}]}}}}`,
			`{
				"apiVersion": "v1", "kind": "Service",
				"metadata": {"name": "web-ui", "labels": {"app": "web-ui"}},
				"spec": {"type": "LoadBalancer", "selector": {"app": "web-ui"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			deployment := "/apis/apps/v1/namespaces/team/deployments/" + tt.name
			// One refusal that passes, and a rollout that takes time.
			api.answers["GET "+deployment] = []string{"503 {}", rolling, surging, available}
			api.write(t, "token", tt.name)
			var stdout, stderr bytes.Buffer
			if status := run(t.Context(), strings.Fields(tt.args), &stdout, &stderr); status != 0 || stderr.Len() > 0 || stdout.String() != tt.stdout {
				t.Fatalf("status %d, stdout\n%s\nstderr\n%s\nwant 0 and\n%s", status, &stdout, &stderr, tt.stdout)
			}
			if left := api.answers["GET "+deployment]; len(left) > 1 {
				t.Errorf("the deployer did not wait for %q", left)
			}
			if got := api.tokens[len(api.tokens)-1]; got != tt.name {
				t.Errorf("the deployer sends the token %q, want what the file holds now", got)
			}
			want := strings.NewReplacer("SELF", self, "EXPORT", export, "SUM", sum).Replace(tt.deployment)
			sameJSON(t, "the deployment", api.applied["PATCH "+deployment], want)
			sameJSON(t, "the service", api.applied["PATCH /api/v1/namespaces/team/services/"+tt.name], tt.service)
		})
	}
}

func sameJSON(t *testing.T, what, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Errorf("%s is %q: %v", what, got, err)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("%s differs (-want +got)\n%s", what, diff)
	}
}

func TestDeployInClusterFaults(t *testing.T) {
	const (
		pod    = "GET /api/v1/namespaces/team/pods/step-1"
		pods   = "GET /api/v1/namespaces/team/pods?labelSelector=app%3Dweb-ui"
		deploy = "GET /apis/apps/v1/namespaces/team/deployments/web-ui"
	)
	for _, tt := range []struct {
		name, args string
		answers    map[string]string
		want       []string
	}{
		{"bucket", "serve --model-export-path gs://bucket/export", nil, []string{`"gs://bucket/export": in a cluster wanted a folder of a volume`}},
		{"no model", "serve --model-export-path /mnt/none", nil, []string{"no model in /mnt/none"}},
		{"forbidden", "web-ui", map[string]string{pod: `403 {"message": "pods \"step-1\" is forbidden"}`},
			[]string{`find the image of this pod: GET /api/v1/namespaces/team/pods/step-1: 403 Forbidden: pods "step-1" is forbidden: the Role in examples/mnist/cluster.yaml`}},
		{"no answer", "web-ui", map[string]string{pod: `503 {"message": "starting"}`}, []string{"context deadline exceeded", "503 Service Unavailable: starting"}},
		{"pull", "web-ui", map[string]string{
			deploy: `200 {"spec": {"replicas": 1}, "status": {"conditions": [
				{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": "it goes on"},
				{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"},
				{"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "no minimum availability"}]}}`,
			pods: `200 {"items": [
				{"metadata": {"name": "web-ui-1"}, "status": {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}},
				{"metadata": {"name": "web-ui-2"}, "status": {"containerStatuses": [
					{"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "mnist page: no\n"}}}]}},
				{"metadata": {"name": "web-ui-3"}, "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}}]}`,
		}, []string{`wait until deployment "web-ui" is available: context deadline exceeded
  deployment web-ui: FailedCreate: exceeded quota
  deployment web-ui: MinimumReplicasUnavailable: no minimum availability
  pod web-ui-1: ImagePullBackOff: no such image
  pod web-ui-2: CrashLoopBackOff
  pod web-ui-2: its container ended with exit code 1: mnist page: no
  pod web-ui-3: Unschedulable: 0/1 nodes
`}},
		{"gone", "web-ui", map[string]string{deploy: `404 {"message": "not found"}`, pods: `200 {"items": []}`}, []string{"404 Not Found: not found"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			api := newAPIServer(t)
			for call, answer := range tt.answers {
				api.answers[call] = []string{answer}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var stdout, stderr bytes.Buffer
			status := run(ctx, strings.Fields(tt.args), &stdout, &stderr)
			for _, want := range tt.want {
				if status != 1 || !strings.Contains(stderr.String(), want) {
					t.Errorf("mnist %s: status %d, stderr\n%s\nwant 1 and\n%s", tt.args, status, &stderr, want)
				}
			}
		})
	}
	t.Run("no account", func(t *testing.T) {
		api := newAPIServer(t)
		if err := os.Remove(filepath.Join(api.account, "ca.crt")); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		if status := run(t.Context(), []string{"web-ui"}, &stdout, &stderr); status != 1 || !strings.Contains(stderr.String(), "--set service_account=NAME") {
			t.Errorf("mnist web-ui: status %d, stderr %s; want 1 and what to do", status, &stderr)
		}
	})
}
