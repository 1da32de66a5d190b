package dag

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// This file defines JSON trees that keep the order of their members.

// An Object is a JSON object whose members keep their order. Values are nil,
// bool, int64, float64, string, Object and []any of these.
type Object []Member

// A Member is one name and value of an Object.
type Member struct {
	Name  string
	Value any
}

// Get returns the value of the member, or nil if there is none. A path of
// several names goes down through objects.
func (o Object) Get(path ...string) any {
	for n, name := range path {
		i := o.index(name)
		if i < 0 {
			return nil
		}
		v := o[i].Value
		if n == len(path)-1 {
			return v
		}
		o, _ = v.(Object)
	}
	return o
}

// Set gives the member a value, at its place if the object has it, else at
// the end. A path of several names makes the objects on the way. What else
// shares the object's members keeps them as they were.
func (o *Object) Set(value any, path ...string) {
	name, rest := path[0], path[1:]
	i := o.index(name)
	c := append(make(Object, 0, len(*o)+1), *o...)
	if i < 0 {
		i = len(c)
		c = append(c, Member{Name: name})
	}
	if len(rest) > 0 {
		child, _ := c[i].Value.(Object)
		child.Set(value, rest...)
		value = child
	}
	c[i].Value = value
	*o = c
}

// Append adds to the list that is the member's value.
func (o *Object) Append(name string, value any) {
	list, _ := o.Get(name).([]any)
	o.Set(append(slices.Clip(list), value), name)
}

func (o Object) index(name string) int {
	return slices.IndexFunc(o, func(m Member) bool { return m.Name == name })
}

// Sorted returns the object with its own members sorted by name.
func (o Object) Sorted() Object {
	s := slices.Clone(o)
	slices.SortStableFunc(s, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// MarshalJSON keeps the order of the members, and writes a float64 as one.
func (o Object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	if err := encodeValue(&b, o); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func encodeValue(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case Object:
		b.WriteByte('{')
		for i, m := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := encodeValue(b, m.Name); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := encodeValue(b, m.Value); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return nil
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := encodeValue(b, e); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			b.WriteString(PythonFloat(v)) // 1.0, where encoding/json writes 1
			return nil
		}
	}
	text, err := marshal(v)
	b.Write(text)
	return err
}

// UnmarshalJSON keeps the order of the members. A number becomes an int64 if
// it is written as one.
func (o *Object) UnmarshalJSON(data []byte) error {
	v, err := decodeTree(data)
	if err != nil {
		return err
	}
	obj, ok := v.(Object)
	if !ok {
		return fmt.Errorf("JSON %T: want an object", v)
	}
	*o = obj
	return nil
}

// decodeTree returns the tree of a JSON text; an empty text is an error.
func decodeTree(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return decodeValue(d)
}

func decodeValue(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Delim:
		if token == '[' {
			list := []any{}
			for d.More() {
				v, err := decodeValue(d)
				if err != nil {
					return nil, err
				}
				list = append(list, v)
			}
			_, err := d.Token()
			return list, err
		}
		obj := Object{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := decodeValue(d)
			if err != nil {
				return nil, err
			}
			obj = append(obj, Member{Name: name.(string), Value: v})
		}
		_, err := d.Token()
		return obj, err
	case json.Number:
		if n, err := strconv.ParseInt(token.String(), 10, 64); err == nil {
			return n, nil
		}
		return token.Float64()
	}
	return token, nil // nil, bool, string
}

// marshal is json.Marshal without the escapes meant for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// WalkText calls f for each text in the tree, names of members too, with the
// path that leads to it (args[0], env[2].value).
func WalkText(v any, f func(path *Field, text string)) { walkText(&Field{}, v, f) }

func walkText(at *Field, v any, f func(path *Field, text string)) {
	switch v := v.(type) {
	case string:
		f(at, v)
	case Object:
		walkObject(at, v, f)
	case []any:
		for i, e := range v {
			at.parts = append(at.parts, part{index: i, elem: true})
			walkText(at, e, f)
			at.parts = at.parts[:len(at.parts)-1]
		}
	}
}

func walkObject(at *Field, o Object, f func(path *Field, text string)) {
	for _, m := range o {
		at.parts = append(at.parts, part{name: m.Name})
		if HasRefs(m.Name) {
			f(at, m.Name)
		}
		walkText(at, m.Value, f)
		at.parts = at.parts[:len(at.parts)-1]
	}
}

// A Field is where a text stands that a walk has come to. It changes when the
// walk goes on.
type Field struct {
	prefix string
	parts  []part
}

// A part of a Field is the name of a member, or an element of a list.
type part struct {
	name  string
	index int
	elem  bool
}

// String returns the path as a message shows it.
func (f *Field) String() string {
	var b strings.Builder
	b.WriteString(f.prefix)
	for i, p := range f.parts {
		switch {
		case p.elem:
			fmt.Fprintf(&b, "[%d]", p.index)
		case i > 0:
			b.WriteString("." + p.name)
		default:
			b.WriteString(p.name)
		}
	}
	return b.String()
}

// A walker calls a function for the texts of a step.
type walker struct {
	at Field
	f  func(field *Field, text string)
}

// text is for a text that is a field by itself.
func (w *walker) text(field, text string) {
	w.at.prefix = field
	w.f(&w.at, text)
}

// tree is for the texts of a tree, whose fields begin with the prefix.
func (w *walker) tree(prefix string, tree Object) {
	if len(tree) > 0 {
		w.at.prefix = prefix
		walkObject(&w.at, tree, w.f)
	}
}

// MapText returns a copy of the tree with each text, names of members too,
// replaced by f of it.
func MapText(v any, f func(string) string) any {
	switch v := v.(type) {
	case string:
		return f(v)
	case Object:
		c := make(Object, len(v))
		for i, m := range v {
			c[i] = Member{Name: f(m.Name), Value: MapText(m.Value, f)}
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = MapText(e, f)
		}
		return c
	}
	return v
}
