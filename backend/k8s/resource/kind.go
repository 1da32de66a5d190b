package resource

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
)

// This file finds the kinds that the cluster has, and what a step needs to be
// allowed to do with them. Package discovery would do, and register all of
// Kubernetes' own types in each start of the program.

// A kind is a kind of objects that the cluster has.
type kind struct {
	schema.GroupVersionKind
	plural     string
	namespaced bool
}

func (k kind) resource() schema.GroupVersionResource { return k.GroupVersion().WithResource(k.plural) }

// An unknownKind is a kind that the cluster does not have.
type unknownKind struct {
	kind    schema.GroupVersionKind
	nearest string // `did you mean "Job"?`, or ""
}

func (e *unknownKind) Error() string {
	return fmt.Sprintf("the cluster has no kind %q of apiVersion %q", e.kind.Kind, e.kind.GroupVersion())
}

func (e *unknownKind) hint() string {
	if e.custom() {
		return cmp.Or(e.nearest, "the CustomResourceDefinition that brings it may not be installed, or not in this version")
	}
	return e.nearest
}

// custom reports whether a CustomResourceDefinition may bring the kind.
func (e *unknownKind) custom() bool { return strings.Contains(e.kind.Group, ".") }

// lookup returns the kind, or an *unknownKind.
func (r *Runner) lookup(ctx context.Context, gvk schema.GroupVersionKind) (kind, error) {
	gv := gvk.GroupVersion()
	r.mu.Lock()
	k, ok := r.kinds[gv][gvk.Kind]
	r.mu.Unlock()
	if ok {
		return k, nil
	}
	text, err := r.rest.Get().AbsPath(groupPath(gv)).DoRaw(ctx)
	if apierrors.IsNotFound(err) {
		return kind{}, &unknownKind{kind: gvk}
	}
	if err != nil {
		return kind{}, err
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(text, &list); err != nil {
		return kind{}, fmt.Errorf("resources of %s: %w", gv, err)
	}
	kinds := map[string]kind{}
	var names []string
	for _, res := range list.APIResources {
		if !strings.Contains(res.Name, "/") { // a subresource
			kinds[res.Kind] = kind{gv.WithKind(res.Kind), res.Name, res.Namespaced}
			names = append(names, res.Kind)
		}
	}
	r.mu.Lock()
	r.kinds[gv] = kinds
	r.mu.Unlock()
	if k, ok = kinds[gvk.Kind]; !ok {
		return kind{}, &unknownKind{gvk, spell.DidYouMean(gvk.Kind, names)}
	}
	return k, nil
}

// groupPath is where the API server serves a version of a group.
func groupPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

// An Access is what a step must be allowed to do.
type Access struct {
	Group     string
	Resource  string // in the plural: "jobs"
	Namespace string // "" is the whole cluster
	Verbs     []string
}

// Access returns what carrying out the step needs, the end by Stop included.
// An error is that of the API server, or that it has no such kind, which an
// earlier step may yet bring. The step has no tokens in apiVersion, kind and
// metadata.namespace.
func (r *Runner) Access(ctx context.Context, res *dag.Resource) (Access, error) {
	apiVersion, _ := res.Manifest.Get("apiVersion").(string)
	k, err := r.lookup(ctx, schema.FromAPIVersionAndKind(apiVersion, res.Kind()))
	if err != nil {
		return Access{}, err
	}
	f, err := parseFlags(res.Action, res.Flags)
	if err != nil {
		return Access{}, err
	}
	namespace, _ := res.Manifest.Get("metadata", "namespace").(string)
	return access(k, cmp.Or(namespace, f.namespace, r.cfg.Namespace), res, f), nil
}

func access(k kind, namespace string, res *dag.Resource, f flags) Access {
	if !k.namespaced {
		namespace = ""
	}
	_, ends := terminals[k.GroupKind()]
	waits := res.SuccessCondition != "" || ends && (res.Action == "create" || res.Action == "apply")
	verbs := map[bool][]string{true: {"get", "watch"}}[waits]
	switch res.Action {
	case "create":
		verbs = append(verbs, "create", "get") // to find its own again
		if !holdsData(k.GroupKind()) {
			verbs = append(verbs, "delete")
		}
	case "apply":
		verbs = append(verbs, "create", "patch")
	case "replace":
		verbs = append(verbs, "get", "update")
	case "delete":
		verbs = append(verbs, "delete")
		if f.wait {
			verbs = append(verbs, "get")
		}
	default:
		verbs = append(verbs, res.Action)
	}
	slices.Sort(verbs)
	return Access{Group: k.Group, Resource: k.plural, Namespace: namespace, Verbs: slices.Compact(verbs)}
}

// access is what the attempt needs.
func (t *task) access() Access {
	if t.a.Resource == nil {
		return Access{Group: t.kind.Group, Resource: t.kind.plural, Namespace: t.namespace, Verbs: []string{"delete", "get"}}
	}
	return access(t.kind, t.namespace, t.a.Resource, t.flags)
}

// what names the objects, as a message does.
func (a Access) what() string {
	s := a.Resource
	if a.Group != "" {
		s += "." + a.Group
	}
	if a.Namespace == "" {
		return s + " of the whole cluster"
	}
	return fmt.Sprintf("%s in namespace %q", s, a.Namespace)
}

// Role returns the rule that allows it, as YAML for a Role or ClusterRole.
func (a Access) Role() string {
	of := fmt.Sprintf("# a Role in namespace %q", a.Namespace)
	if a.Namespace == "" {
		of = "# a ClusterRole"
	}
	return fmt.Sprintf("%s\nrules:\n- apiGroups: [%q]\n  resources: [%q]\n  verbs: [%s]", of, a.Group, a.Resource, quoted(a.Verbs))
}

func quoted(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(q, ", ")
}
