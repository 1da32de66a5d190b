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
func (pl *planner) attempt(i, number int, records []Record, timeout time.Duration) *Attempt {
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
	plain := func(text string) string { return dag.Expand(text, value) }
	kubelet := func(text string) string { return expandQuoted(text, value) }

	a := &Attempt{
		ID:    AttemptID(pl.run.ID, t.name, number),
		RunID: pl.run.ID, RunName: pl.run.Name,
		Step: t.name, Number: number, Pos: s.Pos,
		Template: s.Container, fill: kubelet,
		Accelerator: s.Accelerator,
		Outputs:     pl.outputs(s),
		Timeout:     timeout,
	}
	for _, m := range s.Container {
		v := m.Value
		switch m.Name {
		case "command", "args":
			v = dag.MapText(v, kubelet)
		case "env":
			v = mapEnv(v, plain, kubelet)
		default:
			v = dag.MapText(v, plain)
		}
		a.Container = append(a.Container, dag.Member{Name: m.Name, Value: v})
	}
	for _, f := range s.Artifacts {
		artifact := Artifact{Artifact: f}
		if r, ok := f.Ref(); ok {
			artifact.From = pl.file(records, t.env, r)
		}
		artifact.Text = ""
		if artifact.From == "" {
			artifact.Text = plain(f.Text)
		}
		a.Artifacts = append(a.Artifacts, artifact)
	}
	for _, v := range s.Volumes {
		a.Volumes = append(a.Volumes, dag.MapText(v, plain).(dag.Object))
	}
	return a
}

// mapEnv maps a list of core/v1 EnvVars, whose values the kubelet expands.
func mapEnv(env any, plain, kubelet func(string) string) any {
	list, ok := env.([]any)
	if !ok {
		return dag.MapText(env, plain)
	}
	mapped := make([]any, len(list))
	for i, e := range list {
		variable, ok := e.(dag.Object)
		mapped[i] = dag.MapText(e, plain)
		if text, isText := variable.Get("value").(string); ok && isText {
			obj := mapped[i].(dag.Object)
			obj.Set(kubelet(text), "value")
			mapped[i] = obj
		}
	}
	return mapped
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
	lost       int // attempts that the infrastructure may lose
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
	if s.Timeout == "" && s.Retry == nil {
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
	if s.Timeout != "" {
		n, err := count("timeout", s.Timeout, 1)
		if err != nil {
			return set, err
		}
		set.timeout = time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second
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
		texts := []string{s.Timeout}
		if r := s.Retry; r != nil {
			texts = append(texts, r.Limit, r.Backoff, r.MaxBackoff)
		}
		refs, _ := dag.Refs(strings.Join(texts, ""))
		if slices.ContainsFunc(refs, func(r dag.Ref) bool { return r.Outputs() != nil || r.Kind == dag.RefItem }) {
			continue
		}
		if _, err := pl.settings(&task{step: s, env: &env{}}, nil); err != nil {
			faults = append(faults, &dag.Error{Pos: s.Pos, Msg: fmt.Sprintf("step %q: %v", s.Name, err)})
		}
	}
	return faults.Err()
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
