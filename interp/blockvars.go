package interp

import (
	"slices"

	"go.starlark.net/resolve"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/builtins"
)

// This file finds the variables that may outlive the block that set them.
//
// Whether a for statement opens a block is known only when the file is
// evaluated, and so is which assignment a read sees. A variable that a for
// statement of a function sets, and that is read where this statement may be
// over, therefore gets a companion, which is set with it:
//
//	x = y          x = y; x mark = "set"()
//	f(x)           f("get"(x, x mark, NAME))
//	x.append(y)    "get"(x, x mark, NAME, True).append("into"(x, y))
//	x[k] = y       x[k] = "into"(x, y)
//
// "set" is the block that is open, and "get" refuses what a block set, or put
// into the value, that is over; see builtins/outlive.go.

// blockVars are the variables that get a companion, by where they are first
// bound, and the reads of them that are asked.
type blockVars struct {
	marked map[*syntax.Ident]bool // by the binding's first
	reads  map[*syntax.Ident]bool
	change map[*syntax.Ident]bool              // reads of variables, watched or not, whose value is to be changed
	first  map[*syntax.DefStmt][]*syntax.Ident // those of marked that a function holds, in order
}

// companion is the name of a variable's companion, which is no identifier.
func companion(name string) string { return name + " mark" }

// variableOf returns the local variable that an identifier is, by where it is
// first bound; nil if it is none.
func variableOf(id *syntax.Ident) (first *syntax.Ident, free bool) {
	b, ok := id.Binding.(*resolve.Binding)
	if !ok || b == nil || b.Scope != resolve.Local && b.Scope != resolve.Cell && b.Scope != resolve.Free {
		return nil, false
	}
	return b.First, b.Scope == resolve.Free
}

// A variable is what the walk over a file knows of one.
type variable struct {
	owner *syntax.DefStmt
	dirty bool            // a for statement that is over may have set it last
	ever  bool            // a for statement sets it
	deep  bool            // one inside another does
	sure  *syntax.ForStmt // sets it for certain before what follows in its body
}

// A varWalk looks for reads of variables that a for statement, which may be
// over, set last. It goes through the file once, in order.
type varWalk struct {
	vars     map[*syntax.Ident]*variable
	reads    []*syntax.Ident
	closures []*syntax.Ident // reads of a function's variables by one inside it
	change   map[*syntax.Ident]bool

	// of the function:
	def    *syntax.DefStmt
	loops  []*syntax.ForStmt               // the for statements around
	set    map[*syntax.ForStmt][]*variable // by the innermost around
	unsure []*syntax.Ident                 // reads in the outermost for, which may see the round before
	branch int                             // depth of if statements inside the innermost for
}

// findBlockVars resolves the file and looks for such variables.
func findBlockVars(f *syntax.File) blockVars {
	found := blockVars{marked: map[*syntax.Ident]bool{}, reads: map[*syntax.Ident]bool{}, change: map[*syntax.Ident]bool{}, first: map[*syntax.DefStmt][]*syntax.Ident{}}
	any := func(string) bool { return true }
	if !loopsInside(f.Stmts, false) {
		return found
	}
	_ = resolve.File(f, any, any) // what is wrong is found again when the file is compiled
	w := varWalk{vars: map[*syntax.Ident]*variable{}, change: found.change}
	w.stmts(f.Stmts)
	for _, id := range w.closures {
		if first, _ := variableOf(id); w.vars[first] != nil && w.vars[first].ever {
			w.reads = append(w.reads, id)
		}
	}
	for _, id := range w.reads {
		found.reads[id] = true
		if first, _ := variableOf(id); !found.marked[first] {
			found.marked[first] = true
			owner := w.vars[first].owner
			found.first[owner] = append(found.first[owner], first)
		}
	}
	return found
}

// loopsInside reports whether a function holds a for statement.
func loopsInside(stmts []syntax.Stmt, inDef bool) bool {
	for _, s := range stmts {
		switch s := s.(type) {
		case *syntax.DefStmt:
			if loopsInside(s.Body, true) {
				return true
			}
		case *syntax.ForStmt:
			if inDef || loopsInside(s.Body, false) {
				return true
			}
		case *syntax.IfStmt:
			if loopsInside(s.True, inDef) || loopsInside(s.False, inDef) {
				return true
			}
		}
	}
	return false
}

func (w *varWalk) stmts(stmts []syntax.Stmt) {
	for _, s := range stmts {
		w.stmt(s)
	}
}

func (w *varWalk) stmt(s syntax.Stmt) {
	switch s := s.(type) {
	case *syntax.AssignStmt:
		w.expr(s.RHS)
		if s.Op != syntax.EQ {
			w.expr(s.LHS)
		}
		w.assign(s.LHS)
		w.changed(indexed(s.LHS))
	case *syntax.DefStmt:
		w.params(s.Params)
		w.bound(s.Name)
		inner := varWalk{vars: w.vars, change: w.change, def: s, set: map[*syntax.ForStmt][]*variable{}}
		inner.stmts(s.Body)
		w.reads, w.closures = append(w.reads, inner.reads...), append(w.closures, inner.closures...)
	case *syntax.ExprStmt:
		w.expr(s.X)
	case *syntax.ForStmt:
		w.expr(s.X)
		if w.def == nil {
			w.stmts(s.Body) // no block stands outside a function
			return
		}
		branch := w.branch
		w.loops, w.branch = append(w.loops, s), 0
		w.assign(s.Vars)
		w.stmts(s.Body)
		w.loops, w.branch = w.loops[:len(w.loops)-1], branch
		w.over(s)
	case *syntax.IfStmt:
		w.expr(s.Cond)
		w.branch++
		w.stmts(s.True)
		w.stmts(s.False)
		w.branch--
	case *syntax.ReturnStmt:
		if s.Result != nil {
			w.expr(s.Result)
		}
	}
}

// over notes that a for statement is over.
func (w *varWalk) over(s *syntax.ForStmt) {
	for _, v := range w.set[s] {
		v.dirty, v.sure = true, nil
	}
	delete(w.set, s)
	if len(w.loops) > 0 {
		return
	}
	for _, id := range w.unsure {
		if first, _ := variableOf(id); w.vars[first].deep {
			w.reads = append(w.reads, id)
		}
	}
	w.unsure = nil
}

func (w *varWalk) params(params []syntax.Expr) {
	for _, p := range params {
		if p, ok := p.(*syntax.BinaryExpr); ok { // name = default
			w.expr(p.Y)
		}
	}
}

// assign notes what the target of an assignment sets.
func (w *varWalk) assign(lhs syntax.Expr) {
	for target := range targets(lhs) {
		if id, ok := target.(*syntax.Ident); ok {
			w.bound(id)
		} else {
			w.expr(target)
		}
	}
}

func (w *varWalk) bound(id *syntax.Ident) {
	first, _ := variableOf(id)
	if first == nil || w.def == nil {
		return
	}
	v := w.variable(first)
	if len(w.loops) == 0 {
		if w.branch == 0 {
			v.dirty = false
		}
		return
	}
	inner := w.loops[len(w.loops)-1]
	w.set[inner] = append(w.set[inner], v)
	v.ever, v.deep = true, v.deep || len(w.loops) > 1
	if w.branch == 0 {
		v.dirty, v.sure = false, inner
	}
}

// changed notes that the value of a variable is changed, which counts as set by
// the for statement around.
func (w *varWalk) changed(id *syntax.Ident) {
	if id == nil || w.def == nil {
		return
	}
	first, free := variableOf(id)
	if first == nil || free {
		return
	}
	w.change[id] = true
	if len(w.loops) == 0 {
		return
	}
	v, inner := w.variable(first), w.loops[len(w.loops)-1]
	w.set[inner] = append(w.set[inner], v)
	v.ever, v.deep = true, v.deep || len(w.loops) > 1
}

// changers are the methods that put their arguments into a list, dict or set,
// and how many of these are places in it.
var changers = map[string]int{"add": 0, "append": 0, "extend": 0, "insert": 1, "setdefault": 1, "update": 0}

// changes returns the variable whose value a call changes, by x.append(v) or
// x[k].append(v), and how many arguments are not put into it; nil if there is
// none.
func changes(c *syntax.CallExpr) (*syntax.Ident, int) {
	dot, ok := c.Fn.(*syntax.DotExpr)
	if !ok {
		return nil, 0
	}
	places, ok := changers[dot.Name.Name]
	if !ok {
		return nil, 0
	}
	if id, ok := dot.X.(*syntax.Ident); ok {
		return id, places
	}
	return indexed(dot.X), places
}

// indexed returns the variable of x[k], x[k][l] and so on, or nil.
func indexed(e syntax.Expr) *syntax.Ident {
	index, ok := e.(*syntax.IndexExpr)
	if !ok {
		return nil
	}
	if id, ok := index.X.(*syntax.Ident); ok {
		return id
	}
	return indexed(index.X)
}

// variable returns what is known of a variable of the function.
func (w *varWalk) variable(first *syntax.Ident) *variable {
	v := w.vars[first]
	if v == nil {
		v = &variable{owner: w.def}
		w.vars[first] = v
	}
	return v
}

// expr notes what an expression reads.
func (w *varWalk) expr(e syntax.Expr) {
	syntax.Walk(e, func(n syntax.Node) bool {
		if c, ok := n.(*syntax.CallExpr); ok {
			if id, _ := changes(c); id != nil {
				w.changed(id)
			}
		}
		id, ok := n.(*syntax.Ident)
		if !ok {
			return true
		}
		first, free := variableOf(id)
		if first == nil || w.def == nil {
			return true
		}
		if free {
			w.closures = append(w.closures, id)
		} else if v := w.variable(first); v.dirty {
			w.reads = append(w.reads, id)
		} else if v.sure == nil && len(w.loops) > 0 {
			w.unsure = append(w.unsure, id)
		}
		return true
	})
}

// begin returns the body of a function, which begins by making the companions
// of its variables: what is set before any of its for statements counts as set
// by the block that the function was called in.
func (b blockVars) begin(def *syntax.DefStmt) []syntax.Stmt {
	var made []syntax.Stmt
	for _, first := range b.first[def] {
		made = append(made, mark(first.Name, def.Def))
	}
	if made == nil {
		return def.Body
	}
	doc := 0
	if s, ok := def.Body[0].(*syntax.ExprStmt); ok {
		if text, ok := s.X.(*syntax.Literal); ok && text.Token == syntax.STRING {
			doc = 1
		}
	}
	return slices.Concat(def.Body[:doc], made, def.Body[doc:])
}

// marks are the statements that set the companions of what the target of an
// assignment set.
func (b blockVars) marks(lhs syntax.Expr) []syntax.Stmt {
	var stmts []syntax.Stmt
	for target := range targets(lhs) {
		if id, ok := target.(*syntax.Ident); ok {
			if first, _ := variableOf(id); b.marked[first] {
				stmts = append(stmts, mark(id.Name, id.NamePos))
			}
		}
	}
	return stmts
}

// read is the expression that a read of a variable becomes.
func (b blockVars) read(id *syntax.Ident) syntax.Expr {
	if !b.reads[id] {
		return id
	}
	args := []syntax.Expr{id, &syntax.Ident{Name: companion(id.Name), NamePos: id.NamePos},
		&syntax.Literal{Token: syntax.STRING, TokenPos: id.NamePos, Value: id.Name}}
	if b.change[id] {
		args = append(args, &syntax.Ident{Name: "True", NamePos: id.NamePos})
	}
	return call(builtins.GetName, id.NamePos, args...)
}

// into is what a value becomes that is put into that of a variable.
func (b blockVars) into(id *syntax.Ident, e syntax.Expr) syntax.Expr {
	first, _ := variableOf(id)
	if !b.change[id] || !b.marked[first] {
		return e
	}
	pos, _ := e.Span()
	return call(builtins.IntoName, pos, &syntax.Ident{Name: id.Name, NamePos: pos}, e)
}

// mark is the statement that sets a variable's companion.
func mark(name string, pos syntax.Position) syntax.Stmt {
	return &syntax.AssignStmt{Op: syntax.EQ, OpPos: pos, LHS: &syntax.Ident{Name: companion(name), NamePos: pos}, RHS: call(builtins.SetName, pos)}
}
