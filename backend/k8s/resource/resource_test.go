package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/rest"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// memIntents are Intents in memory.
type memIntents struct {
	mu   sync.Mutex
	kept map[string]Intent
	errs int // how many calls of Put fail, having kept the intent
}

func (m *memIntents) Put(_ context.Context, id string, in Intent) (Intent, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept == nil {
		m.kept = map[string]Intent{}
	}
	if _, ok := m.kept[id]; !ok {
		m.kept[id] = in
	}
	if m.errs > 0 {
		m.errs--
		return Intent{}, errors.New("lost")
	}
	return m.kept[id], nil
}

func (m *memIntents) Get(_ context.Context, id string) (*Intent, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if in, ok := m.kept[id]; ok {
		return &in, nil
	}
	return nil, nil
}

// tree returns a manifest, or part of an object.
func tree(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := utiljson.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

func manifest(t *testing.T, text string) dag.Object {
	t.Helper()
	var o dag.Object
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return o
}

func TestCondition(t *testing.T) {
	const job = `{"status": {"succeeded": 2, "ready": true, "rate": 0.5, "big": 1e21, "phase": "Bound", "none": null,
		"conditions": [{"type": "Complete"}]}, "metadata": {"annotations": {"team/size": "3"}}}`
	for _, tt := range []struct {
		condition string
		want      bool
	}{
		{"status.succeeded > 0", true},
		{"status.succeeded > 2", false},
		{"status.succeeded < 3", true},
		{"status.succeeded == 2", true},
		{"status.succeeded=2", true},
		{"status.failed > 0", false},
		{"status.failed != 1", true}, // as of labels: what is not there is not 1
		{"status.failed", false},
		{"!status.failed", true},
		{"status.ready == true", true},
		{"status.ready == True", false},
		{"status.rate == 0.5", true},
		{"status.rate > 0", false}, // as of labels: no integer
		{"status.big == 1000000000000000000000", true},
		{"status.phase in (Bound, Ready)", true},
		{"status.phase notin (Bound, Ready)", false},
		{"status.none", true},
		{"status.none ==", true},
		{"status.conditions.0.type == Complete", true},
		{"status.conditions.1.type == Complete", false},
		{"status.conditions.x.type == Complete", false},
		{"status.phase.x == y", false},
		{"metadata.annotations.team/size == 3", true},
		{"status.succeeded > 0, status.phase == Lost", false},
		{"status.succeeded > 0,status.phase==Bound", true},
	} {
		c, err := parseCondition(tt.condition)
		if err != nil {
			t.Errorf("parseCondition(%q): %v", tt.condition, err)
		} else if got := c.holds(tree(t, job)); got != tt.want {
			t.Errorf("condition %q holds: %v; want %v", tt.condition, got, tt.want)
		}
	}
	if c, err := parseCondition(" "); err != nil || c.given() {
		t.Errorf("parseCondition of a space = %v, %v; want none", c, err)
	}
}

// judged returns what a task for the resource says of an object, and what it
// has reported.
func judged(t *testing.T, r *dag.Resource, outputs []engine.Output, obj string) (*end, string) {
	t.Helper()
	told := ""
	task := &task{Runner: &Runner{cfg: Config{MaxOutput: 150}}, a: &engine.Attempt{Resource: r, Outputs: outputs},
		report: func(o engine.Observation) { told = o.Reason }, name: "x"}
	u := &unstructured.Unstructured{Object: tree(t, obj)}
	task.kind.GroupVersionKind = u.GroupVersionKind()
	var err error
	if task.success, err = parseCondition(r.SuccessCondition); err != nil {
		t.Fatal(err)
	}
	if task.failure, err = parseCondition(r.FailureCondition); err != nil {
		t.Fatal(err)
	}
	var e *end
	errors.As(task.judge(u), &e)
	return e, told
}

func TestJudge(t *testing.T) {
	const (
		running  = `{"apiVersion": "batch/v1", "kind": "Job", "status": {"active": 1, "startTime": "2026-11-24T15:03:08Z"}}`
		failed   = `{"apiVersion": "batch/v1", "kind": "Job", "status": {"failed": 1, "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}]}}`
		complete = `{"apiVersion": "batch/v1", "kind": "Job", "status": {"succeeded": 1, "conditions": [{"type": "Suspended", "status": "False"}, {"type": "Complete", "status": "True"}]}}`
		claim    = `{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}`
	)
	for _, tt := range []struct {
		name     string
		resource dag.Resource
		obj      string
		want     string // "done", "failed: ...", or what is waited for
	}{
		{"no condition", dag.Resource{Action: "create"}, claim, "done"},
		{"success", dag.Resource{Action: "create", SuccessCondition: "status.phase == Bound"}, claim,
			"waiting for status.phase == Bound: status.phase=Pending"},
		{"failure", dag.Resource{Action: "create", FailureCondition: "status.phase in (Pending, Lost)"}, claim,
			`failed: PersistentVolumeClaim "x" failed: status.phase in (Lost,Pending): status.phase=Pending`},
		{"any requirement fails", dag.Resource{Action: "create", FailureCondition: "status.a == b, status.phase == Pending"}, claim,
			`failed: PersistentVolumeClaim "x" failed: status.phase==Pending: status.phase=Pending`},
		{"failure alone is looked for once", dag.Resource{Action: "create", FailureCondition: "status.phase == Lost"}, claim, "done"},
		{"failure comes first", dag.Resource{Action: "create", SuccessCondition: "status.phase == Pending", FailureCondition: "status.phase == Pending"}, claim,
			`failed: PersistentVolumeClaim "x" failed: status.phase==Pending: status.phase=Pending`},

		{"known kind", dag.Resource{Action: "create"}, running, "waiting for condition Complete: status.active=1"},
		{"known kind is patched", dag.Resource{Action: "patch"}, running, "done"},
		{"known kind is done", dag.Resource{Action: "apply"}, complete, "done"},
		{"known kind has failed", dag.Resource{Action: "create"}, failed, `failed: Job "x" failed: Failed: BackoffLimitExceeded: too often`},
		{"known kind, success alone", dag.Resource{Action: "create", SuccessCondition: "status.succeeded > 0"}, running,
			"waiting for status.succeeded > 0: status.active=1"},
		{"known failure, success alone", dag.Resource{Action: "patch", SuccessCondition: "status.succeeded > 0"}, failed,
			`failed: Job "x" failed: Failed: BackoffLimitExceeded: too often`},
		{"the author's success wins", dag.Resource{Action: "create", SuccessCondition: "status.failed > 0"}, failed, "done"},
		{"known success, failure alone", dag.Resource{Action: "create", FailureCondition: "status.failed > 2"}, running,
			"waiting for condition Complete: status.active=1"},
		{"not yet seen by its controller", dag.Resource{Action: "apply"},
			`{"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"generation": 2},
				"status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}}`,
			"waiting for condition Ready: status.observedGeneration=1, Ready"},
		{"a secret is not shown", dag.Resource{Action: "create", SuccessCondition: "data.a == b"},
			`{"apiVersion": "v1", "kind": "Secret", "data": {"a": "c2VjcmV0"}}`, "waiting for data.a == b"},
	} {
		e, got := judged(t, &tt.resource, nil, tt.obj)
		switch {
		case e != nil && e.exitCode == 0:
			got = "done"
		case e != nil:
			got = "failed: " + e.reason
		}
		if got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// TestTerminals has the status of a running, a done and a failed object of each
// kind, as its controller writes it.
func TestTerminals(t *testing.T) {
	is := func(types ...string) string {
		var list []string
		for _, typ := range types {
			list = append(list, fmt.Sprintf(`{"type": %q, "status": "True"}`, typ))
		}
		return `{"conditions": [` + strings.Join(list, ", ") + `, {"type": "Other", "status": "False"}]}`
	}
	statuses := map[string][3]string{
		"batch/Job":                          {`{"active": 1, "ready": 0}`, is("SuccessCriteriaMet", "Complete"), is("FailureTarget", "Failed")},
		"jobset.x-k8s.io/JobSet":             {`{"restarts": 1}`, is("Completed"), is("StartupPolicyCompleted", "Failed")},
		"trainer.kubeflow.org/TrainJob":      {is("Created"), is("Created", "Complete"), is("Failed")},
		"kubeflow.org/TFJob":                 {is("Created", "Running"), is("Created", "Succeeded"), is("Created", "Failed")},
		"kubeflow.org/PyTorchJob":            {is("Created", "Restarting"), is("Created", "Succeeded"), is("Created", "Failed")},
		"kubeflow.org/MPIJob":                {is("Created", "Running"), is("Succeeded"), is("Failed")},
		"kubeflow.org/XGBoostJob":            {is("Created"), is("Succeeded"), is("Failed")},
		"kubeflow.org/PaddleJob":             {is("Created"), is("Succeeded"), is("Failed")},
		"kubeflow.org/MXJob":                 {is("Created"), is("Succeeded"), is("Failed")},
		"kubeflow.org/JAXJob":                {is("Created"), is("Succeeded"), is("Failed")},
		"kubeflow.org/Experiment":            {is("Created", "Running"), is("Created", "Succeeded"), is("Failed")},
		"serving.kserve.io/InferenceService": {is("PredictorReady"), is("PredictorReady", "Ready"), `{"modelStatus": {"transitionStatus": "InvalidSpec"}}`},
		"sparkoperator.k8s.io/SparkApplication": {`{"applicationState": {"state": "SUBMISSION_FAILED"}}`,
			`{"applicationState": {"state": "COMPLETED"}}`, `{"applicationState": {"state": "FAILED"}}`},
		"ray.io/RayJob": {`{"jobStatus": "FAILED", "jobDeploymentStatus": "Retrying"}`,
			`{"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"}`, `{"jobStatus": "FAILED", "jobDeploymentStatus": "Failed"}`},
		"batch.volcano.sh/Job": {`{"state": {"phase": "Aborted"}}`, `{"state": {"phase": "Completed"}}`, `{"state": {"phase": "Terminated"}}`},
		"argoproj.io/Workflow": {`{"phase": "Running"}`, `{"phase": "Succeeded"}`, `{"phase": "Error"}`},
	}
	for gk := range terminals {
		s, ok := statuses[gk.Group+"/"+gk.Kind]
		if !ok {
			t.Errorf("%s has no statuses here", gk)
			continue
		}
		for i, want := range []string{"waiting", "done", "failed"} {
			e, got := judged(t, &dag.Resource{Action: "create"}, nil, fmt.Sprintf(`{"apiVersion": "%s/v1", "kind": %q, "status": %s}`, gk.Group, gk.Kind, s[i]))
			switch {
			case e == nil:
				got, _, _ = strings.Cut(got, " ")
			case e.exitCode == 0:
				got = "done"
			default:
				got = "failed"
			}
			if got != want {
				t.Errorf("%s with status %s: %s; want %s", gk, s[i], got, want)
			}
		}
	}
}

func TestOutputs(t *testing.T) {
	const claim = `{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "managedFields": [{}]}, "spec": {"modes": ["a", "b"], "n": 3, "f": 0.5, "none": null}}`
	const secret = `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "c2VjcmV0"}}`
	for _, tt := range []struct {
		obj, path string
		unused    bool
		want      string // or "error: ..."
	}{
		{claim, "{.metadata.name}", false, "data"},
		{claim, "{}", false, `{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"data"},"spec":{"f":0.5,"modes":["a","b"],"n":3,"none":null}}`},
		{claim, "{.spec.modes}", false, `["a","b"]`},
		{claim, "{.spec.modes[*]}", false, "a b"},
		{claim, "{.spec.modes[1]}-{.spec.n}", false, "b-3"},
		{claim, "{.spec.f}", false, "0.5"},
		{claim, "{.spec.none}", false, "null"},
		{claim, `{range .spec.modes[*]}<{@}>{end}`, false, "<a><b>"},
		{claim, "{.status.capacity.storage}", true, ""},
		{claim, "{.status.capacity.storage}", false, `error: output "o", {.status.capacity.storage} of PersistentVolumeClaim "x": status is not found`},
		{claim, "{.spec.modes[2]}", false, `error: output "o", {.spec.modes[2]} of PersistentVolumeClaim "x": array index out of bounds: index 2, length 2`},
		{secret, "{.data.a}", true, ""},
		{secret, "{.data.a}", false, "c2VjcmV0"},
		{secret, "{}", true, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}}`},
	} {
		outputs := []engine.Output{{Output: dag.Output{Name: "o", JSONPath: tt.path}, File: tt.unused}}
		e, _ := judged(t, &dag.Resource{Action: "create"}, outputs, tt.obj)
		got := e.outputs["o"]
		if e.cause == engine.BadOutput {
			got = "error: " + e.reason
		}
		if got != tt.want {
			t.Errorf("output %s: %s\nwant %s", tt.path, got, tt.want)
		}
	}
	long := strings.Replace(claim, `"data"`, `"`+strings.Repeat("x", 151)+`"`, 1)
	for unused, want := range map[bool]engine.Cause{false: engine.BadOutput, true: engine.Exited} {
		e, _ := judged(t, &dag.Resource{Action: "create"}, []engine.Output{{Output: dag.Output{Name: "o", JSONPath: "{.metadata.name}"}, File: unused}}, long)
		if e.cause != want || e.outputs["o"] != "" {
			t.Errorf("output of 151 bytes, of at most 150: %s %q; want %s", e.cause, e.outputs["o"], want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		action, args string
		want         string // the error, or ""
	}{
		{"create", "--validate=false --field-manager me -n ns", ""},
		{"create", "--validate", ""},
		{"create", "--validate=maybe", "--validate=maybe: want one of strict, true, warn, ignore, false"},
		{"apply", "--server-side --force-conflicts --namespace=ns", ""},
		{"apply", "--server-side=perhaps", `invalid argument "perhaps" for "--server-side" flag: must be true or false`},
		{"patch", "--field-manager=me", ""},
		{"patch", "--validate=false", "--validate is none for the action patch: want one of --namespace, --field-manager"},
		{"delete", "--wait=false --ignore-not-found --now --force --grace-period=0 --cascade=orphan", ""},
		{"delete", "--cascade", ""},
		{"delete", "--cascade=all", "--cascade=all: want one of background, foreground, orphan"},
		{"delete", "--wiat=false", `--wiat is none for the action delete: want one of --namespace, --wait, --ignore-not-found, --now, --force, --grace-period, --cascade: did you mean "--wait"?`},
		{"delete", "-x", "-x is none for the action delete: want one of --namespace, --wait, --ignore-not-found, --now, --force, --grace-period, --cascade"},
		{"replace", "--force", "--force is none for the action replace: want one of --namespace, --field-manager, --validate"},
		{"create", "job", `"job" is no flag: the object is that of the manifest`},
	} {
		_, err := parseFlags(tt.action, strings.Fields(tt.args))
		if got := fmt.Sprint(err); got != tt.want && !(err == nil && tt.want == "") {
			t.Errorf("kubectl %s %s: %s\nwant %s", tt.action, tt.args, got, tt.want)
		}
	}
	for _, tt := range []struct {
		args        string
		grace       int64 // -1: not said
		propagation metav1.DeletionPropagation
	}{
		{"", -1, metav1.DeletePropagationBackground},
		{"--cascade=foreground", -1, metav1.DeletePropagationForeground},
		{"--now", 1, metav1.DeletePropagationBackground},
		{"--force", 0, metav1.DeletePropagationBackground},
		{"--grace-period=0", 1, metav1.DeletePropagationBackground}, // as in kubectl, without --force
		{"--grace-period=0 --force", 0, metav1.DeletePropagationBackground},
		{"--grace-period=7", 7, metav1.DeletePropagationBackground},
	} {
		f, err := parseFlags("delete", strings.Fields(tt.args))
		if err != nil {
			t.Fatal(err)
		}
		grace := int64(-1)
		o := f.deletion()
		if o.GracePeriodSeconds != nil {
			grace = *o.GracePeriodSeconds
		}
		if grace != tt.grace || *o.PropagationPolicy != tt.propagation {
			t.Errorf("delete %s: grace %d, %s; want %d, %s", tt.args, grace, *o.PropagationPolicy, tt.grace, tt.propagation)
		}
	}
}

func TestCheck(t *testing.T) {
	yes := true
	n := dag.Ref{Kind: dag.RefParam, Name: "n"}.Token()
	const job = `{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"generateName": "a-"}}`
	const named = `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "there"}}`
	for _, tt := range []struct {
		name     string
		resource dag.Resource
		manifest string
		path     string
		want     string
	}{
		{"right", dag.Resource{Action: "create", SuccessCondition: "status.succeeded > 0", Flags: []string{"--validate=false"}}, job, "{.metadata.name}", ""},
		{"values of the run", dag.Resource{Action: "create", SuccessCondition: n, FailureCondition: "status.failed > " + n, Flags: []string{n}}, job, n, ""},
		{"conditions", dag.Resource{Action: "create", SuccessCondition: "status.succeeded >= 1", FailureCondition: "status.x == a b"}, job, "{}",
			"in.star:3:5: step \"s\": success_condition \"status.succeeded >= 1\": unable to parse requirement: found '=', expected: identifier\n" +
				"in.star:3:5: step \"s\": failure_condition \"status.x == a b\": found 'b', expected: ',' or 'end of string'"},
		{"flags", dag.Resource{Action: "create", Flags: []string{"--dry-run"}}, job, "{}",
			`in.star:3:5: step "s": flags: --dry-run is none for the action create: want one of --namespace, --field-manager, --validate`},
		{"path", dag.Resource{Action: "create"}, job, "metadata.name", `in.star:4:5: step "s": output "o": path "metadata.name" has no braces`},
		{"path 2", dag.Resource{Action: "create"}, job, "{.metadata", `in.star:4:5: step "s": output "o": path "{.metadata": unclosed action`},
		{"generateName", dag.Resource{Action: "apply"}, job, "{}",
			`in.star:3:5: step "s": the action apply needs metadata.name: metadata.generateName is for create`},
		{"json", dag.Resource{Action: "patch", MergeStrategy: "json"}, named, "{}",
			`in.star:3:5: step "s": merge_strategy "json": want the operations as a list in k8s_resource["patch"], beside apiVersion, kind and metadata`},
		{"json of apply", dag.Resource{Action: "apply", MergeStrategy: "json"}, named, "{}",
			`in.star:3:5: step "s": merge_strategy "json" is for the action patch`},
		{"owner", dag.Resource{Action: "create", SetOwnerReference: &yes}, named, "{}",
			`in.star:3:5: step "s": set_owner_reference: its object is in namespace "there", and the run in "here": the cluster would delete it at once`},
		{"owner of a patch", dag.Resource{Action: "patch", SetOwnerReference: &yes}, named, "{}",
			`in.star:3:5: step "s": set_owner_reference is for the actions create, apply and replace, not patch`},
	} {
		tt.resource.Manifest = manifest(t, tt.manifest)
		s := &dag.Step{Name: "s", Pos: dag.Pos{File: "in.star", Line: 3, Col: 5}, Resource: &tt.resource,
			Outputs: []dag.Output{{Name: "o", JSONPath: tt.path, Pos: dag.Pos{File: "in.star", Line: 4, Col: 5}}}}
		if got := Check(s, "here").Error(); got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestObjectName(t *testing.T) {
	id := engine.AttemptID("run", "step", 1)
	long := strings.Repeat("x", 70)
	for _, tt := range []struct{ name, generateName, want string }{
		{"a", "", "a"},
		{"a", "b-", "a"},
		{"", "b-", "b-" + suffix(id)},
		{"", long, long[:55] + suffix(id)},
	} {
		if got := objectName(tt.name, tt.generateName, id); got != tt.want {
			t.Errorf("objectName(%q, %q) = %q; want %q", tt.name, tt.generateName, got, tt.want)
		}
	}
	if a, b := suffix(id), suffix(engine.AttemptID("run", "step", 2)); len(a) != 8 || a == b {
		t.Errorf("suffixes %q and %q of two attempts: want two of 8 characters", a, b)
	}
}

func TestRetype(t *testing.T) {
	schemas := map[string]*node{}
	const doc = `{
		"Job": {"properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/Spec"}]}, "metadata": {"properties": {"name": {"type": "string"}}}}},
		"Spec": {"properties": {
			"n": {"type": "integer"}, "f": {"type": "number"}, "on": {"type": "boolean"}, "text": {"type": "string"},
			"port": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
			"either": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
			"quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
			"list": {"type": "array", "items": {"type": "integer"}},
			"map": {"type": "object", "additionalProperties": {"type": "integer"}},
			"any": {"type": "object", "additionalProperties": true},
			"self": {"$ref": "#/components/schemas/Spec"}}}}`
	if err := json.Unmarshal([]byte(doc), &schemas); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ in, want string }{
		{`{"n": "3"}`, `{"n": 3}`},
		{`{"n": " 3\n"}`, `{"n": 3}`},
		{`{"n": "3.5"}`, `{"n": "3.5"}`},
		{`{"n": "many"}`, `{"n": "many"}`},
		{`{"n": 3}`, `{"n": 3}`},
		{`{"f": "0.5"}`, `{"f": 0.5}`},
		{`{"f": "NaN"}`, `{"f": "NaN"}`},
		{`{"on": "True"}`, `{"on": true}`},
		{`{"on": "false"}`, `{"on": false}`},
		{`{"text": "3"}`, `{"text": "3"}`},
		{`{"port": "80", "either": "25%"}`, `{"port": 80, "either": "25%"}`},
		{`{"quantity": "3"}`, `{"quantity": "3"}`},
		{`{"list": ["1", "2"]}`, `{"list": [1, 2]}`},
		{`{"map": {"a": "1"}}`, `{"map": {"a": 1}}`},
		{`{"any": {"a": "1"}}`, `{"any": {"a": "1"}}`},
		{`{"self": {"self": {"n": "1"}}}`, `{"self": {"self": {"n": 1}}}`},
		{`{"other": "1"}`, `{"other": "1"}`},
	} {
		got := tree(t, `{"spec": `+tt.in+`, "metadata": {"name": "3"}}`)
		c := converter{schemas: schemas}
		c.convert(schemas["Job"], got)
		want := tree(t, `{"spec": `+tt.want+`, "metadata": {"name": "3"}}`)
		if d := cmp.Diff(want, got); d != "" || c.changed != (tt.in != tt.want) {
			t.Errorf("convert(%s), changed %v (-want +got):\n%s", tt.in, c.changed, d)
		}
	}
}

func TestErrors(t *testing.T) {
	gr := schema.GroupResource{Group: "batch", Resource: "jobs"}
	answer := func(code int32, reason metav1.StatusReason, message string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Reason: reason, Message: message}}
	}
	dial := &url.Error{Op: "Post", URL: "https://10.0.0.1/apis", Err: &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}}
	for _, tt := range []struct {
		err                   error
		temporary, unanswered bool
		why                   string
	}{
		{dial, true, false, "the API server cannot be reached: dial tcp: connection refused"},
		{&url.Error{Op: "Post", URL: "https://10.0.0.1/apis", Err: errors.New("EOF")}, true, true, "the API server cannot be reached: EOF"},
		{context.DeadlineExceeded, true, true, "the API server does not answer"},
		{apierrors.NewTooManyRequests("busy", 1), true, false, "the API server is busy"},
		{apierrors.NewInternalError(errors.New("etcd")), true, true, "the API server: Internal error occurred: etcd"},
		{apierrors.NewServiceUnavailable("starting"), true, true, "the API server: starting"},
		{apierrors.NewConflict(gr, "a", errors.New("changed")), true, false, `the API server: Operation cannot be fulfilled on jobs.batch "a": changed`},
		{apierrors.NewAlreadyExists(gr, "a"), false, false, ""},
		{apierrors.NewNotFound(gr, "a"), false, false, ""},
		{apierrors.NewForbidden(gr, "a", errors.New(`User "u" cannot create resource`)), false, false, ""},
		{apierrors.NewForbidden(gr, "a", errors.New("exceeded quota: q, requested: count/jobs=1")), true, false, "exceeded quota: q, requested: count/jobs=1"},
		{answer(500, "", "failed to create typed patch object (/a; batch/v1, Kind=Job): .spec.x: field not declared in schema"), false, false, ""},
		{answer(500, "", "failed to convert new object (ns/s; /v1, Kind=Secret) to proper version: illegal base64 data"), false, false, ""},
		{answer(500, "", "etcdserver: request timed out"), true, true, "the API server: etcdserver: request timed out"},
		{answer(401, metav1.StatusReasonUnauthorized, "Unauthorized"), true, false, "the API server: Unauthorized"},
	} {
		if got := temporary(tt.err); got != tt.temporary {
			t.Errorf("temporary(%v) = %v; want %v", tt.err, got, tt.temporary)
		}
		if got := unanswered(tt.err); got != tt.unanswered {
			t.Errorf("unanswered(%v) = %v; want %v", tt.err, got, tt.unanswered)
		}
		if got := why(tt.err); tt.temporary && got != tt.why {
			t.Errorf("why(%v) = %q; want %q", tt.err, got, tt.why)
		}
	}
}

// TestDetail keeps the data of a Secret, and whole objects, out of messages.
func TestDetail(t *testing.T) {
	whole := `Invalid value: "{` + strings.Repeat("c2VjcmV0", 100) + `}": unrecognized type: int32`
	s := &metav1.Status{Reason: metav1.StatusReasonInvalid, Message: `"a" is invalid: patch: ` + whole,
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Field: "patch", Message: whole}, {Field: "data[a]", Message: `Invalid value: "c2VjcmV0": bad`}}}}
	of := func(kind string) *task {
		k := &task{}
		k.kind.GroupVersionKind = schema.GroupVersionKind{Version: "v1", Kind: kind}
		return k
	}
	if got, want := of("ConfigMap").detail(s), `unrecognized type: int32; data[a]: Invalid value: "c2VjcmV0": bad`; got != want {
		t.Errorf("detail of a ConfigMap = %q; want %q", got, want)
	}
	if got, want := of("Secret").detail(s), "patch; data[a]"; got != want {
		t.Errorf("detail of a Secret = %q; want %q", got, want)
	}
	if got, want := of("Secret").why(&apierrors.StatusError{ErrStatus: metav1.Status{Code: 500, Message: "c2VjcmV0"}}), "the API server: error 500"; got != want {
		t.Errorf("why of a Secret = %q; want %q", got, want)
	}
	s.Details = nil
	if got, want := of("Secret").detail(s), "Invalid"; got != want {
		t.Errorf("detail of a Secret without causes = %q; want %q", got, want)
	}
}

// TestServerAway shows that an attempt waits for an API server that is not
// there, and can be stopped all the same.
func TestServerAway(t *testing.T) {
	r, err := New(&rest.Config{Host: "https://127.0.0.1:1"}, &memIntents{}, Config{Namespace: "ns", Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	a := &engine.Attempt{ID: "a-1", Resource: &dag.Resource{Action: "create",
		Manifest: manifest(t, `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}`)}}
	var seen []engine.Observation
	waits := make(chan bool, 1)
	done := make(chan error)
	go func() {
		done <- r.Run(t.Context(), a, func(o engine.Observation) {
			seen = append(seen, o)
			select {
			case waits <- true:
			default:
			}
		})
	}()
	<-waits
	if err := r.Run(t.Context(), a, nil); err == nil {
		t.Error("a second Run of the attempt: no error")
	}
	if err := r.Stop(t.Context(), a.ID, nil); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	reasons := []string{"the API server cannot be reached: dial tcp 127.0.0.1:1: connect: connection refused", "stopped; nothing was done"}
	last := seen[len(seen)-1]
	if seen[0].Phase != engine.PhasePending || seen[0].Reason != reasons[0] || last.Reason != reasons[1] || last.Cause != engine.Stopped {
		t.Errorf("observed %+v; want pending and stopped for the reasons %q", seen, reasons)
	}
	if err := r.Stop(t.Context(), a.ID, nil); err != nil {
		t.Errorf("stop after the end: %v", err)
	}
	if err := r.Stop(t.Context(), "unknown", func(o engine.Observation) { t.Errorf("stop of an unknown attempt: %+v", o) }); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b := *a
	b.ID = "b-1"
	err = r.Run(ctx, &b, func(engine.Observation) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run whose context ends: %v", err)
	}
	b.ID, b.PendingTimeout = "b-2", time.Millisecond
	err = r.Run(t.Context(), &b, func(o engine.Observation) { last = o })
	if err != nil || last.Cause != engine.CannotRun || !strings.HasPrefix(last.Reason, "pending for 1ms: the API server cannot be reached") {
		t.Errorf("Run with a limit: %v, %+v", err, last)
	}
}

func TestRole(t *testing.T) {
	jobs := kind{schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}, "jobs", true}
	claims := kind{schema.GroupVersionKind{Version: "v1", Kind: "PersistentVolumeClaim"}, "persistentvolumeclaims", true}
	for _, tt := range []struct {
		kind      kind
		resource  dag.Resource
		wantVerbs string
	}{
		{jobs, dag.Resource{Action: "create"}, "create delete get watch"},
		{jobs, dag.Resource{Action: "apply"}, "create get patch watch"},
		{claims, dag.Resource{Action: "apply"}, "create patch"},
		{jobs, dag.Resource{Action: "patch"}, "patch"},
		{jobs, dag.Resource{Action: "patch", SuccessCondition: "status.active"}, "get patch watch"},
		{jobs, dag.Resource{Action: "replace"}, "get update"},
		{jobs, dag.Resource{Action: "delete"}, "delete get"},
		{jobs, dag.Resource{Action: "delete", Flags: []string{"--wait=false"}}, "delete"},
		{claims, dag.Resource{Action: "create"}, "create get"},
	} {
		f, err := parseFlags(tt.resource.Action, tt.resource.Flags)
		if err != nil {
			t.Fatal(err)
		}
		got := access(tt.kind, "ns", &tt.resource, f).Verbs
		if !slices.Equal(got, strings.Fields(tt.wantVerbs)) {
			t.Errorf("access to %s %s = %v; want %s", tt.resource.Action, tt.kind.Kind, got, tt.wantVerbs)
		}
	}
	want := "# a Role in namespace \"ns\"\nrules:\n- apiGroups: [\"batch\"]\n  resources: [\"jobs\"]\n  verbs: [\"delete\", \"get\"]"
	if got := access(jobs, "ns", &dag.Resource{Action: "delete"}, flags{wait: true}).Role(); got != want {
		t.Errorf("Role() = %s\nwant %s", got, want)
	}
}
