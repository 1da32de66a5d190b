package resource

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// This file defines how objects of well-known kinds come to their end.

// A terminal says how objects of a kind end. One mark of failed is enough.
type terminal struct {
	done   mark
	failed []mark
}

// A mark is a field of the object and the values that it may have there, or if
// there is no field the types of status.conditions of which one is True.
type mark struct {
	field  string
	values []string
}

func isTrue(types ...string) mark              { return mark{values: types} }
func field(path string, values ...string) mark { return mark{path, values} }
func byCondition(done, failed string) terminal { return terminal{isTrue(done), []mark{isTrue(failed)}} }
func byField(path, done string, failed ...string) terminal {
	return terminal{field(path, done), []mark{field(path, failed...)}}
}

// terminals are the kinds whose objects, once made, go on by themselves to an
// end: what is said of them is known of all versions of their groups.
var terminals = map[schema.GroupKind]terminal{
	// k8s.io/api/batch/v1, types.go: JobComplete, JobFailed.
	{Group: "batch", Kind: "Job"}: byCondition("Complete", "Failed"),
	// jobset.x-k8s.io, api/jobset/v1alpha2/jobset_types.go: JobSetCompleted, JobSetFailed.
	{Group: "jobset.x-k8s.io", Kind: "JobSet"}: byCondition("Completed", "Failed"),

	// kubeflow/trainer, pkg/apis/trainer/v1alpha1/trainjob_types.go: TrainJobComplete, TrainJobFailed.
	{Group: "trainer.kubeflow.org", Kind: "TrainJob"}: byCondition("Complete", "Failed"),
	// kubeflow/training-operator, pkg/apis/kubeflow.org/v1/common_types.go:
	// JobSucceeded, JobFailed; for MPIJob also kubeflow/mpi-operator,
	// pkg/apis/kubeflow/v2beta1/types.go.
	{Group: "kubeflow.org", Kind: "TFJob"}:      byCondition("Succeeded", "Failed"),
	{Group: "kubeflow.org", Kind: "PyTorchJob"}: byCondition("Succeeded", "Failed"),
	{Group: "kubeflow.org", Kind: "MPIJob"}:     byCondition("Succeeded", "Failed"),
	{Group: "kubeflow.org", Kind: "XGBoostJob"}: byCondition("Succeeded", "Failed"),
	{Group: "kubeflow.org", Kind: "PaddleJob"}:  byCondition("Succeeded", "Failed"),
	{Group: "kubeflow.org", Kind: "MXJob"}:      byCondition("Succeeded", "Failed"),
	{Group: "kubeflow.org", Kind: "JAXJob"}:     byCondition("Succeeded", "Failed"),
	// kubeflow/katib, pkg/apis/controller/experiments/v1beta1/experiment_types.go:
	// ExperimentSucceeded, ExperimentFailed.
	{Group: "kubeflow.org", Kind: "Experiment"}: byCondition("Succeeded", "Failed"),

	// kserve/kserve, pkg/apis/serving/v1beta1/inference_service_status.go: the
	// condition Ready of Knative; InvalidSpec. A model that cannot be loaded
	// (BlockedByFailedLoad) is tried again.
	{Group: "serving.kserve.io", Kind: "InferenceService"}: {isTrue("Ready"), []mark{field("status.modelStatus.transitionStatus", "InvalidSpec")}},

	// kubeflow/spark-operator, api/v1beta2/sparkapplication_types.go; after
	// SUBMISSION_FAILED comes another try, or FAILED.
	{Group: "sparkoperator.k8s.io", Kind: "SparkApplication"}: byField("status.applicationState.state", "COMPLETED", "FAILED"),
	// ray-project/kuberay, ray-operator/apis/ray/v1/rayjob_types.go. A job that
	// Ray calls FAILED may be tried again, until the deployment has Failed.
	{Group: "ray.io", Kind: "RayJob"}: {field("status.jobStatus", "SUCCEEDED"), []mark{
		field("status.jobDeploymentStatus", "Failed", "ValidationFailed"), field("status.jobStatus", "STOPPED"),
	}},
	// volcano-sh/apis, pkg/apis/batch/v1alpha1/job.go. One that is Aborted may be resumed.
	{Group: "batch.volcano.sh", Kind: "Job"}: byField("status.state.phase", "Completed", "Failed", "Terminated"),
	// argoproj/argo-workflows, pkg/apis/workflow/v1alpha1/workflow_types.go.
	{Group: "argoproj.io", Kind: "Workflow"}: byField("status.phase", "Succeeded", "Failed", "Error"),
}

// match reports whether the object has the mark, and why.
func (m mark) match(f object) (why string, ok bool) {
	if m.field != "" {
		text := f.Get(m.field)
		return m.field + " is " + text, slices.Contains(m.values, text)
	}
	for _, c := range conditions(f) {
		if c.status == "True" && slices.Contains(m.values, c.name) {
			return strings.Join(slices.DeleteFunc([]string{c.name, c.reason, shorten(c.message, 300)}, func(s string) bool { return s == "" }), ": "), true
		}
	}
	return "", false
}

// String names the mark, as a message does.
func (m mark) String() string {
	if m.field == "" {
		return "condition " + strings.Join(m.values, " or ")
	}
	return m.field + " = " + strings.Join(m.values, " or ")
}

// current reports whether the status is about the present specification, as
// far as the object says.
func current(obj *unstructured.Unstructured) bool {
	observed, ok, _ := unstructured.NestedInt64(obj.Object, "status", "observedGeneration")
	return !ok || observed >= obj.GetGeneration()
}
