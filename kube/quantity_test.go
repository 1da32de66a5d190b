package kube

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kfs-project/kfs/dag"
)

// TestParseQuantity holds the reader against that of the library: what is a
// quantity, its sign, and which of two is larger.
func TestParseQuantity(t *testing.T) {
	texts := []string{"", "0", "1", "1.5", ".5", "5.", ".", "+1", "-1", "--1", "+-1", "1Ki", "1.5Gi", "1K", "1k", "1m", "100n", "2u",
		"1e3", "1E3", "1E", "1e", "1e-3", "1.5E2", "1Ei", "1Mi1", "1 Mi", " 1", "1 ", "1ki", "1KI", "0x10", "1_000", "1e3Mi", "é", "1i", "i"}
	r := rand.New(rand.NewPCG(1, 2))
	const letters = "0123456789.+-eEkKMGTPEimun "
	for range 20000 {
		b := make([]byte, 1+r.IntN(6))
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		texts = append(texts, string(b))
	}
	for i, text := range texts {
		if number := strings.TrimLeft(text, "+-."); number == "" || number[0] < '0' || number[0] > '9' {
			continue // the library takes "." and a unit alone for 0
		}
		if i := strings.IndexAny(text, "eE"); i >= 0 && len(text)-i > 4 {
			continue // an exponent beyond any amount
		}
		got, gotErr := parseQuantity(text)
		want, wantErr := resource.ParseQuantity(text)
		if (gotErr == nil) != (wantErr == nil) {
			t.Fatalf("parseQuantity(%q): %v; the library: %v", text, gotErr, wantErr)
		}
		if gotErr != nil {
			continue
		}
		if got.Sign() != want.Sign() {
			t.Fatalf("parseQuantity(%q) has the sign %d; the library %d", text, got.Sign(), want.Sign())
		}
		other := texts[r.IntN(i+1)]
		a, err1 := parseQuantity(other)
		b, err2 := resource.ParseQuantity(other)
		// The library rounds what is smaller than a nano, and cuts what is too large.
		if err1 == nil && err2 == nil && exact(got) && exact(a) && got.Cmp(a.Rat) != want.Cmp(b) {
			t.Fatalf("%q against %q: %d; the library %d", text, other, got.Cmp(a.Rat), want.Cmp(b))
		}
	}
}

func exact(q quantity) bool {
	nanos := new(big.Rat).Mul(q.Rat, powerOf10(9))
	size := new(big.Rat).Abs(q.Rat)
	return nanos.IsInt() && size.Cmp(powerOf10(18)) < 0
}

func TestBytes(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
		err  string
	}{
		{"40G", 40_000_000_000, ""},
		{"40Gi", 40 << 30, ""},
		{"0.5", 1, ""},
		{"0", 0, ""},
		{"1e30", math.MaxInt64, ""},
		{"lots", 0, `memory "lots" is not a quantity: want a number with an optional unit, such as "512Mi" or "2G"`},
		{"-1", 0, `memory "-1": want no less than 0`},
		{dag.Ref{Kind: dag.RefParam, Name: "m"}.Token(), 0, `"<m>" is a value known only when the pipeline runs`},
	} {
		got, err := Bytes(tt.in)
		if text := fmt.Sprint(err); got != tt.want || text != cmp.Or(tt.err, "<nil>") {
			t.Errorf("Bytes(%q) = %d, %v; want %d, %s", tt.in, got, err, tt.want, tt.err)
		}
	}
}
