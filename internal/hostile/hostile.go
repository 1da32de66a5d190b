// Package hostile holds scripts that were made to eat the machine: its memory,
// its processor or the stack of the process. They are for tests, of the
// evaluation and of the command; each must end in an ordinary error.
package hostile

import "strings"

// A Script is the text of one hostile script.
type Script struct {
	Name   string // what it does
	Source string
}

// Scripts returns all of them.
func Scripts() []Script {
	double := func(start, step string, n string) string {
		return "x = " + start + "\nfor _ in range(" + n + "):\n    x = " + step + "\n"
	}
	body := func(lines string) string {
		return "def p(v = \"1\"):\n    " + strings.ReplaceAll(lines, "\n", "\n    ") + "\n    container_op(\"z\", \"i\")\n\npipeline(p)\n"
	}
	return []Script{
		{"conditions that share parts", body("c = v == \"a\"\nfor _ in range(40):\n    c = all_of(c, c)")},
		{"a deep condition", body("c = v == \"a\"\nfor _ in range(100000):\n    c = not_(all_of(c, v == \"b\"))")},
		{"a long chain of conditions", body("for _ in condition(v == \"a\"):\n    container_op(\"a\", \"i\")\nfor i in range(20000):\n    for _ in elif_condition(v == str(i)):\n        container_op(\"a\", \"i\")")},
		{"variables of a step", body("s = container_op(\"a\", \"i\")\nfor i in range(100000):\n    s.add_env_variable({\"name\": \"A%d\" % i, \"value\": \"\"})")},
		{"tolerations of a step", body("s = container_op(\"a\", \"i\")\nfor i in range(100000):\n    s.add_toleration({\"key\": \"A%d\" % i, \"operator\": \"Exists\"})")},
		{"labels of a step", body("s = container_op(\"a\", \"i\")\nfor i in range(100000):\n    s.add_pod_label(\"l%d\" % i, \"x\")")},
		{"text that grows slowly", body("x = v\nfor _ in range(200000):\n    x = x + v")},
		{"text that grows slowly in place", body("x = \"a\"\nfor _ in range(2000000):\n    x += \"aaaaaaaa\"")},
		{"edges between all steps", body("s = []\nfor i in range(5000):\n    s.append(container_op(\"a\", \"i\").after(*s))")},
		{"a list too deep behind its block", body("for _ in condition(v == \"a\"):\n    x = [v]\n    for _ in range(1000000):\n        x = [x]\ny = x")},
		{"reads of a long list behind its block", body("for _ in condition(v == \"a\"):\n    x = [container_op(\"a\", \"i\") for _ in range(20000)]\nfor i in range(20000):\n    y = x[i]\nfail(\"the end\")")},
		{"a list too deep for a message", body("x = []\nfor _ in range(1000000):\n    x = [x]\nfor _ in sub_graph(\"a\", x):\n    container_op(\"a\", \"i\")")},
		{"a list too shared for a message", body("x = []\nfor _ in range(50):\n    x = [x, x]\nfor _ in sub_graph(\"a\", x):\n    container_op(\"a\", \"i\")")},
		{"repeat a string", `x = "a" * (1 << 33)`},
		{"repeat a string to 1 GiB", `x = "a" * ((1 << 30) - 1)`},
		{"repeat a list", `x = [0] * (1 << 29)`},
		{"repeat a list more", `x = [0] * (1 << 31)`},
		{"shift", `x = 1 << (1 << 30)`},
		{"square", double("1 << 511", "x * x", "19")},
		{"square in place", "x = 1 << 511\nfor _ in range(19):\n    x *= x\n"},
		{"double a string", double(`"a"`, "x + x", "31")},
		{"double a string in place", "x = \"a\"\nfor _ in range(31):\n    x += x\n"},
		{"double an element in place", "x = [\"a\"]\nfor _ in range(31):\n    x[0] += x[0]\n"},
		{"double a list in place", "x = [1]\nfor _ in range(31):\n    x += x\n"},
		{"extend a list by itself", "x = [1]\nfor _ in range(31):\n    x.extend(x)\n"},
		{"format", double(`"a" * 1024`, `"%s%s" % (x, x)`, "20")},
		{"format method", double(`"a" * 1024`, `"{}{}".format(x, x)`, "20")},
		{"join", `x = ("a" * 1000).join(["b" * 1000] * 1000000)`},
		{"replace", `x = ("a" * 100000).replace("a", "b" * 10000)`},
		{"list of a range", `x = list(range(1 << 27))`},
		{"set of a range", `x = set(range(10000000))`},
		{"sorted range", `x = sorted(range(10000000))`},
		{"comprehension", `x = [i for i in range(1 << 30)]`},
		{"flood of a dict", "d = {}\nfor i in range(1 << 30):\n    d[i] = str(i)\n"},
		{"str of shared lists", double("[]", "[x, x]", "26") + "s = str(x)\n"},
		{"str of more shared lists", double("[]", "[x, x]", "45") + "s = str(x)\n"},
		{"percent of shared lists", double("[]", "[x, x]", "45") + "s = \"%s\" % [x]\n"},
		{"print shared lists", double("[]", "[x, x]", "45") + "print(x)\n"},
		{"fail with shared lists", double("[]", "[x, x]", "45") + "fail(x)\n"},
		{"json of shared lists", double("[]", "[x, x]", "45") + "s = json.encode(x)\n"},
		{"split", `x = ("a," * 5000000).split(",")`},
		{"elements of a string", `x = list(("a" * (1 << 24)).elems())`},
		{"hash of shared tuples", double("()", "(x, x)", "28") + "d = {x: 1}\n"},
		{"hash of more shared tuples", double("()", "(x, x)", "45") + "d = {x: 1}\n"},
		{"hash of joined tuples", double("()", "tuple([x, x])", "45") + "d = {x: 1}\n"},
		{"hash of summed tuples", double("(1,)", "(x,) + (x,)", "45") + "d = {x: 1}\n"},
		{"hash of shared structs", double("struct()", "struct(a = x, b = x)", "45") + "d = {x: 1}\n"},
		{"== of shared lists", "a = []\nb = []\nfor _ in range(8):\n    a = [a] * 60\n    b = [b] * 60\nx = a == b\n"},
		{"in of shared lists", "a = []\nb = []\nfor _ in range(8):\n    a = [a] * 60\n    b = [b] * 60\nx = a in [b]\n"},
		{"index of shared lists", "a = []\nb = []\nfor _ in range(8):\n    a = [a] * 60\n    b = [b] * 60\nx = [b].index(a)\n"},
		{"recursion", "def f():\n    f()\n\nf()\n"},
		{"nested parentheses", "x = " + strings.Repeat("(", 2000000)},
		{"nested lists in the source", "x = " + strings.Repeat("[", 1000000)},
		{"str of a deep list", double("[]", "[x]", "5000000") + "s = str(x)\n"},
		{"str of a deep tuple", double("()", "(x,)", "2000000") + "s = str(x)\n"},
		{"freeze of a deep list", double("[]", strings.Repeat("[", 50)+"x"+strings.Repeat("]", 50), "100000")},
		{"== of a deep list", double("[1]", strings.Repeat("[", 50)+"x"+strings.Repeat("]", 50), "150000") + "y = x == 1\n"},
		{"in of a deep list", double("[1]", strings.Repeat("[", 50)+"x"+strings.Repeat("]", 50), "150000") + "y = 1 in x\n"},
		{"json of a deep list", double("[1]", strings.Repeat("[", 50)+"x"+strings.Repeat("]", 50), "150000") + "y = json.encode(x)\n"},
		{"index in a deep list", double("[1]", strings.Repeat("[", 50)+"x"+strings.Repeat("]", 50), "150000") + "y = x.index(1)\n"},
		{"freeze of a list too deep for memory", double("[]", strings.Repeat("[", 50)+"x"+strings.Repeat("]", 50), "360000")},
		{"freeze of deep closures", "def f():\n    x = None\n    for _ in range(1000000):\n        x = (lambda y: lambda: y)(x)\n    return x\n\nz = f()\n"},
		{"freeze of a deep default", "def f():\n    x = None\n    for _ in range(1000000):\n        x = [x]\n    return x\n\ndef g(y = f()):\n    pass\n"},
		{"an endless loop", "def f():\n    for _ in range(1 << 60):\n        pass\n\nf()\n"},
		{"json of deep text", `x = json.decode("[" * 5000000 + "]" * 5000000)`},
		{"a huge int", `x = int("9" * 10000000)`},
		{"a default of shared lists", double("[]", "[x, x]", "40") + "def p(v = x):\n    container_op(\"a\", \"i\")\n\npipeline(p)\n"},
		{"choices of shared lists", double("[]", "[x, x]", "40") + "config(\"a\", 1, choices = [x])\n"},
	}
}
