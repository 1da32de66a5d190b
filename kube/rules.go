package kube

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file defines the rules that Kubernetes has between the fields of an
// object, and the ranges of its numbers, as far as they are the same wherever
// the object stands. The source is pkg/apis/core/validation of Kubernetes.

// oneOf are the fields of a type of which one is to be set; of those that may
// have none, optional is set.
var oneOf = map[string]struct {
	fields   []string // nil: all of an object
	optional bool     // none of them is as good as one
}{
	"EnvFromSource":    {fields: []string{"configMapRef", "secretRef"}},
	"EnvVar":           {fields: []string{"value", "valueFrom"}, optional: true},
	"EnvVarSource":     {},
	"LifecycleHandler": {},
	"Probe":            {fields: []string{"exec", "grpc", "httpGet", "tcpSocket"}},
	"Volume":           {optional: true}, // none is an emptyDir
}

// rules adds the faults that an object of the type has beside those of its
// fields. What holds a value known only at run time is passed over.
func (f *fitter) rules(t *Type, path string, obj dag.Object) {
	text := func(field string) string { s, _ := obj.Get(field).(string); return s }
	list := func(field string) []any { l, _ := obj.Get(field).([]any); return l }
	if one, ok := oneOf[t.Name]; ok {
		f.one(t, path, obj, one.fields, one.optional)
	}
	switch t.Name {
	case "Toleration":
		switch op := text("operator"); {
		case op == "Exists" && text("value") != "":
			f.fault(path, "the operator Exists takes no value")
		case op != "Exists" && !dag.HasRefs(op) && text("key") == "":
			f.fault(path, "a Toleration without a key needs the operator Exists")
		}
		if effect := text("effect"); obj.Get("tolerationSeconds") != nil && effect != "NoExecute" && !dag.HasRefs(effect) {
			f.fault(path, "toleration_seconds needs the effect NoExecute")
		}
	case "NodeSelectorRequirement", "LabelSelectorRequirement":
		n := len(list("values"))
		switch op := text("operator"); {
		case (op == "In" || op == "NotIn") && n == 0:
			f.fault(path, "the operator %s needs values", op)
		case (op == "Exists" || op == "DoesNotExist") && n > 0:
			f.fault(path, "the operator %s takes no values", op)
		case op == "Gt" || op == "Lt":
			value, _ := append(list("values"), "")[0].(string)
			if _, err := strconv.Atoi(value); n != 1 || err != nil && !dag.HasRefs(value) {
				f.fault(path, "the operator %s needs one value, a whole number", op)
			}
		}
	case "ContainerPort":
		if name := text("name"); name != "" && !dag.HasRefs(name) && !isPortName(name) {
			f.fault(path, "port name %q: want %s", name, portNames)
		}
	case "HTTPGetAction", "TCPSocketAction":
		if port := text("port"); port != "" && !dag.HasRefs(port) && !isPortName(port) {
			if _, err := strconv.Atoi(port); err == nil {
				f.fault(path, "port %q is text: want the number, or the name of a port", port)
			} else {
				f.fault(path, "port %q: want a number, or the name of a port: %s", port, portNames)
			}
		}
	case "NodeSelector":
		if len(list("nodeSelectorTerms")) == 0 {
			f.fault(path, "a NodeSelector needs at least one of node_selector_terms")
		}
	}
}

// portNames says what isPortName accepts.
const portNames = "at most 15 small letters, digits and single hyphens, a letter among them, and no hyphen at either end"

// isPortName reports whether a text is the name of a port. The source is
// IsValidPortName of k8s.io/apimachinery, after RFC 6335.
func isPortName(name string) bool {
	known := func(r rune) bool { return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' }
	return len(name) <= 15 && !strings.ContainsFunc(name, func(r rune) bool { return !known(r) }) &&
		strings.ContainsFunc(name, func(r rune) bool { return 'a' <= r && r <= 'z' }) &&
		!strings.Contains(name, "--") && name[0] != '-' && name[len(name)-1] != '-'
}

// one adds a fault if not exactly one of the fields is set.
func (f *fitter) one(t *Type, path string, obj dag.Object, fields []string, optional bool) {
	var all, set []string
	for _, field := range t.Fields {
		if fields == nil && TypeOf(field.Type) == nil || fields != nil && !slices.Contains(fields, field.Name) {
			continue
		}
		all = append(all, Snake(field.Name))
		if v := obj.Get(field.Name); v != nil && v != "" {
			set = append(set, Snake(field.Name))
		}
	}
	switch {
	case len(set) > 1:
		f.fault(path, "%s has %s: want one of them", article(t.Name), strings.Join(set, " and "))
	case len(set) == 0 && !optional:
		f.fault(path, "%s needs one of %s", article(t.Name), strings.Join(all, ", "))
	}
}

// inRange returns what is wrong with a number of a field of a type, or "".
func inRange(typ, field string, n int64) string {
	least, most := int64(0), int64(-1)
	switch field {
	case "containerPort", "hostPort", "port":
		if typ == "ContainerPort" && field == "hostPort" {
			most = 65535 // 0 is none
			break
		}
		least, most = 1, 65535
	case "weight":
		least, most = 1, 100
	case "mode", "defaultMode":
		most = 0o777
	case "runAsUser", "runAsGroup", "fsGroup", "expirationSeconds", "failureThreshold", "initialDelaySeconds", "periodSeconds",
		"successThreshold", "terminationGracePeriodSeconds", "timeoutSeconds", "seconds", "activeDeadlineSeconds":
	default:
		return ""
	}
	switch {
	case n < least && most < 0 || n < least && least == 0:
		return fmt.Sprintf("%d: want %d or more", n, least)
	case most >= 0 && (n < least || n > most):
		return fmt.Sprintf("%d: want a number from %d to %d", n, least, most)
	}
	return ""
}
