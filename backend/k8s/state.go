package k8s

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sync"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// This file defines what is kept of a run in its ConfigMaps.

// A runObject is what a run is, and stays.
type runObject struct {
	Version  int            `json:"version"`
	Kfs      string         `json:"kfs"` // version of the program that made it
	Run      engine.RunInfo `json:"run"`
	Pipeline *dag.Pipeline  `json:"pipeline"`
	Options  Options        `json:"options"`
	Shards   int            `json:"shards"` // a state with fewer is not whole
}

// stateVersion is the version of what is kept.
const stateVersion = 1

// A shard holds the records of a part of the steps. The first one holds the
// run's own record too.
type shard struct {
	Version int               `json:"version"`
	Epoch   int64             `json:"epoch"`
	Run     *engine.RunRecord `json:"run,omitempty"`
	Records []storedRecord    `json:"records"` // by the names of the steps
}

// A storedRecord is a record whose outputs may stand in an object of their own.
type storedRecord struct {
	engine.Record
	Values string `json:"values,omitempty"` // the ConfigMap of its outputs, if they are not in the record
}

const (
	// stepsPerShard keeps a shard small: 500 records with outputs of maxInline
	// that do not compress are half of what a ConfigMap takes.
	stepsPerShard = 500

	// openShards is how many shards there are at least if nobody knows how many
	// steps a loop or a graph that calls itself will become, and maxShards how
	// many there are at most: a driver that takes a run over writes them all.
	openShards = 8
	maxShards  = 100

	// maxInline is how many bytes of outputs a record holds itself.
	maxInline = 1024

	maxConfigMap = 1 << 20
)

// shardsFor returns how many shards the state of a pipeline's runs has. A step
// in a loop counts as often as the loop has items.
func shardsFor(p *dag.Pipeline) int {
	const most = maxShards * stepsPerShard
	least := 1
	rounds := map[string]int{"": 1} // of what stands in a group
	for _, g := range p.Groups {    // those that others stand in are first
		n := rounds[g.Group]
		if g.Loop != nil {
			n *= len(g.Loop.Items)
		}
		rounds[g.Name] = min(n, most)
		if g.Kind == dag.GroupCall || g.Loop != nil && g.Loop.From != "" {
			least = openShards
		}
	}
	steps := 0
	for _, s := range p.Steps {
		steps = min(steps+max(rounds[s.Group], 1), most)
	}
	return max((steps+stepsPerShard-1)/stepsPerShard, least)
}

// A sharder says which shard holds the record of a step: the steps that stand
// together in the script are together, as they end at about the same time, and
// the rounds of a step are spread.
type sharder struct {
	n     int
	index map[string]int // of the steps of the pipeline
}

func newSharder(p *dag.Pipeline, n int) sharder {
	s := sharder{n: n, index: make(map[string]int, len(p.Steps))}
	for i, step := range p.Steps {
		s.index[step.Name] = i
	}
	return s
}

func (s sharder) of(step string) int {
	if i, ok := s.index[step]; ok {
		return i * s.n / len(s.index)
	}
	h := fnv.New32a()
	io.WriteString(h, step)
	return int(h.Sum32() % uint32(s.n))
}

// compressors are used again: each has 0.8 MB, and a large run commits often.
var compressors = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}

// pack returns the value as compressed JSON, with a checksum by gzip.
func pack(v any) ([]byte, error) {
	var b bytes.Buffer
	w := compressors.Get().(*gzip.Writer)
	defer compressors.Put(w)
	w.Reset(&b)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// maxUnpacked bounds what compressed data may become.
const maxUnpacked = 256 << 20

// unpack reads what pack wrote.
func unpack(data []byte, v any) error {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("it was changed by hand, or damaged: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxUnpacked))
	if err != nil {
		return fmt.Errorf("it was changed by hand, or damaged: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("it was changed by hand, or written by a newer kfs: %w", err)
	}
	return nil
}

// put replaces the record of a step.
func (s *shard) put(r storedRecord) {
	i, found := slices.BinarySearchFunc(s.Records, r.Step, func(r storedRecord, step string) int { return cmp.Compare(r.Step, step) })
	if found {
		s.Records[i] = r
	} else {
		s.Records = slices.Insert(s.Records, i, r)
	}
}

// with returns the shard with other records, and leaves it as it is.
func (s *shard) with(epoch int64, run *engine.RunRecord, records []storedRecord) *shard {
	c := &shard{Version: stateVersion, Epoch: epoch, Run: s.Run, Records: slices.Clone(s.Records)}
	if run != nil {
		c.Run = run
	}
	for _, r := range records {
		c.put(r)
	}
	return c
}

// fit returns the shard and what is written of it, in at most so many bytes. If
// it would be larger, what attempts have said in their last lines gives way:
// the states and outputs are what a run cannot do without.
func (s *shard) fit(most int) (*shard, []byte, error) {
	data, err := pack(s)
	for _, keep := range []int{512, 64, 0} {
		if err != nil || len(data) <= most {
			return s, data, err
		}
		s = s.with(s.Epoch, nil, nil)
		for i := range s.Records {
			s.Records[i].Attempts = slices.Clone(s.Records[i].Attempts)
			for j := range s.Records[i].Attempts {
				if o := &s.Records[i].Attempts[j]; len(o.Message) > keep {
					o.Message = o.Message[len(o.Message)-keep:]
				}
			}
		}
		data, err = pack(s)
	}
	if err == nil && len(data) > most {
		err = fmt.Errorf("it would have %d bytes, and can have %d", len(data), most)
	}
	return s, data, err
}
