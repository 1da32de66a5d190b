package resource

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines the flags of kubectl that a step may have.

// flags are the flags of an action.
type flags struct {
	namespace, manager, validate string

	serverSide, forceConflicts bool // of apply

	// Of delete.
	wait, ignoreMissing, now, force bool
	grace                           int
	cascade                         string
}

// parseFlags reads flags as kubectl does. Those that would only change what
// kubectl prints or reads, or do nothing, are as unknown as any other.
func parseFlags(action string, args []string) (flags, error) {
	var f flags
	set := pflag.NewFlagSet(action, pflag.ContinueOnError)
	set.SortFlags = false
	set.StringVarP(&f.namespace, "namespace", "n", "", "")
	if action == "delete" {
		set.BoolVar(&f.wait, "wait", true, "")
		set.BoolVar(&f.ignoreMissing, "ignore-not-found", true, "") // Argo gives it
		set.BoolVar(&f.now, "now", false, "")
		set.BoolVar(&f.force, "force", false, "")
		set.IntVar(&f.grace, "grace-period", -1, "")
		set.StringVar(&f.cascade, "cascade", "background", "")
		set.Lookup("cascade").NoOptDefVal = "background"
	} else {
		set.StringVar(&f.manager, "field-manager", "kfs", "")
	}
	if action == "create" || action == "apply" || action == "replace" {
		set.StringVar(&f.validate, "validate", "strict", "")
		set.Lookup("validate").NoOptDefVal = "strict"
	}
	if action == "apply" {
		set.BoolVar(&f.serverSide, "server-side", false, "")
		set.BoolVar(&f.forceConflicts, "force-conflicts", false, "")
	}
	var unknown *pflag.NotExistError
	switch err := set.Parse(args); {
	case errors.As(err, &unknown):
		var known []string
		set.VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		name := "--" + unknown.GetSpecifiedName()
		hint := spell.DidYouMean(name, known)
		if short := unknown.GetSpecifiedShortnames(); short != "" {
			name, hint = "-"+short, ""
		}
		if hint != "" {
			hint = ": " + hint
		}
		return flags{}, fmt.Errorf("%s is none for the action %s: want one of %s%s", name, action, strings.Join(known, ", "), hint)
	case err != nil:
		return flags{}, err
	}
	if set.NArg() > 0 {
		return flags{}, fmt.Errorf("%q is no flag: the object is that of the manifest", set.Arg(0))
	}
	for _, enum := range []struct {
		name, value string
		values      []string
	}{
		{"validate", f.validate, []string{"strict", "true", "warn", "ignore", "false"}},
		{"cascade", f.cascade, []string{"background", "foreground", "orphan"}},
	} {
		if set.Lookup(enum.name) != nil && !slices.Contains(enum.values, enum.value) {
			return flags{}, fmt.Errorf("--%s=%s: want one of %s", enum.name, enum.value, strings.Join(enum.values, ", "))
		}
	}
	return f, nil
}

// validation returns what the API server does about unknown fields.
func (f flags) validation() string {
	switch f.validate {
	case "warn":
		return metav1.FieldValidationWarn
	case "ignore", "false":
		return metav1.FieldValidationIgnore
	}
	return metav1.FieldValidationStrict
}

// deletion returns how kubectl deletes with these flags.
func (f flags) deletion() metav1.DeleteOptions {
	propagation := map[string]metav1.DeletionPropagation{
		"background": metav1.DeletePropagationBackground,
		"foreground": metav1.DeletePropagationForeground,
		"orphan":     metav1.DeletePropagationOrphan,
	}[f.cascade]
	o := metav1.DeleteOptions{PropagationPolicy: &propagation}
	grace := int64(f.grace)
	switch {
	case f.now:
		grace = 1
	case f.force && grace < 0:
		grace = 0
	case grace == 0 && !f.force:
		grace = 1
	}
	if grace >= 0 {
		o.GracePeriodSeconds = &grace
	}
	return o
}
