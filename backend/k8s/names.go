package k8s

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/dag"
)

// This file defines the names, labels and annotations of a run's objects.

const (
	runLabel     = "kfs.dev/run"  // the run's name, on all of its objects
	kindLabel    = "kfs.dev/kind" // what a ConfigMap is for
	stepLabel    = "kfs.dev/step" // the step's name, as far as a label can hold it
	attemptLabel = "kfs.dev/attempt"
	managedBy    = "app.kubernetes.io/managed-by"
	meshLabel    = "sidecar.istio.io/inject"

	runIDAnnotation = "kfs.dev/run-id"
	stepAnnotation  = "kfs.dev/step-path" // the step's name with its rounds
	specAnnotation  = "kfs.dev/spec"      // SHA-256 of the pod as kfs sent it
	endAnnotation   = "kfs.dev/end"       // why kfs ended the pod, see ending
	// pendingAnnotation is how long a pod may take to start: 1h0m0s.
	pendingAnnotation = "kfs.dev/pending-timeout"

	outcomeFinalizer = "kfs.dev/outcome"

	kindRun    = "run"
	kindPart   = "part"   // of a pipeline that one ConfigMap cannot hold
	kindState  = "state"  // a shard of it
	kindValues = "values" // of an attempt's outputs
	kindIntent = "intent" // of an attempt that changes an object
)

// maxRunName leaves room for what is added to the names of a run's objects.
const maxRunName = 50

// objectName is the name of the run's ConfigMap and Lease.
func objectName(run string) string { return "kfs-" + run }

func runLabels(run string) map[string]string {
	return map[string]string{runLabel: run, managedBy: "kfs"}
}

// selector selects the run's objects of a kind, or all if kind is "".
func selector(run, kind string) metav1.ListOptions {
	s := runLabel + "=" + run
	if kind != "" {
		s += "," + kindLabel + "=" + kind
	}
	return metav1.ListOptions{LabelSelector: s}
}

// labelValue returns a name as the value of a label, cut if it is too long.
func labelValue(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == '[' || r == '~' {
			return '.'
		}
		if r == ']' {
			return -1
		}
		return r
	}, name)
	if len(name) > 63 {
		sum := sha256.Sum256([]byte(name))
		name = name[:54] + "-" + hex.EncodeToString(sum[:4])
	}
	return strings.Trim(name, "-_.")
}

// specHash is the hash of a pod as kfs sends it. What the cluster makes of it
// is not: webhooks and defaults change that.
func specHash(pod dag.Object) string {
	sum := sha256.Sum256([]byte(dag.PythonJSON(pod)))
	return hex.EncodeToString(sum[:16])
}
