// Package kube is what Kubernetes knows about the parts of a step that are its
// own: the forms of names and quantities, and the rules between the fields of
// a container.
//
//	CheckQuantity   a quantity of a resource, as text
//	TypeOf, Fit     the types of core/v1, and whether a tree fits one
//	CheckLabel      the name of a volume, container or service
//	CheckSubdomain  the name of most other objects
//	Check           the rules between the fields of a pipeline's steps
package kube

import (
	"fmt"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// CheckQuantity returns what is wrong with the quantity of a resource, or nil.
// Values known only at run time may stand for the whole quantity, and in the
// name of the resource.
func CheckQuantity(resourceName, text string) error {
	if _, ok := dag.SoleRef(text); ok {
		return nil
	}
	q, err := parseQuantity(text)
	if err != nil {
		return fmt.Errorf("%s %q is not a quantity: want a number with an optional unit, such as %s", resourceName, dag.Display(text), example(resourceName))
	}
	if q.Sign() < 0 {
		return fmt.Errorf("%s %q: want no less than 0", resourceName, text)
	}
	if !fractional(resourceName) && !q.IsInt() {
		return fmt.Errorf("%s %q: want a whole number", resourceName, text)
	}
	return nil
}

// fractional reports whether a resource can be had in parts of a unit, as one
// whose name only the run will know may be.
func fractional(name string) bool {
	return name == "cpu" || name == "memory" || name == "ephemeral-storage" || dag.HasRefs(name)
}

func example(name string) string {
	switch name {
	case "cpu":
		return `"500m" or "2"`
	case "memory", "ephemeral-storage", "storage":
		return `"512Mi" or "2G"`
	}
	return `"1"`
}

// CheckLabel returns what is wrong with a name that must be a DNS label
// (RFC 1123), as that of a volume, or nil.
func CheckLabel(name string) error {
	if len(name) > 63 || !dnsLabel(name) {
		return fmt.Errorf("%q: want at most 63 small letters, digits and hyphens, with no hyphen at either end", dag.Display(name))
	}
	return nil
}

// CheckSubdomain returns what is wrong with a name that must be a DNS
// subdomain (RFC 1123), as that of a secret or a claim, or nil.
func CheckSubdomain(name string) error {
	ok := len(name) <= dag.MaxName
	for label := range strings.SplitSeq(name, ".") {
		ok = ok && dnsLabel(label)
	}
	if !ok {
		return fmt.Errorf("%q: want at most %d small letters, digits, hyphens and dots, with no hyphen or dot at either end", dag.Display(name), dag.MaxName)
	}
	return nil
}

func dnsLabel(s string) bool {
	return s != "" && s[0] != '-' && s[len(s)-1] != '-' &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-')
		})
}

// CheckLabelName returns what is wrong with the name of a label or annotation,
// or nil: a name, with a DNS subdomain and a slash before it or without.
func CheckLabelName(name string) error {
	prefix, rest, ok := strings.Cut(name, "/")
	if !ok {
		prefix, rest = "", name
	}
	if rest == "" || !labelText(rest) || ok && CheckSubdomain(prefix) != nil {
		return fmt.Errorf(`%q: want at most 63 letters, digits and _.- with a letter or digit at either end, such as "team" or "example.com/team"`, dag.Display(name))
	}
	return nil
}

// CheckLabelValue returns what is wrong with the value of a label, or nil.
func CheckLabelValue(value string) error {
	if !labelText(value) {
		return fmt.Errorf("%q: want at most 63 letters, digits and _.- with a letter or digit at either end", dag.Display(value))
	}
	return nil
}

// labelText reports whether s may be the value of a label; "" may.
func labelText(s string) bool {
	alnum := func(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' }
	for i := range len(s) {
		if !alnum(s[i]) && (i == 0 || i == len(s)-1 || !strings.ContainsRune("_.-", rune(s[i]))) {
			return false
		}
	}
	return len(s) <= 63
}

// CheckEnvName returns what is wrong with the name of an environment
// variable, or nil.
func CheckEnvName(name string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '=' }) {
		return fmt.Errorf("%q: want printable ASCII without spaces and =", dag.Display(name))
	}
	return nil
}
