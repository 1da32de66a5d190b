package kube

import (
	"cmp"
	_ "embed"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines the types of core/v1 and whether a tree fits one.

//go:generate go test -run ^TestSchema$ -update .

// schema is a table of the types. Of an object, a line with its name is
// followed by a line for each field: a space, the JSON name, ! if the field is
// required, and what it holds. Of a text with fixed values, the line is
// "Name = A B C". What a field holds is the name of a type, [] or {} before
// what the elements of a list or map are, or one of string, int32, int64,
// float64, bool, bytes, quantity, intOrString, time, any.
//
//go:embed schema.txt
var schema string

// A Type is a type of core/v1, or one of meta/v1 that these use.
type Type struct {
	Name   string
	Fields []Field  // of an object
	Values []string // of a text: what it may be; nil for an object
}

// A Field is a field of an object.
type Field struct {
	Name     string // in JSON
	Type     string // as in the table
	Required bool
}

// renamed are types that Kubernetes' Python client once had under these names.
var renamed = map[string]string{"Handler": "LifecycleHandler"}

var types struct {
	sync.Mutex
	known map[string]*Type
}

// TypeOf returns the type of the name, with or without the prefix V1 that
// Kubernetes' Python client gives it, or nil. It must not be changed.
func TypeOf(name string) *Type {
	types.Lock()
	defer types.Unlock()
	if t, ok := types.known[name]; ok {
		return t
	}
	t := parseType(name)
	if short, ok := strings.CutPrefix(name, "V1"); ok && t == nil {
		t = parseType(short)
	}
	if t != nil {
		if types.known == nil {
			types.known = map[string]*Type{}
		}
		types.known[name] = t
	}
	return t
}

func parseType(name string) *Type {
	if now, ok := renamed[name]; ok {
		name = now
	}
	if name == "" || strings.ContainsAny(name, " \n") {
		return nil
	}
	if _, rest, ok := strings.Cut(schema, "\n"+name+" = "); ok {
		values, _, _ := strings.Cut(rest, "\n")
		return &Type{Name: name, Values: strings.Fields(values)}
	}
	_, rest, ok := strings.Cut(schema, "\n"+name+"\n")
	if !ok {
		return nil
	}
	t := &Type{Name: name}
	for line := range strings.Lines(rest) {
		field, ok := strings.CutPrefix(line, " ")
		if !ok {
			break
		}
		name, holds, _ := strings.Cut(strings.TrimSpace(field), " ")
		name, required := strings.CutSuffix(name, "!")
		t.Fields = append(t.Fields, Field{Name: name, Type: holds, Required: required})
	}
	return t
}

// ObjectTypes returns the names of the types of objects, sorted.
func ObjectTypes() []string {
	var names []string
	for line := range strings.Lines(schema) {
		if line[0] != ' ' && line[0] != '#' && !strings.Contains(line, " = ") {
			names = append(names, strings.TrimSpace(line))
		}
	}
	return names
}

// Field returns the field of a name in JSON, in snake case, or with the
// underscore that Kubernetes' Python client puts before a word of Python
// (_exec, _from, _continue); nil if there is none.
func (t *Type) Field(name string) *Field {
	switch name {
	case "_exec", "_from", "_continue":
		name = name[1:]
	}
	for i := range t.Fields {
		f := &t.Fields[i]
		if f.Name == name || Snake(f.Name) == name || clientSnake(f.Name) == name {
			return f
		}
	}
	return nil
}

// Snake returns the JSON name of a field in snake case: hostIP is host_ip,
// podIPs is pod_ips.
func Snake(name string) string {
	return snake(name, func(rest []rune) bool { return len(rest) == 1 && rest[0] == 's' })
}

// clientSnake is Snake as Kubernetes' Python client has it: pod_i_ps.
func clientSnake(name string) string { return snake(name, func([]rune) bool { return false }) }

// snake puts an underscore before each word. A capital begins a word if it
// follows a small letter or digit, or if a small letter follows it; but not if
// what follows it is only the plural of an acronym.
func snake(name string, plural func(rest []rune) bool) string {
	runes := []rune(name)
	var b strings.Builder
	for i, r := range runes {
		if unicode.IsUpper(r) && i > 0 {
			rest := runes[i+1:]
			if !unicode.IsUpper(runes[i-1]) || len(rest) > 0 && unicode.IsLower(rest[0]) && !plural(rest) {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// A Typed is an object in a tree whose type is known and which fits it.
type Typed struct {
	Type   string
	Object dag.Object
}

// A Fault says why a tree does not fit a type.
type Fault struct {
	Path  string // to the value, as the author wrote it: containers[0].image
	Field string // the name that is no field of the object at Path; else ""
	Msg   string
	Hint  string
}

// Fit returns the tree as what a field holds (a type, or an expression such as
// []EnvVar): names of fields as in JSON, members that are nil left out, and
// the rest as it was written. A tree may hold a Typed in place of an Object. A
// value known only at run time may stand in text, and for a quantity; numbers
// and booleans cannot hold one, because no manifest has a place for it.
//
// If there are faults, the tree holds what fits.
func Fit(holds string, tree any) (any, []Fault) {
	f := fitter{}
	v := f.fit(holds, "", tree)
	return v, f.faults
}

// FitManifest is Fit for an object whose manifest is text that values known
// only at run time are put into: a quantity may hold one beside other text.
func FitManifest(typ string, tree any) (any, []Fault) {
	f := fitter{inText: true}
	v := f.fit(typ, "", tree)
	return v, f.faults
}

type fitter struct {
	faults []Fault
	inText bool // see FitManifest
}

func (f *fitter) fault(path, format string, args ...any) any {
	f.faults = append(f.faults, Fault{Path: path, Msg: fmt.Sprintf(format, args...)})
	return nil
}

func (f *fitter) fit(holds, path string, v any) any {
	if elem, ok := strings.CutPrefix(holds, "[]"); ok {
		list, ok := v.([]any)
		if !ok {
			return f.wrong(path, "a list of "+plural(elem), v)
		}
		fitted := []any{}
		for i, e := range list {
			if e == nil {
				f.fault(fmt.Sprintf("%s[%d]", path, i), "want %s, got None", article(elem))
			} else if e := f.fit(elem, fmt.Sprintf("%s[%d]", path, i), e); e != nil {
				fitted = append(fitted, e)
			}
		}
		return fitted
	}
	if elem, ok := strings.CutPrefix(holds, "{}"); ok {
		return f.fitMap(elem, path, v)
	}
	switch holds {
	case "any":
		return plain(v)
	case "string":
		return f.fitText(path, v)
	case "bool":
		if _, ok := v.(bool); ok {
			return v
		}
		return f.wrong(path, "True or False", v)
	case "int32", "int64":
		n, ok := v.(int64)
		if !ok {
			return f.wrong(path, "a whole number", v)
		}
		if holds == "int32" && n != int64(int32(n)) {
			return f.fault(path, "%d is too large a number: want at most %d", n, math.MaxInt32)
		}
		return v
	case "float64":
		switch v.(type) {
		case int64, float64:
			return v
		}
		return f.wrong(path, "a number", v)
	case "intOrString":
		switch v.(type) {
		case int64, string:
			return v
		}
		return f.wrong(path, "a whole number or text", v)
	case "quantity":
		return f.fitQuantity("", path, v)
	case "bytes":
		text, ok := v.(string)
		if !ok {
			return f.wrong(path, "text in base64", v)
		}
		if _, err := base64.StdEncoding.DecodeString(text); err != nil && !dag.HasRefs(text) {
			return f.fault(path, "%q is not base64", text)
		}
		return v
	case "time":
		text, ok := v.(string)
		if !ok {
			return f.wrong(path, `a time such as "2006-01-02T15:04:05Z"`, v)
		}
		if _, err := time.Parse(time.RFC3339, text); err != nil && !dag.HasRefs(text) {
			return f.fault(path, `%q: want a time such as "2006-01-02T15:04:05Z"`, text)
		}
		return v
	}
	t := TypeOf(holds)
	if t == nil {
		panic("kube: no type " + holds)
	}
	if t.Values != nil {
		text, ok := v.(string)
		if !ok {
			return f.wrong(path, "one of "+strings.Join(t.Values, ", "), v)
		}
		if fault := CheckEnum(t.Name, text); fault != "" {
			f.fault(path, "%s", fault)
			return nil
		}
		return v
	}
	return f.fitObject(t, path, v)
}

// CheckEnum returns what is wrong with a text that must be one of the values of
// a type, or "". Empty text stands for the default.
func CheckEnum(name, text string) string {
	values := TypeOf(name).Values
	if text == "" || dag.HasRefs(text) || slices.Contains(values, text) {
		return ""
	}
	msg := fmt.Sprintf("%q: want one of %s", text, strings.Join(values, ", "))
	hint := spell.DidYouMean(text, values)
	switch {
	case hint != "" && len(values) > 5:
		return fmt.Sprintf("%q: %s", text, hint)
	case hint != "":
		return msg + ": " + hint
	}
	return msg
}

// fitText takes numbers and booleans too where Kubernetes has only text and an
// author a value: those of variables, labels and selectors.
func (f *fitter) fitText(path string, v any) any {
	if text, ok := v.(string); ok {
		return text
	}
	last := path[strings.LastIndexByte(path, '.')+1:]
	if name, _, _ := strings.Cut(last, "["); name == "value" || name == "values" {
		if text, ok := scalarText(v); ok {
			return text
		}
	}
	return f.wrong(path, "text", v)
}

// scalarText returns a number or a boolean as Python's str gives it.
func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return dag.PythonFloat(v), true
	case bool:
		if v {
			return "True", true
		}
		return "False", true
	}
	return "", false
}

func (f *fitter) fitMap(elem, path string, v any) any {
	if t, ok := v.(Typed); ok {
		return f.fault(path, "want a dict, got %s", article(t.Type))
	}
	obj, ok := v.(dag.Object)
	if !ok {
		return f.wrong(path, "a dict", v)
	}
	fitted := dag.Object{}
	for _, m := range obj {
		at := path + "[" + strconv.Quote(dag.Display(m.Name)) + "]"
		var e any
		switch text, isText := scalarText(m.Value); {
		case m.Value == nil:
			e = f.fault(at, "want %s, got None", article(elem))
		case elem == "quantity":
			e = f.fitQuantity(m.Name, at, m.Value)
		case elem == "string" && isText:
			e = text
		default:
			e = f.fit(elem, at, m.Value)
		}
		if e != nil {
			fitted = append(fitted, dag.Member{Name: m.Name, Value: e})
		}
	}
	return fitted
}

// fitQuantity checks the quantity of a resource, or of anything if the name of
// the resource is "".
func (f *fitter) fitQuantity(resourceName, path string, v any) any {
	text, ok := scalarText(v)
	if _, isBool := v.(bool); !ok || isBool {
		return f.wrong(path, `a quantity such as "512Mi" or 2`, v)
	}
	if _, ok := dag.SoleRef(text); ok || f.inText && dag.HasRefs(text) {
		return v
	}
	if resourceName != "" {
		if err := CheckQuantity(resourceName, text); err != nil {
			return f.fault(path, "%v", err)
		}
		return v
	}
	if q, err := parseQuantity(text); err != nil || q.Sign() < 0 {
		return f.fault(path, `%q is not a quantity: want a number with an optional unit, such as "512Mi"`, dag.Display(text))
	}
	return v
}

func (f *fitter) fitObject(t *Type, path string, v any) any {
	if typed, ok := v.(Typed); ok {
		switch {
		case typed.Type == t.Name:
			return typed.Object
		case t.Name == "LocalObjectReference" && typed.Type == "ObjectReference": // KFP's own samples name a pull secret by it
			return typed.Object
		case t.Name == "VolumeResourceRequirements" && typed.Type == "ResourceRequirements": // the type of this field before Kubernetes 1.29
			return f.fitObject(t, path, typed.Object)
		}
		return f.fault(path, "want %s, got %s", article(t.Name), article(typed.Type))
	}
	obj, ok := v.(dag.Object)
	if !ok {
		return f.wrong(path, article(t.Name)+" or a dict", v)
	}
	fitted := dag.Object{}
	seen := map[string]bool{}
	before := len(f.faults)
	var unknown []string
	for _, m := range obj {
		at := join(path, m.Name)
		field := t.Field(m.Name)
		if field == nil {
			f.faults = append(f.faults, t.unknown(path, m.Name))
			unknown = append(unknown, m.Name)
			continue
		}
		if seen[field.Name] {
			f.fault(at, "%s is given twice", field.Name)
			continue
		}
		seen[field.Name] = true
		if m.Value == nil {
			seen[field.Name] = !field.Required
			continue
		}
		if e := f.fit(field.Type, at, m.Value); e != nil {
			fitted = append(fitted, dag.Member{Name: field.Name, Value: e})
			if n, ok := e.(int64); ok {
				if fault := inRange(t.Name, field.Name, n); fault != "" {
					f.fault(at, "%s", fault)
				}
			}
		}
	}
	for _, field := range t.Fields {
		names := []string{field.Name, Snake(field.Name)}
		misspelt := func(name string) bool { return spell.Nearest(name, names) != "" }
		if field.Required && !seen[field.Name] && !slices.ContainsFunc(unknown, misspelt) {
			f.fault(path, "%s needs %s", article(t.Name), Snake(field.Name))
		}
	}
	if len(f.faults) == before {
		f.rules(t, path, fitted)
	}
	return fitted
}

// unknown is the fault of a name that is no field of the type.
func (t *Type) unknown(path, name string) Fault {
	fault := Fault{Path: path, Field: name, Msg: fmt.Sprintf("%s has no field %q", article(t.Name), name)}
	var names []string
	camel := name != strings.ToLower(name)
	for _, f := range t.Fields {
		if camel {
			names = append(names, f.Name)
		} else {
			names = append(names, Snake(f.Name))
		}
	}
	if hint := spell.DidYouMean(name, names); hint != "" {
		fault.Msg += ": " + hint
	} else if len(names) > 0 {
		fault.Hint = "its fields are " + strings.Join(names, ", ")
	}
	return fault
}

// wrong is the fault of a value of another type.
func (f *fitter) wrong(path, want string, v any) any {
	if text, ok := v.(string); ok {
		if refs, _ := dag.Refs(text); len(refs) > 0 {
			return f.fault(path, "%s is known only when the pipeline runs, and no manifest has a place for it here: want %s", refs[0], want)
		}
	}
	return f.fault(path, "want %s, got %s", want, describe(v))
}

func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case string:
		return fmt.Sprintf("the text %q", v)
	case int64, float64, bool:
		text, _ := scalarText(v)
		return text
	case []any:
		return "a list"
	case Typed:
		return article(v.Type)
	}
	return "a dict"
}

// article returns a name with its article: an EnvVar, text.
func article(name string) string {
	switch {
	case name == "string" || name == "bytes":
		return "text"
	case name == "any":
		return "a value"
	case strings.HasPrefix(name, "[]"):
		return "a list"
	case strings.HasPrefix(name, "{}"):
		return "a dict"
	case strings.ContainsRune("AEIOU", rune(cmp.Or(name, " ")[0])), strings.HasPrefix(name, "int"),
		strings.HasPrefix(name, "HTTP"), strings.HasPrefix(name, "NFS"), strings.HasPrefix(name, "RBD"), strings.HasPrefix(name, "SELinux"):
		return "an " + name
	}
	return "a " + name
}

func plural(elem string) string {
	switch {
	case elem == "string":
		return "texts"
	case strings.HasPrefix(elem, "int"):
		return "numbers"
	}
	return elem
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// plain returns a tree with its Typed objects as plain ones.
func plain(v any) any {
	switch v := v.(type) {
	case Typed:
		return v.Object
	case dag.Object:
		c := make(dag.Object, len(v))
		for i, m := range v {
			c[i] = dag.Member{Name: m.Name, Value: plain(m.Value)}
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = plain(e)
		}
		return c
	}
	return v
}
