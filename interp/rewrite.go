package interp

import (
	"iter"
	"slices"

	"go.starlark.net/resolve"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/builtins"
	"github.com/kfs-project/kfs/dag"
)

// This file defines the rewrite of a file before it is compiled.
//
// Starlark decides comparisons, membership, % and the methods of strings
// without asking the values, so a value known only at run time could not
// refuse them. They become calls of functions of the environment, whose names
// are no identifiers, so that no file sees or hides them:
//
//	x == y      "=="(x, y)       all six comparisons, in, not in, %
//	x %= y      x = "%"(x, y)
//	x.y += z    x.y = "+"(x.y, z), because the list that a field gives is frozen
//	x.join      ".join"(x)       and format
//
// A for statement and what leaves it tell of themselves; see builtins/blocks.go.
// Variables that may outlive the block that set them are watched; see
// blockvars.go.
//
// A call is moved to the name that is called (f(x): f; x.f(y): the second f),
// so that every place the interpreter reports is one a reader looks for.

// An index knows the parts of a file that messages point at.
type index struct {
	calls map[place][]argument // by the place they were moved to
	spans map[place]span       // of what an operator is about, by the operator's place
	tests []test
	names []string // that the file binds, for suggestions

	defs []definition      // in the order of the file
	errs resolve.ErrorList // names that cannot be bound
}

// A place is a line and column of a file.
type place struct{ line, col int32 }

func placeOf(p syntax.Position) place { return place{p.Line, p.Col} }

func (p place) before(q place) bool {
	return p.line < q.line || p.line == q.line && p.col < q.col
}

// A test is an expression whose truth is asked for, or whose elements are.
type test struct {
	kind string // if, elif, not, and, or, for
	word place  // the keyword, which is where the interpreter places not and for
	span
}

// A definition is a function of the file.
type definition struct {
	name   string
	at     place
	params []string
}

// paramsOf returns the names of the arguments of the function of the name in
// which a place is: the last that begins before it.
func (ix *index) paramsOf(name string, p place) []string {
	for _, d := range slices.Backward(ix.defs) {
		if d.name == name && !p.before(d.at) {
			return d.params
		}
	}
	return nil
}

// A span is a part of a file, up to but not with its end.
type span struct{ start, end place }

func spanOf(n syntax.Node) span {
	start, end := n.Span()
	return span{placeOf(start), placeOf(end)}
}

// at returns the test that the interpreter does at a place: the one that
// begins there, else the innermost one around it.
func (ix *index) at(p place, loop bool) (test, bool) {
	var best test
	found := false
	for _, t := range ix.tests {
		if (t.kind == "for") != loop {
			continue
		}
		if t.word == p {
			return t, true
		}
		if loop || p.before(t.start) || !p.before(t.end) {
			continue
		}
		if !found || best.start.before(t.start) || t.end.before(best.end) {
			best, found = t, true
		}
	}
	return best, found
}

type rewriter struct {
	*index
	vars  blockVars
	loops []syntax.Position // the for statements around, of the same function
}

// rewrite rewrites the file in place.
func rewrite(f *syntax.File) *index {
	r := rewriter{index: &index{calls: map[place][]argument{}, spans: map[place]span{}}, vars: findBlockVars(f)}
	f.Stmts = r.stmts(f.Stmts)
	return r.index
}

// elements rewrites an expression whose elements are asked for.
func (r rewriter) elements(word syntax.Position, e syntax.Expr) syntax.Expr {
	e, at := r.expr(e)
	r.tests = append(r.tests, test{"for", placeOf(word), at})
	return e
}

// stmts rewrites statements, and adds those that tell of them: before one that
// leaves a loop, around one that sets a watched variable.
func (r rewriter) stmts(stmts []syntax.Stmt) []syntax.Stmt {
	if len(r.loops) == 0 && len(r.vars.marked) == 0 {
		for _, s := range stmts {
			r.stmt(s)
		}
		return stmts
	}
	var told []syntax.Stmt // nil if there are none, as of an if without else
	for _, s := range stmts {
		var behind []syntax.Stmt
		switch s := s.(type) {
		case *syntax.AssignStmt:
			if id, ok := s.LHS.(*syntax.Ident); ok && s.Op != syntax.EQ && r.vars.reads[id] {
				told = append(told, &syntax.ExprStmt{X: r.vars.read(id)})
			}
			behind = r.vars.marks(s.LHS)
		case *syntax.DefStmt:
			behind = r.vars.marks(s.Name)
		case *syntax.BranchStmt:
			if s.Token != syntax.PASS && len(r.loops) > 0 {
				told = append(told, r.leave(s.Token.String(), s.TokenPos, r.loops[len(r.loops)-1:]))
			}
		case *syntax.ReturnStmt:
			if len(r.loops) > 0 {
				told = append(told, r.leave(builtins.ReturnName, s.Return, r.loops))
			}
		}
		var into *syntax.Ident
		if s, ok := s.(*syntax.AssignStmt); ok {
			into = indexed(s.LHS)
		}
		r.stmt(s)
		if into != nil {
			s := s.(*syntax.AssignStmt)
			s.RHS = r.vars.into(into, s.RHS)
		}
		told = append(append(told, s), behind...)
	}
	return told
}

// leave is a statement that says which loops the statement at pos would leave.
func (r rewriter) leave(name string, pos syntax.Position, loops []syntax.Position) syntax.Stmt {
	var args []syntax.Expr
	for _, l := range loops {
		args = append(args, number(l.Line), number(l.Col))
	}
	return &syntax.ExprStmt{X: call(name, pos, args...)}
}

func number(n int32) syntax.Expr {
	return &syntax.Literal{Token: syntax.INT, Value: int64(n)}
}

// forStmt rewrites for x in v to for x in "for"(v, LINE, COLUMN).
func (r rewriter) forStmt(s *syntax.ForStmt) {
	s.Vars, s.X = r.target(s.Vars), r.elements(s.For, s.X)
	s.X = call(builtins.ForName, s.For, s.X, number(s.For.Line), number(s.For.Col))
	marks := r.vars.marks(s.Vars)
	s.Body = rewriter{r.index, r.vars, append(r.loops[:len(r.loops):len(r.loops)], s.For)}.stmts(s.Body)
	s.Body = append(marks, s.Body...)
}

func (r rewriter) stmt(s syntax.Stmt) {
	switch s := s.(type) {
	case *syntax.AssignStmt:
		r.bind(s.LHS)
		if field := fieldOf(s.LHS); field != nil && s.Op == syntax.PLUS_EQ {
			s.Op, s.RHS = syntax.EQ, &syntax.BinaryExpr{X: field, OpPos: s.OpPos, Op: syntax.PLUS, Y: s.RHS}
		}
		if s.Op == syntax.PLUS_EQ {
			var at span
			s.RHS, at = r.expr(s.RHS)
			args := []syntax.Expr{s.RHS}
			if id, ok := s.LHS.(*syntax.Ident); ok {
				read := *id
				args = append(args, &read)
			}
			s.LHS = r.target(s.LHS)
			s.RHS = r.operator(s.Op, s.OpPos, args...)
			r.spans[placeOf(s.OpPos)] = at
			return
		}
		if s.Op == syntax.PERCENT_EQ || s.Op == syntax.STAR_EQ {
			s.RHS, _ = r.expr(s.RHS)
			if id, ok := s.LHS.(*syntax.Ident); ok {
				read := *id
				op := syntax.PERCENT
				if s.Op == syntax.STAR_EQ {
					op = syntax.STAR
				}
				s.RHS = r.operator(op, s.OpPos, &read, s.RHS)
				s.Op = syntax.EQ
			} else {
				s.LHS = r.target(s.LHS)
				s.RHS = r.operator(s.Op, s.OpPos, s.RHS)
			}
			return
		}
		s.LHS = r.target(s.LHS)
		if tuple, ok := s.RHS.(*syntax.TupleExpr); ok && isTuple(s.LHS) {
			r.exprs(tuple.List) // a, b = b, a: the tuple is taken apart at once
			return
		}
		s.RHS, _ = r.expr(s.RHS)
	case *syntax.DefStmt:
		r.bind(s.Name)
		r.defs = append(r.defs, definition{s.Name.Name, placeOf(s.Def), paramNames(s.Params)})
		r.params(s.Params)
		s.Body = rewriter{index: r.index, vars: r.vars}.stmts(s.Body) // no loop outside reaches in
		s.Body = r.vars.begin(s)
	case *syntax.ExprStmt:
		s.X, _ = r.expr(s.X)
	case *syntax.ForStmt:
		r.bind(s.Vars)
		r.forStmt(s)
	case *syntax.IfStmt:
		r.ifStmt("if", s)
	case *syntax.LoadStmt:
		for _, id := range s.To {
			r.bind(id)
		}
	case *syntax.ReturnStmt:
		if s.Result != nil {
			s.Result, _ = r.expr(s.Result)
		}
	}
}

// fieldOf returns a copy of x.y, x.y.z and so on, which can be read a second
// time, or nil if the expression is another.
func fieldOf(e syntax.Expr) syntax.Expr {
	dot, ok := e.(*syntax.DotExpr)
	if !ok {
		return nil
	}
	read, name := *dot, *dot.Name
	read.Name = &name
	if id, ok := dot.X.(*syntax.Ident); ok {
		x := *id
		read.X = &x
	} else if read.X = fieldOf(dot.X); read.X == nil {
		return nil
	}
	return &read
}

func (r rewriter) ifStmt(kind string, s *syntax.IfStmt) {
	s.Cond = r.condition(kind, s.If, s.Cond)
	s.True = r.stmts(s.True)
	// The parser makes an elif the only statement of the else, at its place.
	if len(s.False) == 1 {
		if elif, ok := s.False[0].(*syntax.IfStmt); ok && elif.If == s.ElsePos {
			r.ifStmt("elif", elif)
			return
		}
	}
	s.False = r.stmts(s.False)
}

// params rewrites the defaults of parameters.
func (r rewriter) params(params []syntax.Expr) {
	for _, p := range params {
		switch p := p.(type) {
		case *syntax.BinaryExpr: // name = default
			r.bind(p.X)
			p.Y, _ = r.expr(p.Y)
		case *syntax.Ident:
			r.bind(p)
		}
	}
}

// paramNames are the names by which a call can give a function's arguments.
func paramNames(params []syntax.Expr) []string {
	var names []string
	for _, p := range params {
		switch p := p.(type) {
		case *syntax.Ident:
			names = append(names, p.Name)
		case *syntax.BinaryExpr: // name = default
			names = append(names, p.X.(*syntax.Ident).Name)
		}
	}
	return names
}

// bind notes the names that an assignment binds.
func (r rewriter) bind(lhs syntax.Expr) {
	for target := range targets(lhs) {
		id, ok := target.(*syntax.Ident)
		if !ok {
			continue
		}
		switch id.Name {
		case "None", "True", "False":
			r.errs = append(r.errs, resolve.Error{Pos: id.NamePos, Msg: id.Name + " cannot be given another value"})
		}
		r.names = append(r.names, id.Name)
	}
}

// targets yields what an assignment sets: variables, elements and fields, of
// tuples and lists each one.
func targets(lhs syntax.Expr) iter.Seq[syntax.Expr] {
	return func(yield func(syntax.Expr) bool) {
		for left := []syntax.Expr{lhs}; len(left) > 0; {
			lhs := left[0]
			left = left[1:]
			switch lhs := lhs.(type) {
			case *syntax.ParenExpr:
				left = append([]syntax.Expr{lhs.X}, left...)
			case *syntax.TupleExpr:
				left = slices.Concat(lhs.List, left)
			case *syntax.ListExpr:
				left = slices.Concat(lhs.List, left)
			default:
				if !yield(lhs) {
					return
				}
			}
		}
	}
}

// target rewrites what is inside the target of an assignment.
func (r rewriter) target(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.DotExpr:
		e.X, _ = r.expr(e.X)
		r.spans[placeOf(e.Dot)] = spanOf(e.Name)
		return e
	case *syntax.Ident:
		return e
	case *syntax.TupleExpr:
		for i := range e.List {
			e.List[i] = r.target(e.List[i])
		}
		return e
	case *syntax.ListExpr:
		for i := range e.List {
			e.List[i] = r.target(e.List[i])
		}
		return e
	case *syntax.ParenExpr:
		e.X = r.target(e.X)
		return e
	}
	e, _ = r.expr(e)
	return e
}

func (r rewriter) exprs(list []syntax.Expr) {
	for i := range list {
		list[i], _ = r.expr(list[i])
	}
}

// condition rewrites an expression whose truth decides. The interpreter does
// not know the place where it asks for the truth of an and, or or if-else, so
// such a one goes through a function that asks first.
func (r rewriter) condition(kind string, word syntax.Position, e syntax.Expr) syntax.Expr {
	e, at := r.expr(e)
	r.tests = append(r.tests, test{kind, placeOf(word), at})
	inner := e
	for {
		paren, ok := inner.(*syntax.ParenExpr)
		if !ok {
			break
		}
		inner = paren.X
	}
	switch inner := inner.(type) {
	case *syntax.BinaryExpr:
		if inner.Op == syntax.AND || inner.Op == syntax.OR {
			return call(builtins.TruthName, word, e)
		}
	case *syntax.CondExpr:
		return call(builtins.TruthName, word, e)
	}
	return e
}

// expr rewrites an expression and returns where it stood in the file. The
// spans are put together on the way up: to ask each node for its own would
// take time that grows with the square of the depth.
func (r rewriter) expr(e syntax.Expr) (syntax.Expr, span) {
	switch e := e.(type) {
	case *syntax.BinaryExpr:
		return r.binary(e)
	case *syntax.CallExpr:
		return r.call(e)
	case *syntax.Comprehension:
		for _, clause := range e.Clauses {
			switch clause := clause.(type) {
			case *syntax.ForClause:
				r.bind(clause.Vars)
				clause.Vars = r.target(clause.Vars)
				clause.X = r.elements(clause.For, clause.X)
			case *syntax.IfClause:
				clause.Cond = r.condition("if", clause.If, clause.Cond)
			}
		}
		e.Body, _ = r.expr(e.Body)
		return e, span{placeOf(e.Lbrack), after(e.Rbrack)}
	case *syntax.CondExpr:
		e.Cond = r.condition("if", e.If, e.Cond)
		var t, f span
		e.True, t = r.expr(e.True)
		e.False, f = r.expr(e.False)
		return e, span{t.start, f.end}
	case *syntax.DictEntry:
		var k, v span
		e.Key, k = r.expr(e.Key)
		e.Value, v = r.expr(e.Value)
		r.spans[placeOf(e.Colon)] = k
		return e, span{k.start, v.end}
	case *syntax.DictExpr:
		r.exprs(e.List)
		return e, span{placeOf(e.Lbrace), after(e.Rbrace)}
	case *syntax.DotExpr:
		var x span
		e.X, x = r.expr(e.X)
		name := spanOf(e.Name)
		at := span{x.start, name.end}
		if method := builtins.MethodName(e.Name.Name); method != "" {
			r.spans[placeOf(e.Name.NamePos)] = at
			return call(method, e.Name.NamePos, e.X), at
		}
		r.spans[placeOf(e.Dot)] = name
		return e, at
	case *syntax.IndexExpr:
		var x, y span
		e.X, x = r.expr(e.X)
		e.Y, y = r.expr(e.Y)
		r.spans[placeOf(e.Lbrack)] = y
		return e, span{x.start, after(e.Rbrack)}
	case *syntax.LambdaExpr:
		r.params(e.Params)
		var body span
		e.Body, body = r.expr(e.Body)
		return e, span{placeOf(e.Lambda), body.end}
	case *syntax.ListExpr:
		r.exprs(e.List)
		return e, span{placeOf(e.Lbrack), after(e.Rbrack)}
	case *syntax.ParenExpr:
		e.X, _ = r.expr(e.X)
		return e, span{placeOf(e.Lparen), after(e.Rparen)}
	case *syntax.SliceExpr:
		var x span
		e.X, x = r.expr(e.X)
		for _, part := range []*syntax.Expr{&e.Lo, &e.Hi, &e.Step} {
			if *part != nil {
				*part, _ = r.expr(*part)
			}
		}
		at := span{x.start, after(e.Rbrack)}
		r.spans[placeOf(e.Lbrack)] = at
		return e, at
	case *syntax.TupleExpr:
		at := span{placeOf(e.Lparen), after(e.Rparen)}
		var elem span
		for i := range e.List {
			e.List[i], elem = r.expr(e.List[i])
			if e.Lparen.IsValid() {
				continue
			}
			if i == 0 {
				at.start = elem.start
			}
			at.end = elem.end
		}
		if len(e.List) == 0 {
			return e, at
		}
		pos, _ := e.List[0].Span()
		if e.Lparen.IsValid() {
			pos = e.Lparen
		}
		return call(builtins.TupleName, pos, e.List...), at
	case *syntax.UnaryExpr:
		at := span{placeOf(e.OpPos), after(e.OpPos)}
		switch {
		case e.X == nil: // the * of def f(*, x)
		case e.Op == syntax.NOT:
			e.X = r.condition("not", e.OpPos, e.X)
			at.end = r.tests[len(r.tests)-1].end
		default:
			var x span
			e.X, x = r.expr(e.X)
			at.end = x.end
		}
		return e, at
	}
	at := spanOf(e) // of an identifier or a literal
	if id, ok := e.(*syntax.Ident); ok {
		return r.vars.read(id), at
	}
	return e, at
}

func isTuple(e syntax.Expr) bool {
	switch e := e.(type) {
	case *syntax.TupleExpr:
		return true
	case *syntax.ParenExpr:
		return isTuple(e.X)
	}
	return false
}

// after is the place behind a closing bracket.
func after(p syntax.Position) place { return place{p.Line, p.Col + 1} }

func (r rewriter) binary(e *syntax.BinaryExpr) (syntax.Expr, span) {
	var x, y span
	switch e.Op {
	case syntax.EQ: // name=value in a call
		x = spanOf(e.X)
		e.Y, y = r.expr(e.Y)
		return e, span{x.start, y.end}
	case syntax.AND, syntax.OR:
		e.X = r.condition(e.Op.String(), e.OpPos, e.X)
		x = r.tests[len(r.tests)-1].span
	default:
		e.X, x = r.expr(e.X)
	}
	e.Y, y = r.expr(e.Y)
	at := span{x.start, y.end}
	if builtins.OperatorName(e.Op) != "" {
		r.spans[placeOf(e.OpPos)] = at
		return r.operator(e.Op, e.OpPos, e.X, e.Y), at
	}
	if e.Op != syntax.AND && e.Op != syntax.OR {
		r.spans[placeOf(e.OpPos)] = at
	}
	return e, at
}

// call moves a call to the name that is called.
func (r rewriter) call(e *syntax.CallExpr) (syntax.Expr, span) {
	switch fn := e.Fn.(type) {
	case *syntax.Ident:
		e.Lparen = fn.NamePos
	case *syntax.DotExpr:
		e.Lparen = fn.Name.NamePos
	}
	args := make([]argument, len(e.Args))
	var fn span
	changed, places := changes(e)
	e.Fn, fn = r.expr(e.Fn)
	for i, a := range e.Args {
		var at span
		if kw, ok := a.(*syntax.BinaryExpr); ok && kw.Op == syntax.EQ {
			args[i].name = kw.X.(*syntax.Ident).Name
			a = kw.Y
		}
		args[i].value = a
		e.Args[i], at = r.expr(e.Args[i])
		args[i].span = at
		if changed != nil && i >= places {
			if kw, ok := e.Args[i].(*syntax.BinaryExpr); ok && kw.Op == syntax.EQ {
				kw.Y = r.vars.into(changed, kw.Y)
			} else if u, ok := e.Args[i].(*syntax.UnaryExpr); !ok || u.Op != syntax.STAR && u.Op != syntax.STARSTAR {
				e.Args[i] = r.vars.into(changed, e.Args[i])
			}
		}
	}
	r.calls[placeOf(e.Lparen)] = args
	return e, span{fn.start, after(e.Rparen)}
}

// operator is a call of the function that stands for an operator.
func (r rewriter) operator(op syntax.Token, pos syntax.Position, args ...syntax.Expr) *syntax.CallExpr {
	return call(builtins.OperatorName(op), pos, args...)
}

func call(name string, pos syntax.Position, args ...syntax.Expr) *syntax.CallExpr {
	return &syntax.CallExpr{Fn: &syntax.Ident{Name: name, NamePos: pos}, Lparen: pos, Args: args, Rparen: pos}
}

// An argument is one of a call, as it stands in the file.
type argument struct {
	name  string // of a keyword; "" is one by position
	value syntax.Expr
	span
}

// argument returns the span of an argument of the call at a place: the one by
// position if there is one (from 1), else a keyword; or of one of its elements
// if it is a list in the script and elem is not 0, which counts them from 1.
func (ix *index) argument(at place, keyword string, position, elem int) (span, bool) {
	for i, a := range ix.calls[at] {
		if position > 0 && i+1 != position || a.name != keyword && position == 0 {
			continue
		}
		switch v := a.value.(type) {
		case *syntax.UnaryExpr:
			if v.Op == syntax.STAR || v.Op == syntax.STARSTAR {
				return span{}, false // which of them it is, nobody knows
			}
		case *syntax.ListExpr:
			if 0 < elem && elem <= len(v.List) {
				return spanOf(v.List[elem-1]), true
			}
		}
		return a.span, true
	}
	return span{}, false
}

func position(p syntax.Position) dag.Pos {
	return dag.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)}
}
