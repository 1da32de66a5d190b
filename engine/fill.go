package engine

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kfs-project/kfs/dag"
)

// This file fills the run-time values into a step.

// attempt returns the attempt of the number of a step whose needs have all
// succeeded.
func (pl *planner) attempt(i, number int, records []Record, set settings) *Attempt {
	t := &pl.tasks[i]
	s := t.step
	// They are looked up now: the executor calls Fill when it likes to.
	known := pl.value(records, t.env)
	values := map[dag.Ref]string{}
	for _, r := range s.Refs() {
		values[r] = known(r)
		switch r.Kind {
		case dag.RefExecutionID:
			values[r] = pl.run.ID + "-" + AttemptID(pl.run.ID, t.name, number)
		case dag.RefPodName:
			values[r] = AttemptID(pl.run.ID, t.name, number)
		}
	}
	value := func(r dag.Ref) string {
		if text, ok := values[r]; ok {
			return text
		}
		return pl.run.value(r)
	}
	a := pl.newAttempt(t.name, s, number, value, func(text string) string { return expandQuoted(text, value) }, set)
	for i, f := range s.Artifacts {
		if r, ok := f.Ref(); ok {
			if from := pl.file(records, t.env, r); from != "" {
				a.Artifacts[i].From, a.Artifacts[i].Text = from, ""
			}
		}
	}
	return a
}

// newAttempt returns an attempt whose texts are filled in, by kubelet those
// that the kubelet expands.
func (pl *planner) newAttempt(name string, s *dag.Step, number int, value func(dag.Ref) string, kubelet func(string) string, set settings) *Attempt {
	filled := s.MapText(func(text string) string { return dag.Expand(text, value) }, kubelet)
	a := &Attempt{
		ID:    AttemptID(pl.run.ID, name, number),
		RunID: pl.run.ID, RunName: pl.run.Name,
		Step: name, Number: number, Pos: s.Pos,
		Container: filled.Container, Volumes: filled.Volumes, Pod: filled.Pod,
		Resource: filled.Resource,
		Template: s, fill: kubelet,
		Accelerator: s.Accelerator,
		Outputs:     pl.outputs(filled),
		Once:        s.Once, Primitive: s.Primitive,
		Timeout: set.timeout, PendingTimeout: set.pending,
	}
	for _, f := range filled.Artifacts {
		a.Artifacts = append(a.Artifacts, Artifact{Artifact: f})
	}
	return a
}

// Preview returns the first attempt of each step, in the order of the script,
// with all values filled in that are known before the run. Of the others,
// ${step.output} stands for an output, ${item} or ${item.a} for the item of a
// loop, and ${param} for a param without a value. The pipeline is valid.
func Preview(p *dag.Pipeline, run RunInfo) ([]*Attempt, error) {
	known, err := p.CheckArgs(run.Args)
	if err != nil {
		return nil, err
	}
	for _, q := range p.Params {
		if _, given := known[q.Name]; !given && q.Default != nil {
			known[q.Name] = *q.Default
		}
	}
	if p, err = braces(p); err != nil {
		return nil, err
	}
	pl, err := newPlanner(p, run, known, 0)
	if err != nil {
		return nil, err
	}
	var attempts []*Attempt
	for _, s := range p.Steps {
		values := func(r dag.Ref) (string, bool) {
			switch r.Kind {
			case dag.RefExecutionID:
				return run.ID + "-" + AttemptID(run.ID, s.Name, 1), true
			case dag.RefPodName:
				return AttemptID(run.ID, s.Name, 1), true
			case dag.RefParam:
				text, ok := pl.args[r.Name]
				return text, ok
			case dag.RefRunID, dag.RefRunName:
				return run.value(r), true
			}
			return "", false
		}
		value := func(r dag.Ref) string {
			if text, ok := values(r); ok {
				return text
			}
			return placeholder(r)
		}
		kubelet := func(text string) string {
			// What stands for a value is not yet one: it stays as it is read.
			return dag.Expand(expandQuoted(text, func(r dag.Ref) string {
				if text, ok := values(r); ok {
					return text
				}
				return r.Token()
			}), placeholder)
		}
		var set settings
		if settled(s) {
			if set, err = pl.settings(&task{step: s, env: &env{}}, nil); err != nil {
				set = settings{} // a param without a value decides
			}
		}
		attempts = append(attempts, pl.newAttempt(s.Name, s, 1, value, kubelet, set))
	}
	return attempts, nil
}

// placeholder stands for a value that only the run will know.
func placeholder(r dag.Ref) string {
	var names []string
	for _, o := range r.Outputs() {
		names = append(names, o.Step+"."+o.Name)
	}
	name := strings.Join(names, "|")
	switch r.Kind {
	case dag.RefParam:
		name = r.Name
	case dag.RefItem:
		name = "item"
		if r.Name != "" {
			name += "." + r.Name
		}
	case dag.RefCollected:
		name += "[*]"
	}
	return "${" + name + "}"
}

func (run RunInfo) value(r dag.Ref) string {
	switch r.Kind {
	case dag.RefRunID:
		return run.ID
	case dag.RefRunName:
		return run.Name
	}
	return ""
}

// expandQuoted is dag.Expand for text that the kubelet expands afterwards: it
// doubles each dollar sign of a value, and one of the author's if it would
// otherwise become a part of $(NAME) or $$ only together with a value.
func expandQuoted(text string, value func(dag.Ref) string) string {
	refs, _ := dag.Refs(text)
	if len(refs) == 0 {
		return text
	}
	var b strings.Builder
	for _, r := range refs {
		own, rest, _ := strings.Cut(text, r.Token())
		text = rest
		for own != "" {
			i := strings.IndexByte(own, '$')
			if i < 0 {
				break
			}
			b.WriteString(own[:i])
			own = own[i:]
			n := 1 // bytes that belong together
			switch {
			case strings.HasPrefix(own, "$$"):
				n = 2
			case strings.HasPrefix(own, "$("):
				if n = strings.IndexByte(own, ')') + 1; n == 0 { // may be closed by a value
					b.WriteByte('$')
					n = 2
				}
			case own == "$":
				b.WriteByte('$')
			}
			b.WriteString(own[:n])
			own = own[n:]
		}
		b.WriteString(own)
		b.WriteString(strings.ReplaceAll(value(r), "$", "$$"))
	}
	b.WriteString(text)
	return b.String()
}

// settings are the texts of a step that mean numbers and times.
type settings struct {
	timeout    time.Duration
	limit      int
	policy     string
	backoff    time.Duration
	factor     float64
	maxBackoff time.Duration
	lost       int           // attempts that the infrastructure may lose
	pending    time.Duration // 0 leaves it to the executor
}

// settings returns the settings of a step whose needs have all succeeded, or
// an error that names the value that is none.
func (pl *planner) settings(t *task, records []Record) (settings, error) {
	s := t.step
	set := settings{lost: maxLost}
	if s.InfraRetries != nil {
		set.lost = *s.InfraRetries
	}
	if s.Once {
		set.lost = 0
	}
	if s.Timeout == "" && s.PendingTimeout == "" && s.Retry == nil {
		return set, nil
	}
	value := pl.value(records, t.env)
	count := func(field, text string, least int64) (int64, error) {
		filled := dag.Expand(text, value)
		n, err := strconv.ParseInt(strings.TrimSpace(filled), 10, 64)
		if err != nil || n < least {
			return 0, fmt.Errorf("%s is %q%s: want a whole number, %d or more", field, shorten(filled), origin(text), least)
		}
		return n, nil
	}
	for _, d := range []struct {
		field, text string
		to          *time.Duration
	}{{"timeout", s.Timeout, &set.timeout}, {"pending timeout", s.PendingTimeout, &set.pending}} {
		if d.text == "" {
			continue
		}
		n, err := count(d.field, d.text, 1)
		if err != nil {
			return set, err
		}
		*d.to = time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second
	}
	r := s.Retry
	if r == nil {
		return set, nil
	}
	set.policy, set.factor = cmp.Or(r.Policy, "OnFailure"), 1
	if r.Factor != "" {
		f, err := r.Factor.Float64()
		if err != nil {
			return set, fmt.Errorf("retry factor is %q: want a number", r.Factor)
		}
		set.factor = f
	}
	if r.Limit != "" {
		n, err := count("retry limit", r.Limit, 0)
		if err != nil {
			return set, err
		}
		set.limit = int(min(n, math.MaxInt32))
	}
	for _, d := range []struct {
		field, text string
		to          *time.Duration
	}{{"retry backoff", r.Backoff, &set.backoff}, {"retry max backoff", r.MaxBackoff, &set.maxBackoff}} {
		filled := strings.TrimSpace(dag.Expand(d.text, value))
		n, err := dag.ParseBackoff(filled)
		if err != nil {
			return set, fmt.Errorf("%s is %q%s: want seconds or a duration like \"2m\"", d.field, shorten(filled), origin(d.text))
		}
		*d.to = n
	}
	return set, nil
}

// checkSettings reports the settings that are wrong and known before the run,
// as they hold no output.
func (pl *planner) checkSettings() error {
	var faults dag.Errors
	for _, s := range pl.p.Steps {
		if !settled(s) {
			continue
		}
		if _, err := pl.settings(&task{step: s, env: &env{}}, nil); err != nil {
			faults = append(faults, &dag.Error{Pos: s.Pos, Msg: fmt.Sprintf("step %q: %v", s.Name, err)})
		}
	}
	return faults.Err()
}

// settled reports whether the settings of a step are known before the run, as
// they hold no output and no item of a loop.
func settled(s *dag.Step) bool {
	texts := []string{s.Timeout, s.PendingTimeout}
	if r := s.Retry; r != nil {
		texts = append(texts, r.Limit, r.Backoff, r.MaxBackoff)
	}
	refs, _ := dag.Refs(strings.Join(texts, ""))
	return !slices.ContainsFunc(refs, func(r dag.Ref) bool { return r.Outputs() != nil || r.Kind == dag.RefItem })
}

// origin says where the value of a text comes from, if it is a token.
func origin(text string) string {
	if r, ok := dag.SoleRef(text); ok {
		return ", from " + r.String()
	}
	return ""
}

// shorten returns text for a message.
func shorten(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}
