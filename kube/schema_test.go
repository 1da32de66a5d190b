package kube

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// This file makes schema.txt by reflection over core/v1. The package itself
// must not import core/v1: that alone would cost the command 8 ms of its start.

var update = flag.Bool("update", false, "rewrite schema.txt instead of comparing with it")

// TestSchema compares schema.txt with core/v1. go generate ./kube rewrites it.
func TestSchema(t *testing.T) {
	got, err := makeSchema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("schema.txt", got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(schema, string(got)); diff != "" {
		t.Errorf("schema.txt is not that of core/v1 (-have +want); write it with: go generate ./kube\n%s", diff)
	}
}

const (
	corePath = "k8s.io/api/core/v1"
	metaPath = "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// openEnums are the types of strings that have constants and take other
// values too.
var openEnums = map[string]bool{
	"ClaimResourceStatus": true, "ComponentConditionType": true, "FinalizerName": true, "NamespaceConditionType": true,
	"NodeConditionType": true, "OSName": true, "PersistentVolumeClaimConditionType": true, "PodConditionType": true,
	"PodTopologyLabelsAdmission": true, "ReplicationControllerConditionType": true, "ResourceName": true,
	"SecretType": true, "StorageMedium": true, "CauseType": true, "StatusReason": true,
}

// makeSchema returns the types that can be reached from the kinds of core/v1.
func makeSchema() ([]byte, error) {
	enums := map[string][]string{}
	for _, path := range []string{corePath, metaPath} {
		if err := addConstants(enums, path); err != nil {
			return nil, err
		}
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	m := maker{enums: enums, blocks: map[string]string{}}
	for _, t := range scheme.KnownTypes(corev1.SchemeGroupVersion) {
		if t.PkgPath() == corePath {
			if _, err := m.expr(t); err != nil {
				return nil, err
			}
		}
	}
	b := bytes.NewBufferString("# The types of core/v1 and what they use of meta/v1. Made by: go generate ./kube\n")
	for _, name := range slices.Sorted(maps.Keys(m.blocks)) {
		b.WriteString(m.blocks[name])
	}
	return b.Bytes(), nil
}

type maker struct {
	enums  map[string][]string
	blocks map[string]string // lines of the table by the name of the type
}

// expr returns the expression of a type, and adds the types it names.
func (m maker) expr(t reflect.Type) (string, error) {
	switch t {
	case reflect.TypeFor[resource.Quantity]():
		return "quantity", nil
	case reflect.TypeFor[intstr.IntOrString]():
		return "intOrString", nil
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime]():
		return "time", nil
	case reflect.TypeFor[metav1.FieldsV1](), reflect.TypeFor[runtime.RawExtension]():
		return "any", nil
	case reflect.TypeFor[[]byte]():
		return "bytes", nil
	}
	switch t.Kind() {
	case reflect.Bool, reflect.Int32, reflect.Int64, reflect.Float64:
		return t.Kind().String(), nil
	case reflect.Pointer:
		return m.expr(t.Elem())
	case reflect.Slice:
		elem, err := m.expr(t.Elem())
		return "[]" + elem, err
	case reflect.Map:
		elem, err := m.expr(t.Elem())
		return "{}" + elem, err
	case reflect.String:
		if t.PkgPath() == "" || openEnums[t.Name()] || m.enums[t.Name()] == nil {
			return "string", nil
		}
		m.blocks[t.Name()] = t.Name() + " = " + strings.Join(m.enums[t.Name()], " ") + "\n"
		return t.Name(), nil
	case reflect.Struct:
		if p := t.PkgPath(); p != corePath && p != metaPath {
			return "", fmt.Errorf("type %s of %s: want one of core/v1 or meta/v1", t.Name(), p)
		}
		if _, ok := m.blocks[t.Name()]; ok {
			return t.Name(), nil
		}
		m.blocks[t.Name()] = ""
		fields, err := m.fields(t)
		slices.Sort(fields)
		m.blocks[t.Name()] = t.Name() + "\n" + strings.Join(fields, "")
		return t.Name(), err
	}
	return "", fmt.Errorf("type %s of kind %s", t, t.Kind())
}

// fields returns a line for each field, those of embedded types included.
func (m maker) fields(t reflect.Type) ([]string, error) {
	var lines []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			if f.Type.Kind() != reflect.Struct || !f.Anonymous {
				return nil, fmt.Errorf("field %s of %s has no JSON name", f.Name, t)
			}
			if _, err := m.expr(f.Type); err != nil {
				return nil, err
			}
			inner, err := m.fields(f.Type)
			if err != nil {
				return nil, err
			}
			lines = append(lines, inner...)
			continue
		}
		if name == "-" {
			continue
		}
		expr, err := m.expr(f.Type)
		if err != nil {
			return nil, fmt.Errorf("field %s of %s: %w", f.Name, t, err)
		}
		if !strings.Contains(options, "omit") && f.Type.Kind() != reflect.Pointer {
			name += "!"
		}
		lines = append(lines, " "+name+" "+expr+"\n")
	}
	return lines, nil
}

// addConstants adds the constants of each string type of a package, which
// reflection cannot list, from its source.
func addConstants(enums map[string][]string, path string) error {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		return fmt.Errorf("go list %s: %w", path, err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "*.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.CONST {
				continue
			}
			for _, spec := range decl.Specs {
				spec := spec.(*ast.ValueSpec)
				of, ok := spec.Type.(*ast.Ident)
				if !ok {
					continue
				}
				for _, v := range spec.Values {
					lit, ok := v.(*ast.BasicLit)
					if !ok || lit.Kind != token.STRING {
						continue
					}
					value, err := strconv.Unquote(lit.Value)
					if err != nil {
						return err
					}
					if value == "" || strings.ContainsAny(value, " \n") || slices.Contains(enums[of.Name], value) {
						continue
					}
					enums[of.Name] = append(enums[of.Name], value)
				}
			}
		}
	}
	return nil
}
