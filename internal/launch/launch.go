// Package launch carries a step out inside its pod, and brings its files in and
// its outputs out.
//
//	Run       the work of kfs-launch, the first process of the step's container
//	Prepare   the work of "kfs io prepare", the postStart hook of the sidecar kfs-io
//	Serve     the work of "kfs io", the sidecar itself
//	Result    what kfs-launch tells: ParseFrame, ReadLog
//	Spec      what kfs-launch is told; IOSpec is what kfs-io is
//	Place     where a file is kept between two steps
//	Store     keeps files; package artifact has some
//
// The container main and the sidecar share the folder Dir, an emptyDir:
//
//	bin/kfs-launch   put there by Prepare
//	in/N             the content of input N, put there by Prepare
//	fetched          Prepare has ended, and what was wrong
//	started          the command was started: it is not a second time
//	out/N            the content of output N, if the store is to keep it
//	out/rest         the outputs for which the result has no room
//	manifest         out is complete: what Serve is to do with it
//	beat             changes each second while Serve does so
//	ack              Serve has done so, and what was wrong
//
// The kubelet starts main when the hook has ended. When the command has exited
// with 0, kfs-launch reads the declared outputs. What is small stands in the
// result, which is the termination message of the container: 2 KiB, behind a
// checksum. If all has room there, that is all. If it does not, all outputs
// stand in the log of kfs-io instead, up to 1 MiB, and their checksum in the
// result. What the store keeps, kfs-io uploads. Then kfs-launch exits only when
// kfs-io has said that it is done, as nothing of the pod may be relied upon
// after that.
//
// The step may do to the shared folder what it likes, and with it to its own
// outputs, which are its own to make. To kfs-io, which has the keys of the
// store, it can do nothing: kfs-io opens files below the folder only, by
// os.Root, and the folder holds nothing that the step may not see. Where an
// output is kept does not stand in the result: the driver, who has chosen the
// prefix of the keys, knows.
//
// A command is started in a process group of its own, which gets every signal
// that kfs-launch gets. What it leaves running when it ends is killed, as
// would be in a container without kfs-launch, before the outputs are read.
package launch

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// This file defines what the two programs are told.

// Dir is the folder that the containers of a pod share, and Program where
// kfs-launch is in it.
const (
	Dir     = "/kfs-step"
	Program = Dir + "/bin/kfs-launch"
)

// The limits of what a step passes on without a store, in bytes.
const (
	MaxText  = 256 << 10 // of a text
	MaxFile  = 256 << 10 // of a file; of a folder, as a tar
	MaxTotal = 1 << 20   // of all texts and files of a step
)

// The variables that hold an IOSpec: as it is, or in a file, if it is large.
const (
	EnvIOSpec     = "KFS_IO_SPEC"
	EnvIOSpecFile = "KFS_IO_SPEC_FILE"
)

// The files of the shared folder, beside those that have numbers.
const (
	fetchedFile  = "fetched"
	startedFile  = "started"
	manifestFile = "manifest"
	beatFile     = "beat"
	ackFile      = "ack"
	restFile     = "out/rest"
)

func inFile(i int) string  { return "in/" + strconv.Itoa(i) }
func outFile(i int) string { return "out/" + strconv.Itoa(i) }

// A Spec is what kfs-launch is told.
type Spec struct {
	Inputs  []Input  `json:"inputs,omitempty"`
	Outputs []Output `json:"outputs,omitempty"`

	// Store says that kfs-io has a store for the files that are to be kept. If
	// not, they travel in the result, and must be small.
	Store bool `json:"store,omitempty"`

	MaxText int64         `json:"maxText,omitempty"` // bytes of a text; default MaxText
	Silence time.Duration `json:"silence,omitempty"` // kfs-io may show no life for so long before its work is given up; default 60 s
}

// An Input is a file that is to be there when the command begins, as in
// engine.Artifact: a copy of what is kept at the Place From, or one with the
// content Text if From is "".
type Input struct {
	Name string `json:"name"`
	Path string `json:"path"` // absolute
	Text string `json:"text,omitempty"`
	From string `json:"from,omitempty"`
}

// An Output is one that the command leaves, as in engine.Output.
type Output struct {
	Name string `json:"name"`
	Path string `json:"path"`           // absolute
	File bool   `json:"file,omitempty"` // it need not be text
	Keep bool   `json:"keep,omitempty"` // its file is passed on, or wanted
}

// An IOSpec is what kfs-io is told.
type IOSpec struct {
	Store  string  `json:"store,omitempty"`  // address of the store, for Config.Open; "" if the step needs none
	Prefix string  `json:"prefix,omitempty"` // of the keys of what is kept; the attempt's own
	Inputs []Input `json:"inputs,omitempty"` // those of the Spec, in that order; From is all that matters
}

// Encode returns the spec as one word, base64 of deflate of JSON. It has no
// dollar sign, so the kubelet leaves it alone.
func (s *Spec) Encode() string { return encodeSpec(s) }

// Encode returns the spec as Spec.Encode does.
func (s *IOSpec) Encode() string { return encodeSpec(s) }

// DecodeSpec reads what Spec.Encode wrote.
func DecodeSpec(text string) (*Spec, error) { return decodeSpec[Spec](text) }

// DecodeIOSpec reads what IOSpec.Encode wrote.
func DecodeIOSpec(text string) (*IOSpec, error) { return decodeSpec[IOSpec](text) }

// maxPlain is how long a spec may be that is left for people to read.
const maxPlain = 4 << 10

func encodeSpec(s any) string {
	var text strings.Builder
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // it holds texts and numbers
	}
	if text.Len() > maxPlain {
		packed, _ := pack(s)
		return base64.RawURLEncoding.EncodeToString(packed)
	}
	// Outside of its texts, JSON has no dollar signs.
	return strings.ReplaceAll(strings.TrimSuffix(text.String(), "\n"), "$", `\u0024`)
}

func decodeSpec[T any](text string) (*T, error) {
	text = strings.TrimSpace(text)
	s := new(T)
	if strings.HasPrefix(text, "{") {
		if err := json.Unmarshal([]byte(text), s); err != nil {
			return nil, fmt.Errorf("decode the spec: %w", err)
		}
		return s, nil
	}
	packed, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = unpack(packed, 64<<20, s)
	}
	if err != nil {
		return nil, fmt.Errorf("decode the spec: %w", err)
	}
	return s, nil
}

// A File is the content of an output as it is kept.
type File struct {
	Tar    bool   `json:"tar,omitempty"`    // of a folder
	Exec   bool   `json:"exec,omitempty"`   // a program
	Size   int64  `json:"size,omitempty"`   // bytes
	SHA256 []byte `json:"sha256"`           // of the content
	Stored bool   `json:"stored,omitempty"` // the store has it, under the Key of its name
	Data   []byte `json:"data,omitempty"`   // the content, if the store does not have it
}

// A Place says where kfs-io finds a file, and which.
type Place struct {
	Key  string // in the store; or
	Path string // absolute, in the file system of kfs-io: a mounted file
	File        // Stored and Data mean nothing
}

// Key returns the key under which the store keeps the output of an attempt
// whose keys have the prefix.
func Key(prefix, output string) string {
	return path.Join(prefix, strings.ReplaceAll(url.PathEscape(output), ".", "%2E"))
}

// String returns the place as ParsePlace reads it: store:///KEY?... or
// file:///PATH?...
func (p Place) String() string {
	query := url.Values{"size": {strconv.FormatInt(p.Size, 10)}, "sha256": {base64.RawURLEncoding.EncodeToString(p.SHA256)}}
	if p.Tar {
		query.Set("tar", "1")
	}
	if p.Exec {
		query.Set("exec", "1")
	}
	u := url.URL{Scheme: "file", Path: p.Path, RawQuery: query.Encode()}
	if p.Path == "" {
		u.Scheme, u.Path = "store", "/"+p.Key
	}
	return u.String()
}

// ParsePlace reads what Place.String wrote.
func ParsePlace(text string) (Place, error) {
	bad := fmt.Errorf("place %q: want store:///KEY or file:///PATH, with size and sha256", text)
	u, err := url.Parse(text)
	if err != nil {
		return Place{}, bad
	}
	query := u.Query()
	p := Place{File: File{Tar: query.Has("tar"), Exec: query.Has("exec")}}
	if p.Size, err = strconv.ParseInt(query.Get("size"), 10, 64); err != nil {
		return Place{}, bad
	}
	if p.SHA256, err = base64.RawURLEncoding.DecodeString(query.Get("sha256")); err != nil || len(p.SHA256) != 32 {
		return Place{}, bad
	}
	key := strings.TrimPrefix(u.Path, "/")
	switch {
	case u.Scheme == "store" && fs.ValidPath(key) && key != ".":
		p.Key = key
	case u.Scheme == "file" && filepath.IsAbs(u.Path):
		p.Path = u.Path
	default:
		return Place{}, bad
	}
	return p, nil
}

// A Store keeps files. Its methods may be called from several goroutines. An
// error that wraps fs.ErrNotExist, fs.ErrPermission or fs.ErrInvalid is final;
// after any other one the caller tries again.
type Store interface {
	// Put keeps the first size bytes of r under the key, in place of what was
	// there. The key is a path as of fs.ValidPath.
	Put(ctx context.Context, key string, r io.ReaderAt, size int64) error

	// Get returns what is kept under the key. The caller closes it.
	Get(ctx context.Context, key string) (io.ReadCloser, error)
}

// A Config says where the programs find what they need. The zero value is
// right inside a pod, but for Open; the rest is for tests.
type Config struct {
	Open func(ctx context.Context, address string) (Store, error) // opens the store of an IOSpec

	Root     string              // where the paths of the step's files begin; default "/"
	Dir      string              // default Dir
	Message  string              // the file of the termination message; default /dev/termination-log
	Launcher string              // kfs-launch in the image of kfs-io; default /kfs-launch
	Getenv   func(string) string // the environment of kfs-io; default os.Getenv
	Log      io.Writer           // the log of kfs-io; default os.Stdout
	Patience time.Duration       // how long a store that fails is tried again; default 5 min
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *string
		value string
	}{{&c.Root, "/"}, {&c.Dir, Dir}, {&c.Message, "/dev/termination-log"}, {&c.Launcher, "/kfs-launch"}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
	if c.Log == nil {
		c.Log = os.Stdout
	}
	if c.Patience == 0 {
		c.Patience = 5 * time.Minute
	}
	return c
}

// A manifest is what Serve is asked to do.
type manifest struct {
	Uploads []upload `json:"uploads,omitempty"`
	Print   bool     `json:"print,omitempty"` // out/rest to the log
}

type upload struct {
	Name string `json:"name"` // of the output
	N    int    `json:"n"`    // it is in out/N
	Size int64  `json:"size"`
}

// A word is what one program tells the other when it has ended a task.
type word struct {
	Error string `json:"error,omitempty"`
}

func wordOf(err error) word {
	if err == nil {
		return word{}
	}
	return word{err.Error()}
}

func (w word) err() error {
	if w.Error == "" {
		return nil
	}
	return errors.New(w.Error)
}
