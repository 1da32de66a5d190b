//go:build !linux

package worker

import "errors"

// confine fails: what cannot be bounded is not evaluated.
func confine(memory, cpu uint64) error {
	return errors.New("its limits need Linux")
}
