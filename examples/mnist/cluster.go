package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// This file deploys servers to the Kubernetes cluster that the program runs
// in. A pod is given all that this takes: the address of the API server in its
// environment, and the folder of its service account. What the account must be
// allowed is in cluster.yaml.

// accountDir is the folder of a pod's service account. Tests have another.
var accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

const (
	// modelPort is where the model server listens in a cluster: the port that
	// REST had in Kubeflow's own template for TensorFlow Serving.
	modelPort = 8500

	deployLimit = 3 * time.Minute        // for a server to be available
	askEvery    = 500 * time.Millisecond // for a change in the cluster
)

// inCluster reports whether the program runs in a pod.
func inCluster() bool { return os.Getenv("KUBERNETES_SERVICE_HOST") != "" }

// cluster is the Kubernetes that the program runs in.
type cluster struct {
	url       string // of the API server
	namespace string // of this pod, and of all that it deploys
	client    *http.Client
}

// openCluster returns the cluster that the program runs in.
func openCluster() (*cluster, error) {
	ca, err := os.ReadFile(filepath.Join(accountDir, "ca.crt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: wanted a service account that may deploy, "+
			"as in examples/mnist/cluster.yaml, and its name by --set service_account=NAME", err)
	} else if err != nil {
		return nil, err
	}
	namespace, err := os.ReadFile(filepath.Join(accountDir, "namespace"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s/ca.crt holds no certificate", accountDir)
	}
	return &cluster{
		url:       "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")),
		namespace: strings.TrimSpace(string(namespace)),
		client: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
		},
	}, nil
}

// deployment is a server to run in the cluster: it becomes a Deployment and a
// Service of its name.
type deployment struct {
	name        string
	args        []string // of this program
	replicas    int
	port        int // that the server listens on
	servicePort int
	serviceType string
	claims      bool // the server reads the volume claims that this pod mounts
}

// object is a JSON object.
type object = map[string]any

// podSpec is the part of a pod's specification that this program reads of its
// own pod, or writes for a server's.
type podSpec struct {
	Containers       []container `json:"containers"`
	Volumes          []object    `json:"volumes,omitempty"`
	SecurityContext  object      `json:"securityContext,omitempty"`
	ImagePullSecrets []object    `json:"imagePullSecrets,omitempty"`
	AutomountToken   *bool       `json:"automountServiceAccountToken,omitempty"`
}

type container struct {
	Name                     string   `json:"name"`
	Image                    string   `json:"image"`
	ImagePullPolicy          string   `json:"imagePullPolicy,omitempty"`
	Command                  []string `json:"command,omitempty"`
	Ports                    []object `json:"ports,omitempty"`
	Resources                object   `json:"resources,omitempty"`
	ReadinessProbe           object   `json:"readinessProbe,omitempty"`
	SecurityContext          object   `json:"securityContext,omitempty"`
	TerminationMessagePolicy string   `json:"terminationMessagePolicy,omitempty"`
	VolumeMounts             []object `json:"volumeMounts,omitempty"`
}

// deploy makes the server run in place of one of that name, if there is one,
// and waits until it is available. To deploy the same again changes nothing.
func (c *cluster) deploy(ctx context.Context, d deployment) error {
	ctx, cancel := context.WithTimeoutCause(ctx, deployLimit, fmt.Errorf("not within %v", deployLimit))
	defer cancel()
	spec, err := c.podSpec(ctx, d)
	if err != nil {
		return err
	}
	labels := object{"app": d.name}
	err = c.apply(ctx, c.path("apps", "deployments", d.name), object{
		"apiVersion": "apps/v1",
		"kind":       "Deployment",
		"metadata":   object{"name": d.name, "labels": labels},
		"spec": object{
			"replicas": d.replicas,
			"selector": object{"matchLabels": labels},
			"template": object{
				"metadata": object{"labels": labels},
				"spec":     spec,
			},
		},
	})
	if err != nil {
		return err
	}
	err = c.apply(ctx, c.path("", "services", d.name), object{
		"apiVersion": "v1",
		"kind":       "Service",
		"metadata":   object{"name": d.name, "labels": labels},
		"spec": object{
			"type":     d.serviceType,
			"selector": labels,
			"ports":    []object{{"name": "http", "port": d.servicePort, "targetPort": "http"}},
		},
	})
	if err != nil {
		return err
	}
	return c.await(ctx, d.name)
}

// podSpec returns the specification of the server's pods. They run this
// program, from the image of its own pod, under that pod's rules.
func (c *cluster) podSpec(ctx context.Context, d deployment) (podSpec, error) {
	self, err := os.Executable()
	if err != nil {
		return podSpec{}, err
	}
	// Container runtimes set HOSTNAME, to the pod's name. In a pod whose host
	// has another name, it is to be set from metadata.name.
	name := os.Getenv("HOSTNAME")
	var pod struct{ Spec podSpec }
	if err := c.do(ctx, "GET", c.path("", "pods", name), nil, &pod); err != nil {
		return podSpec{}, fmt.Errorf("find the image of this pod: %w", err)
	}
	if len(pod.Spec.Containers) == 0 {
		return podSpec{}, fmt.Errorf("pod %q has no containers", name)
	}
	own := pod.Spec.Containers[0]
	for _, c := range pod.Spec.Containers {
		if c.Name == "main" { // a step's, whatever stands beside it
			own = c
		}
	}
	server := container{
		Name:            "server",
		Image:           own.Image,
		ImagePullPolicy: own.ImagePullPolicy,
		Command:         append([]string{self}, d.args...),
		Ports:           []object{{"name": "http", "containerPort": d.port}},
		Resources: object{
			"requests": object{"cpu": "50m", "memory": "64Mi"},
			"limits":   object{"memory": "256Mi"},
		},
		ReadinessProbe:           object{"httpGet": object{"path": "/healthz", "port": "http"}, "periodSeconds": 2},
		SecurityContext:          own.SecurityContext,
		TerminationMessagePolicy: "FallbackToLogsOnError", // for why
	}
	spec := podSpec{
		SecurityContext:  pod.Spec.SecurityContext,
		ImagePullSecrets: pod.Spec.ImagePullSecrets,
		AutomountToken:   new(bool),
	}
	for _, v := range pod.Spec.Volumes {
		if !d.claims || v["persistentVolumeClaim"] == nil {
			continue
		}
		spec.Volumes = append(spec.Volumes, v)
		for _, m := range own.VolumeMounts {
			if m["name"] == v["name"] {
				m["readOnly"] = true
				server.VolumeMounts = append(server.VolumeMounts, m)
			}
		}
	}
	spec.Containers = []container{server}
	return spec, nil
}

// condition is a condition of an object's status.
type condition struct{ Type, Status, Reason, Message string }

// await waits until all pods of the deployment run what was applied last, and
// are available.
func (c *cluster) await(ctx context.Context, name string) error {
	for {
		var d struct {
			Metadata struct{ Generation int64 }
			Spec     struct{ Replicas int }
			Status   struct {
				ObservedGeneration                           int64
				Replicas, UpdatedReplicas, AvailableReplicas int
				Conditions                                   []condition
			}
		}
		err := c.do(ctx, "GET", c.path("apps", "deployments", name), nil, &d)
		if s := d.Status; err == nil && s.ObservedGeneration >= d.Metadata.Generation &&
			s.UpdatedReplicas == d.Spec.Replicas && s.Replicas == s.UpdatedReplicas && s.AvailableReplicas == s.UpdatedReplicas {
			return nil
		}
		if err == nil {
			err = sleep(ctx, askEvery)
		}
		if err != nil {
			return fmt.Errorf("wait until deployment %q is available: %w%s", name, err, c.why(ctx, name, d.Status.Conditions))
		}
	}
}

// why says, in lines to put after an error, what a deployment lacks: by its
// conditions, and by the states of its pods.
func (c *cluster) why(ctx context.Context, name string, conditions []condition) string {
	var lines []string
	unmet := func(who string, conditions []condition) {
		for _, c := range conditions {
			if c.Message != "" && (c.Status == "False" || c.Type == "ReplicaFailure") {
				lines = append(lines, fmt.Sprintf("%s: %s: %s", who, cmp.Or(c.Reason, "not "+c.Type), c.Message))
			}
		}
	}
	unmet("deployment "+name, conditions)

	type state struct {
		Reason, Message string
		ExitCode        int
	}
	var pods struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions        []condition
				ContainerStatuses []struct {
					State, LastState struct{ Waiting, Terminated *state }
				}
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := c.do(ctx, "GET", c.path("", "pods", "")+"?labelSelector="+url.QueryEscape("app="+name), nil, &pods); err != nil {
		lines = append(lines, err.Error())
	}
	for _, p := range pods.Items {
		who := "pod " + p.Metadata.Name
		unmet(who, p.Status.Conditions)
		for _, s := range p.Status.ContainerStatuses {
			if w := s.State.Waiting; w != nil {
				lines = append(lines, strings.TrimSuffix(fmt.Sprintf("%s: %s: %s", who, w.Reason, w.Message), ": "))
			}
			if t := cmp.Or(s.State.Terminated, s.LastState.Terminated); t != nil {
				lines = append(lines, fmt.Sprintf("%s: its container ended with exit code %d: %s", who, t.ExitCode, strings.TrimSpace(cmp.Or(t.Message, t.Reason))))
			}
		}
	}
	return strings.Join(slices.Insert(lines, 0, ""), "\n  ")
}

// path returns the path of an object in the API, or of all if name is "".
func (c *cluster) path(group, resource, name string) string {
	root := "/api/v1"
	if group != "" {
		root = "/apis/" + group + "/v1"
	}
	return strings.TrimSuffix(root+"/namespaces/"+c.namespace+"/"+resource+"/"+name, "/")
}

// apply makes an object as it is described, whether it exists or not:
// https://kubernetes.io/docs/reference/using-api/server-side-apply.
func (c *cluster) apply(ctx context.Context, path string, o object) error {
	return c.do(ctx, "PATCH", path+"?fieldManager=mnist&force=true", o, nil)
}

// do sends a request and decodes the answer into out, unless it is nil.
// Whatever this program asks for may be asked for twice, so it asks again
// until ctx ends if there is no answer, or one that says to come back.
func (c *cluster) do(ctx context.Context, method, path string, body, out any) error {
	for {
		again, err := c.try(ctx, method, path, body, out)
		if err == nil || !again {
			return err
		}
		if ended := sleep(ctx, askEvery); ended != nil {
			return fmt.Errorf("%w: %w", ended, err)
		}
	}
}

// try is do without its patience; again reports whether that could help.
func (c *cluster) try(ctx context.Context, method, path string, body, out any) (again bool, err error) {
	var data []byte
	if body != nil {
		if data, err = json.Marshal(body); err != nil {
			return false, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(data))
	if err != nil {
		return false, err
	}
	token, err := os.ReadFile(filepath.Join(accountDir, "token")) // which is renewed every hour
	if err != nil {
		return false, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	if body != nil {
		req.Header.Set("Content-Type", "application/apply-patch+yaml") // JSON is YAML
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return true, err
	}
	if resp.StatusCode >= 300 {
		var status struct{ Message string }
		json.Unmarshal(answer, &status) // what is no JSON gives no message
		err := fmt.Errorf("%s %s: %s: %s", method, req.URL.Path, resp.Status, status.Message)
		if resp.StatusCode == http.StatusForbidden {
			err = fmt.Errorf("%w: the Role in examples/mnist/cluster.yaml allows what is needed", err)
		}
		return resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusConflict, err
	}
	if out == nil {
		return false, nil
	}
	return false, json.Unmarshal(answer, out)
}
