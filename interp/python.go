package interp

import (
	"cmp"
	"strings"

	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/builtins"
	"github.com/kfs-project/kfs/dag"
)

// This file defines what is said of Python that is not Starlark.

// pythonLines are statements of Python, by the first word of their line.
var pythonLines = map[string]string{
	"import":   `a file is loaded with  load("other.star", "name")`,
	"from":     `a file is loaded with  load("other.star", "name")`,
	"class":    "there are no classes: use functions, dicts and struct(...)",
	"try":      "there are no exceptions; what must run at the end of a pipeline, whatever happened, is a step:  for _ in exit_handler(step):",
	"while":    "loops are bounded: write  for i in range(n):",
	"global":   "a function cannot assign a global; return the value instead",
	"raise":    "write  fail(\"message\")",
	"nonlocal": "a function cannot assign a variable of another; return the value instead",
	"del":      "write  d.pop(key)  for an entry of a dict",
	"yield":    "there are no generators: return a list",
	"assert":   "write  if not x: fail(\"message\")",
	"await":    "there is no async: steps that do not need each other run at the same time",
	"async":    "there is no async: steps that do not need each other run at the same time",
	"@":        "there are no decorators: register the function below it with  pipeline(my_pipeline, name = \"...\")",
}

// pythonWords are words that Python has and the language has not.
var pythonWords = map[string]string{
	"components": "load(\"@kfp\", \"components\")  gives it",
	"dsl":        "the words stand by themselves:  container_op(...), pipeline(...); load(\"@kfp\", \"dsl\")  gives KFP's",
	"k8s_client": "load(\"@kfp\", \"k8s_client\")  gives it; its types are those of  k8s",
	"kfp":        "the words stand by themselves:  container_op(...), pipeline(...); load(\"@kfp\", \"dsl\")  gives KFP's",
	"kubernetes": `the types of Kubernetes are those of  k8s, or of  load("@kfp", "k8s_client")`,
	"client":     `the types of Kubernetes are those of  k8s, or of  load("@kfp", "k8s_client")`,
	"isinstance": `write  type(x) == "string"`,
	"map":        "write  [f(x) for x in xs]",
	"filter":     "write  [x for x in xs if f(x)]",
	"sum":        "add the numbers up in a for statement",
	"format":     `write  "%s" % x  or  "{}".format(x)`,
	"round":      "write  math.round(x)",
	"pow":        "write  math.pow(x, y)",
	"nil":        "write  None",
	"self":       "there are no classes: use functions, dicts and struct(...)",
	"sys":        "scripts see no environment: use  config(\"name\", default = ...)",
	"re":         "there are no regular expressions: a string has find, split, replace and the like",
	"datetime":   "evaluation sees no clock: a step can ask for the time, or a param give it",
	"random":     "evaluation is deterministic: let a step draw the number",
	"open":       `write  read_file("path")`,
	"os":         "scripts see no environment: use  config(\"name\", default = ...)",
	"null":       "write  None",
	"__name__":   "a file is only ever evaluated as a pipeline: leave this out",
}

// pythonBlocks are what with statements open, in small letters and without
// underscores, with what is written here.
var pythonBlocks = []struct{ opened, hint string }{
	{"parallelfor(", "a loop of steps is a for statement:  for item in parallel_for(items):"},
	{"exithandler(", "a block of steps is a for statement:  for _ in exit_handler(step):"},
	{"subgraph(", "a block of steps is a for statement:  for _ in sub_graph():"},
	{"open(", `write  read_file("path")`},
	{"", "a block of steps is a for statement:  for _ in condition(x == y):"},
}

// pythonMethods are attributes that Python's values have, and Starlark's have
// not.
var pythonMethods = map[string]string{
	"sort":      "sorted(x)  is a new list, sorted",
	"reverse":   "reversed(x)  is a new list, the other way round",
	"copy":      "list(x)  and  dict(x)  copy",
	"count":     "write  len([e for e in x if e == y])",
	"has_key":   "write  key in d",
	"iteritems": "write  d.items()",
	"loads":     "write  json.decode(text)",
	"dumps":     "write  json.encode(x)",
	"now":       "evaluation sees no clock: a step can ask for the time, or a param give it",
	"encode":    "a string is text in UTF-8 as it is",
}

// pythonMarks are marks of other languages, with what is written here.
var pythonMarks = []struct{ mark, hint string }{
	{":=", "there is no :=  : write the assignment as a statement of its own"},
	{"->", "there are no annotations: leave the type out"},
	{"&&", "write  and"},
	{"||", "write  or"},
	{"++", "write  x += 1"},
	{"--", "write  x -= 1"},
	{"<>", "write  !="},
	{"**", "write  math.pow(x, y)"},
}

// syntax returns the diagnostic of an error of the scanner or parser.
func (l *loader) syntax(e syntax.Error) Diagnostic {
	pos, end := position(e.Pos), dag.Pos{}
	line := l.line(pos)
	if got, want, ok := strings.Cut(strings.TrimPrefix(e.Msg, "got "), ", want "); ok && want != "primary expression" {
		// The parser is behind the word that it did not want.
		if start := tokenStart([]rune(line), got, pos.Col); start < pos.Col {
			pos.Col, end = start, pos
		}
	}
	if strings.TrimSpace(line) == "" { // the fault is where the text before it ends
		for pos.Line > 1 && strings.TrimSpace(l.line(pos)) == "" {
			pos.Line--
		}
		pos.Col = len([]rune(strings.TrimRight(l.line(pos), " \t"))) + 1
	}
	return l.diagnostic(pos, end, "syntax error: "+parserWords.Replace(e.Msg), pythonHint(line, e.Msg, pos.Col))
}

// parserWords says in plain words what the parser calls parts of a file.
var parserWords = strings.NewReplacer(
	"got outdent", "got the end of the block",
	"got indent", "got an indented line",
	"got newline", "got the end of the line",
	"got end of file", "got the end of the file",
	"want newline", "want the end of the line",
	"want indent", "want an indented line",
	"primary expression", "an expression",
)

// tokenStart returns the column at which the token begins that ends before the
// column; got is what the parser calls it.
func tokenStart(line []rune, got string, col int) int {
	i := min(col-1, len(line)) // behind the token
	if i != col-1 {
		return col
	}
	if mark := strings.Trim(got, "'"); mark != got { // ':', ')' and the like
		return max(col-len(mark), 1)
	}
	if got == "string literal" && i > 0 {
		quote := line[i-1]
		for i--; i > 0 && line[i-1] != quote; i-- {
		}
		return max(i, 1)
	}
	for i > 0 && isWord(line[i-1]) {
		i--
	}
	return i + 1
}

// firstWord returns the word that a text begins with, and what is behind it and
// the blanks that follow.
func firstWord(text string) (word, behind string) {
	i := strings.IndexFunc(text, func(r rune) bool { return !isWord(r) })
	if i < 0 {
		return text, ""
	}
	return text[:i], strings.TrimLeft(text[i:], " \t")
}

// pythonHint says what to write instead of a line of Python; col is where the
// parser gave up.
func pythonHint(line, msg string, col int) string {
	first := strings.TrimLeft(line, " \t")
	switch {
	case strings.HasPrefix(first, "@") && strings.Contains(first, "graph_component"):
		return "there are no decorators: below the function, write  my_function = graph_component(my_function)"
	case strings.HasPrefix(first, "@"):
		dotted, _, _ := strings.Cut(first[1:], "(")
		name := strings.TrimSpace(dotted[strings.LastIndex(dotted, ".")+1:])
		return cmp.Or(builtins.Refused(name), pythonLines["@"])
	}
	word, behind := firstWord(first)
	switch {
	case word == "with":
		opened := strings.ToLower(strings.ReplaceAll(first, "_", ""))
		for _, b := range pythonBlocks {
			if strings.Contains(opened, b.opened) {
				return b.hint
			}
		}
	case (word == "import" || word == "from") && strings.Contains(first, "kubernetes"):
		return `the types of Kubernetes are those of  k8s, or of  load("@kfp", "k8s_client")`
	case (word == "import" || word == "from") && strings.Contains(first, "kfp"):
		return `the words stand by themselves:  container_op(...); KFP's modules are loaded with  load("@kfp", "dsl", "components")`
	case word == "import" || word == "from":
		switch module, _ := firstWord(behind); module {
		case "json", "math", "time":
			return module + " stands by itself: leave this out"
		case "typing":
			return "there are no annotations: leave this out"
		default:
			return cmp.Or(pythonWords[module], pythonLines[word])
		}
	case pythonLines[word] != "":
		return pythonLines[word]
	}
	if word == "def" && strings.HasPrefix(msg, "got ':', want ") {
		return "there are no annotations: the types of params are said by  pipeline(fn, types = {\"x\": \"Integer\"})"
	}
	if strings.HasPrefix(msg, "got ':', want newline") {
		return "there are no annotations: leave the type out"
	}
	if strings.HasPrefix(msg, "got is") || word != "is" && strings.Contains(line, " is ") && (strings.Contains(msg, "got identifier") || strings.HasPrefix(msg, "conditional expression")) {
		return "there is no is: write  ==  for values known while the script is evaluated"
	}
	if word == "else" || word == "finally" || word == "except" {
		return "only an if has an else; there are no exceptions"
	}
	if strings.Contains(msg, "does not associate with") {
		return "write two comparisons:  all_of(1 < x, x < 5)  of values of the run,  1 < x and x < 5  of others"
	}
	switch {
	case strings.HasPrefix(msg, "got '**', want primary"):
		return "dicts are joined by  a | b"
	case strings.HasPrefix(msg, "got '*', want primary"):
		return "lists are joined by  a + b, and taken apart by  a[0]  and  a[1:]"
	}
	runes := []rune(line)
	for _, m := range pythonMarks {
		if at := col - 1; at >= 0 && at <= len(runes) {
			around := string(runes[max(at-len(m.mark), 0):min(at+len(m.mark), len(runes))])
			if strings.Contains(around, m.mark) {
				return m.hint
			}
		}
	}
	switch {
	case strings.HasPrefix(msg, "unexpected input character '!'"):
		return "write  not"
	case strings.HasPrefix(msg, "got for, want"):
		return "there are no generators: write a list,  [f(x) for x in xs]"
	case strings.HasPrefix(msg, "got ',', want ':'") || strings.HasPrefix(msg, "got '}', want ':'"):
		return "a set is written  set([x, y]), an entry of a dict  key: value"
	case strings.HasPrefix(msg, "got '=', want ':'"):
		return "== compares"
	case strings.HasPrefix(msg, "got '=', want newline") && strings.Count(line, "=") > 1:
		return "a statement assigns once: write one for each name"
	}
	if strings.HasPrefix(first, "print ") {
		return "print is a function: write  print(x)"
	}
	if !strings.HasPrefix(msg, "got string literal") {
		return ""
	}
	if at := col - 1; at >= 1 && at < len(runes) && (runes[at] == '"' || runes[at] == '\'') {
		switch f := runes[at-1]; {
		case f == 'f' || f == 'F':
			return `there are no f-strings: write  "%s" % x  or  "{}".format(x)`
		case isWord(f):
			return "a string has no prefix but r and b: leave it out"
		}
		before := strings.TrimRight(string(runes[:at]), " \t")
		if before != "" && !strings.HasSuffix(before, `"`) && !strings.HasSuffix(before, "'") {
			return ""
		}
		if behind := string(runes[at+1:]); strings.Contains(behind, `" %`) || strings.Contains(behind, "' %") {
			return "two strings side by side are not joined: put a + between them, and parentheses around both:  (\"a\" + \"b\") % x"
		}
		return "two strings side by side are not joined: put a + between them"
	}
	return ""
}
