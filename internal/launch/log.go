package launch

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// This file defines how outputs stand in the log of kfs-io.

// ErrLost is wrapped by the error of ReadLog if the log does not hold all that
// kfs-io has written to it, as it has not arrived or was rotated away.
var ErrLost = errors.New("outputs lost")

// lineBytes is how much a line holds; with base64 and its head it has less
// than 8 KiB, half of what a container runtime takes as one.
const lineBytes = 6000

// outputs are what out/rest holds.
type outputs struct {
	Texts map[string]string `json:"texts,omitempty"`
	Files map[string]File   `json:"files,omitempty"`
}

// printRest writes out/rest to the log, in lines:
//
//	kfs1:ID:N/OF:CRC:BASE64
//
// ID is the beginning of the SHA-256 of the whole, N counts from 0, and CRC is
// the CRC-32 of the base64. It may do so more than once.
func printRest(w io.Writer, rest []byte) error {
	id := restID(sha256.Sum256(rest))
	of := (len(rest) + lineBytes - 1) / lineBytes
	out := bufio.NewWriter(w)
	for n := range of {
		data := base64.StdEncoding.EncodeToString(rest[n*lineBytes : min((n+1)*lineBytes, len(rest))])
		fmt.Fprintf(out, "%s%d/%d:%08x:%s\n", id, n, of, crc32.ChecksumIEEE([]byte(data)), data)
	}
	return out.Flush()
}

func restID(sum [sha256.Size]byte) string { return "kfs1:" + hex.EncodeToString(sum[:8]) + ":" }

// ReadLog reads the outputs for which a result had no room from the log of
// kfs-io, and puts them into the result in place of its Rest. Lines of others
// are passed over. An error that wraps ErrLost says that the log does not hold
// them, any other one that it could not be read. It reads no further than it
// must; a result without a Rest needs no log.
func ReadLog(log io.Reader, r *Result) error {
	if r.Rest == nil {
		return nil
	}
	if len(r.Rest.SHA256) != sha256.Size {
		return fmt.Errorf("%w: the result has no checksum of them", ErrLost)
	}
	sum := [sha256.Size]byte(r.Rest.SHA256)
	id := restID(sum)
	of := (r.Rest.Bytes + lineBytes - 1) / lineBytes
	var rest []byte
	next, fault := 0, ""
	again := func(why string, args ...any) { // what has been read is of no use
		next, rest = 0, nil
		if fault == "" {
			fault = fmt.Sprintf(why, args...)
		}
	}
	lines := bufio.NewReaderSize(log, 16<<10)
	for next < of {
		line, long, err := lines.ReadLine()
		if err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("read the log of kfs-io: %w", err)
		}
		text, ours := strings.CutPrefix(string(line), id)
		for ; long && err == nil; _, long, err = lines.ReadLine() {
		}
		if !ours {
			continue
		}
		var n, total int
		var crc uint32
		var data string
		if _, err := fmt.Sscanf(text, "%d/%d:%x:%s", &n, &total, &crc, &data); err != nil || total != of || crc32.ChecksumIEEE([]byte(data)) != crc {
			again("line %d of %d is damaged", next+1, of)
			continue
		}
		if n == 0 {
			next, rest = 0, nil // it begins, or begins again
		}
		part, err := base64.StdEncoding.DecodeString(data)
		if err != nil || n != next {
			again("line %d of %d follows line %d", n+1, of, next)
			continue
		}
		next, rest = next+1, append(rest, part...)
	}
	switch got := sha256.Sum256(rest); {
	case next < of && fault == "":
		return fmt.Errorf("%w: the log of kfs-io holds %d of their %d lines", ErrLost, next, of)
	case next < of:
		return fmt.Errorf("%w: in the log of kfs-io, %s", ErrLost, fault)
	case !bytes.Equal(got[:], sum[:]):
		return fmt.Errorf("%w: those in the log of kfs-io have another checksum", ErrLost)
	}
	var o outputs
	err := unpack(rest, maxRest, &o)
	if err == nil {
		err = checkOutputs(o.Texts, o.Files)
	}
	if err != nil {
		return fmt.Errorf("%w: those in the log of kfs-io: %w", ErrLost, err)
	}
	r.Texts, r.Files, r.Rest = o.Texts, o.Files, nil
	return nil
}
