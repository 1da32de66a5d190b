package kube

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file reads quantities. The library's reader brings an encoder of CBOR
// and tables of its own into every start of the program; a test holds this one
// against it.

// A quantity is an amount of a resource.
type quantity struct{ *big.Rat }

var errQuantity = errors.New("not a quantity")

// parseQuantity reads a quantity: a number with a sign and a fraction, and
// behind it an exponent (1e3), a decimal unit (n u m k M G T P E) or a binary
// one (Ki Mi Gi Ti Pi Ei). The grammar is that of
// k8s.io/apimachinery/pkg/api/resource.
func parseQuantity(text string) (quantity, error) {
	digits := strings.TrimLeft(text, "+-")
	if len(text)-len(digits) > 1 {
		return quantity{}, errQuantity
	}
	end := strings.IndexFunc(digits, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(digits)
	}
	number, unit := digits[:end], digits[end:]
	if strings.Trim(number, ".") == "" || strings.Count(number, ".") > 1 || len(number) > 1000 {
		return quantity{}, errQuantity
	}
	q, ok := new(big.Rat).SetString("0" + strings.TrimSuffix(number, "."))
	if !ok {
		return quantity{}, errQuantity
	}
	scale, err := unitScale(unit)
	if err != nil {
		return quantity{}, err
	}
	q.Mul(q, scale)
	if text[0] == '-' {
		q.Neg(q)
	}
	return quantity{q}, nil
}

// Bytes returns the number of bytes that a quantity of memory says, rounded up;
// one that is too large for the result is the largest that it holds. It is for
// quantities that hold no value known only at run time.
func Bytes(text string) (int64, error) {
	if err := CheckQuantity("memory", text); err != nil {
		return 0, err
	}
	q, err := parseQuantity(text)
	if err != nil {
		return 0, fmt.Errorf("%q is a value known only when the pipeline runs", dag.Display(text))
	}
	n := new(big.Int).Add(q.Num(), new(big.Int).Sub(q.Denom(), big.NewInt(1)))
	if n.Quo(n, q.Denom()); !n.IsInt64() {
		return math.MaxInt64, nil
	}
	return n.Int64(), nil
}

// unitScale returns what a unit multiplies a number by.
func unitScale(unit string) (*big.Rat, error) {
	if unit == "" {
		return big.NewRat(1, 1), nil
	}
	if i := strings.Index("KMGTPE", unit[:1]); i >= 0 && unit[1:] == "i" {
		return new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(10*(i+1)))), nil
	}
	if i := strings.Index("kMGTPE", unit); i >= 0 && len(unit) == 1 {
		return powerOf10(3 * (i + 1)), nil
	}
	if i := strings.Index("mun", unit); i >= 0 && len(unit) == 1 {
		return powerOf10(-3 * (i + 1)), nil
	}
	if unit[0] == 'e' || unit[0] == 'E' {
		if n, err := strconv.Atoi(unit[1:]); err == nil && -1000 <= n && n <= 1000 {
			return powerOf10(n), nil
		}
	}
	return nil, errQuantity
}

func powerOf10(n int) *big.Rat {
	p := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(n, -n))), nil))
	if n < 0 {
		p.Inv(p)
	}
	return p
}
