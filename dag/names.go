package dag

import "strings"

// This file defines the names that KFP makes of an author's names.

// MaxName is the longest name that Kubernetes gives most objects, in bytes.
const MaxName = 253

// K8sName returns name as KFP's compiler writes it in a Workflow: lower case,
// with each run of characters other than letters and digits as one hyphen,
// and no hyphen at either end. It is "" if nothing is left. The source is
// sanitize_k8s_name of kfp 1.8.22.
func K8sName(name string) string {
	return sanitize(strings.ToLower(name), func(c byte) bool { return false })
}

// FullName returns the name by which KFP's compiler passes the output of a
// step on: the step's name, a hyphen, and the output's name with its capitals
// and underscores kept.
func FullName(step, output string) string {
	return sanitize(step+"-"+output, func(c byte) bool { return c == '_' || 'A' <= c && c <= 'Z' })
}

// ArtifactName returns the name by which KFP's compiler knows a file that a step
// takes: capitals and underscores are kept, as by FullName.
func ArtifactName(input string) string {
	return sanitize(input, func(c byte) bool { return c == '_' || 'A' <= c && c <= 'Z' })
}

// PageOutput returns the name of an output that KFP's page shows, in the form
// that the page looks for, and whether name is one. It is a file for the page
// alone: no step can use its content.
func PageOutput(name string) (string, bool) {
	switch name = K8sName(name); name {
	case "mlpipeline-ui-metadata", "mlpipeline-metrics":
		return name, true
	}
	return "", false
}

// sanitize keeps small letters, digits, and what also accepts; each run of
// others becomes a hyphen.
func sanitize(s string, also func(byte) bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || also(c) {
			b.WriteByte(c)
		} else if n := b.Len(); n > 0 && b.String()[n-1] != '-' {
			b.WriteByte('-')
		}
	}
	return strings.TrimSuffix(b.String(), "-")
}
