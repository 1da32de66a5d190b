package interp

import (
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
//	x.join      ".join"(x)       and format
//
// A call is moved to the name that is called (f(x): f; x.f(y): the second f),
// so that every place the interpreter reports is one a reader looks for.

// An index knows the parts of a file that messages point at.
type index struct {
	calls map[place]*syntax.CallExpr // by the place they were moved to
	spans map[place]span             // of what an operator is about, by the operator's place
	tests []test
	names []string // that the file binds, for suggestions
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

type rewriter struct{ *index }

// rewrite rewrites the file in place.
func rewrite(f *syntax.File) *index {
	r := rewriter{&index{calls: map[place]*syntax.CallExpr{}, spans: map[place]span{}}}
	r.stmts(f.Stmts)
	return r.index
}

func (r rewriter) test(kind string, word syntax.Position, e syntax.Expr) {
	r.tests = append(r.tests, test{kind, placeOf(word), spanOf(e)})
}

func (r rewriter) stmts(stmts []syntax.Stmt) {
	for _, s := range stmts {
		r.stmt(s)
	}
}

func (r rewriter) stmt(s syntax.Stmt) {
	switch s := s.(type) {
	case *syntax.AssignStmt:
		r.bind(s.LHS)
		if s.Op == syntax.PERCENT_EQ {
			s.RHS = r.expr(s.RHS)
			if id, ok := s.LHS.(*syntax.Ident); ok {
				read := *id
				s.RHS = r.operator(syntax.PERCENT, s.OpPos, &read, s.RHS)
				s.Op = syntax.EQ
			} else {
				s.LHS = r.target(s.LHS)
				s.RHS = r.operator(syntax.PERCENT_EQ, s.OpPos, s.RHS)
			}
			return
		}
		s.LHS, s.RHS = r.target(s.LHS), r.expr(s.RHS)
	case *syntax.DefStmt:
		r.names = append(r.names, s.Name.Name)
		r.params(s.Params)
		r.stmts(s.Body)
	case *syntax.ExprStmt:
		s.X = r.expr(s.X)
	case *syntax.ForStmt:
		r.bind(s.Vars)
		r.test("for", s.For, s.X)
		s.Vars, s.X = r.target(s.Vars), r.expr(s.X)
		r.stmts(s.Body)
	case *syntax.IfStmt:
		r.ifStmt("if", s)
	case *syntax.LoadStmt:
		for _, id := range s.To {
			r.names = append(r.names, id.Name)
		}
	case *syntax.ReturnStmt:
		if s.Result != nil {
			s.Result = r.expr(s.Result)
		}
	}
}

func (r rewriter) ifStmt(kind string, s *syntax.IfStmt) {
	r.test(kind, s.If, s.Cond)
	s.Cond = r.expr(s.Cond)
	r.stmts(s.True)
	// The parser makes an elif the only statement of the else, at its place.
	if len(s.False) == 1 {
		if elif, ok := s.False[0].(*syntax.IfStmt); ok && elif.If == s.ElsePos {
			r.ifStmt("elif", elif)
			return
		}
	}
	r.stmts(s.False)
}

// params rewrites the defaults of parameters.
func (r rewriter) params(params []syntax.Expr) {
	for _, p := range params {
		switch p := p.(type) {
		case *syntax.BinaryExpr: // name = default
			r.bind(p.X)
			p.Y = r.expr(p.Y)
		case *syntax.Ident:
			r.bind(p)
		}
	}
}

// bind notes the names that an assignment binds.
func (r rewriter) bind(lhs syntax.Expr) {
	switch lhs := lhs.(type) {
	case *syntax.Ident:
		r.names = append(r.names, lhs.Name)
	case *syntax.ParenExpr:
		r.bind(lhs.X)
	case *syntax.TupleExpr:
		for _, e := range lhs.List {
			r.bind(e)
		}
	case *syntax.ListExpr:
		for _, e := range lhs.List {
			r.bind(e)
		}
	}
}

// target rewrites what is inside the target of an assignment.
func (r rewriter) target(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.DotExpr:
		e.X = r.expr(e.X)
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
	return r.expr(e)
}

func (r rewriter) exprs(list []syntax.Expr) {
	for i := range list {
		list[i] = r.expr(list[i])
	}
}

func (r rewriter) expr(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.BinaryExpr:
		switch e.Op {
		case syntax.AND:
			r.test("and", e.OpPos, e.X)
		case syntax.OR:
			r.test("or", e.OpPos, e.X)
		case syntax.EQ: // name=value in a call
			e.Y = r.expr(e.Y)
			return e
		}
		start, end := e.Span()
		e.X, e.Y = r.expr(e.X), r.expr(e.Y)
		if builtins.OperatorName(e.Op) != "" {
			return r.spanning(r.operator(e.Op, e.OpPos, e.X, e.Y), start, end)
		}
		r.spans[placeOf(e.OpPos)] = span{placeOf(start), placeOf(end)}
	case *syntax.CallExpr:
		r.call(e)
	case *syntax.Comprehension:
		for _, clause := range e.Clauses {
			switch clause := clause.(type) {
			case *syntax.ForClause:
				r.bind(clause.Vars)
				r.test("for", clause.For, clause.X)
				clause.Vars, clause.X = r.target(clause.Vars), r.expr(clause.X)
			case *syntax.IfClause:
				r.test("if", clause.If, clause.Cond)
				clause.Cond = r.expr(clause.Cond)
			}
		}
		e.Body = r.expr(e.Body)
	case *syntax.CondExpr:
		r.test("if", e.If, e.Cond)
		e.Cond, e.True, e.False = r.expr(e.Cond), r.expr(e.True), r.expr(e.False)
	case *syntax.DictEntry:
		r.spans[placeOf(e.Colon)] = spanOf(e.Key)
		e.Key, e.Value = r.expr(e.Key), r.expr(e.Value)
	case *syntax.DictExpr:
		r.exprs(e.List)
	case *syntax.DotExpr:
		start, end := e.Span()
		e.X = r.expr(e.X)
		if name := builtins.MethodName(e.Name.Name); name != "" {
			return r.spanning(call(name, e.Name.NamePos, e.X), start, end)
		}
		r.spans[placeOf(e.Dot)] = spanOf(e.Name)
	case *syntax.IndexExpr:
		r.spans[placeOf(e.Lbrack)] = spanOf(e.Y)
		e.X, e.Y = r.expr(e.X), r.expr(e.Y)
	case *syntax.LambdaExpr:
		r.params(e.Params)
		e.Body = r.expr(e.Body)
	case *syntax.ListExpr:
		r.exprs(e.List)
	case *syntax.ParenExpr:
		e.X = r.expr(e.X)
	case *syntax.SliceExpr:
		r.spans[placeOf(e.Lbrack)] = spanOf(e)
		e.X = r.expr(e.X)
		for _, part := range []*syntax.Expr{&e.Lo, &e.Hi, &e.Step} {
			if *part != nil {
				*part = r.expr(*part)
			}
		}
	case *syntax.TupleExpr:
		r.exprs(e.List)
	case *syntax.UnaryExpr:
		if e.Op == syntax.NOT {
			r.test("not", e.OpPos, e.X)
		}
		if e.X != nil { // nil in def f(*, x)
			e.X = r.expr(e.X)
		}
	}
	return e
}

// call moves a call to the name that is called.
func (r rewriter) call(e *syntax.CallExpr) {
	switch fn := e.Fn.(type) {
	case *syntax.Ident:
		e.Lparen = fn.NamePos
	case *syntax.DotExpr:
		e.Lparen = fn.Name.NamePos
	}
	r.calls[placeOf(e.Lparen)] = e
	e.Fn = r.expr(e.Fn)
	r.exprs(e.Args)
}

// operator is a call of the function that stands for an operator.
func (r rewriter) operator(op syntax.Token, pos syntax.Position, args ...syntax.Expr) *syntax.CallExpr {
	return call(builtins.OperatorName(op), pos, args...)
}

func call(name string, pos syntax.Position, args ...syntax.Expr) *syntax.CallExpr {
	return &syntax.CallExpr{Fn: &syntax.Ident{Name: name, NamePos: pos}, Lparen: pos, Args: args, Rparen: pos}
}

// spanning gives a call that replaces an expression the expression's span.
func (r rewriter) spanning(c *syntax.CallExpr, start, end syntax.Position) *syntax.CallExpr {
	r.spans[placeOf(c.Lparen)] = span{placeOf(start), placeOf(end)}
	c.Fn.(*syntax.Ident).NamePos = start
	end.Col-- // the span of a call ends behind its parenthesis
	c.Rparen = end
	return c
}

// argument returns the span of a keyword argument of the call at a place.
func (ix *index) argument(at place, keyword string) (span, bool) {
	if c := ix.calls[at]; c != nil {
		for _, a := range c.Args {
			if kw, ok := a.(*syntax.BinaryExpr); ok && kw.Op == syntax.EQ && kw.X.(*syntax.Ident).Name == keyword {
				return spanOf(kw), true
			}
		}
	}
	return span{}, false
}

func position(p syntax.Position) dag.Pos {
	return dag.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)}
}
