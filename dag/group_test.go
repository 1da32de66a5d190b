package dag

import (
	"fmt"
	"testing"
)

func TestNot(t *testing.T) {
	equal := &Condition{Op: "==", X: "a", Y: "b"}
	less := &Condition{Op: "<", X: "1", Y: "2"}
	all := &Condition{Op: "all", Of: []*Condition{equal, less}}
	for _, tt := range []struct {
		in   *Condition
		want string
	}{
		{equal, `["a" != "b"]`},
		{less, `["1" >= "2"]`},
		{all, `[not_(all_of("a" == "b", "1" < "2"))]`},
		{all.Not(), `["a" == "b" "1" < "2"]`},
		{&Condition{Op: "any", Of: all.Of}, `[not_(any_of("a" == "b", "1" < "2"))]`},
	} {
		if got := fmt.Sprint(tt.in.Not().Conjuncts()); got != tt.want {
			t.Errorf("(%s).Not().Conjuncts() = %s; want %s", tt.in, got, tt.want)
		}
	}
}
