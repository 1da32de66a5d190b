package dag

// This file maps the texts of a step.

// MapText returns a copy of the step with each text that may hold a token
// replaced by f of it, or by expanded of it if the kubelet expands $(NAME) in
// the text: commands, arguments and the values of variables.
func (s *Step) MapText(f, expanded func(string) string) *Step {
	c := *s
	tree := func(o Object) Object {
		if o == nil {
			return nil
		}
		return MapText(o, f).(Object)
	}
	trees := func(list []Object) []Object {
		var mapped []Object
		for _, o := range list {
			mapped = append(mapped, tree(o))
		}
		return mapped
	}
	containers := func(list []Object) []Object {
		var mapped []Object
		for _, k := range list {
			mapped = append(mapped, mapContainer(k, f, expanded))
		}
		return mapped
	}
	if s.Container != nil {
		c.Container = mapContainer(s.Container, f, expanded)
	}
	c.Volumes = trees(s.Volumes)
	if s.Resource != nil {
		c.Resource = s.Resource.mapText(f)
		c.Outputs = nil
		for _, o := range s.Outputs {
			o.JSONPath = f(o.JSONPath)
			c.Outputs = append(c.Outputs, o)
		}
	}
	c.Artifacts = nil
	for _, a := range s.Artifacts {
		a.Text = f(a.Text)
		c.Artifacts = append(c.Artifacts, a)
	}
	c.Timeout = f(s.Timeout)
	if s.Retry != nil {
		r := *s.Retry
		r.Limit, r.Backoff, r.MaxBackoff = f(r.Limit), f(r.Backoff), f(r.MaxBackoff)
		c.Retry = &r
	}
	c.Pod = Pod{
		NodeSelector: tree(s.NodeSelector), Tolerations: trees(s.Tolerations), Affinity: tree(s.Affinity),
		Annotations: tree(s.Annotations), Labels: tree(s.Labels),
		InitContainers: containers(s.InitContainers), Sidecars: containers(s.Sidecars),
		ServiceAccount: f(s.ServiceAccount), Mesh: s.Mesh,
	}
	c.DisplayName, c.MaxCacheStaleness, c.PendingTimeout = f(s.DisplayName), f(s.MaxCacheStaleness), f(s.PendingTimeout)
	if s.Component != nil {
		k := *s.Component
		k.Arguments = tree(k.Arguments)
		c.Component = &k
	}
	return &c
}

func (r *Resource) mapText(f func(string) string) *Resource {
	c := *r
	c.MergeStrategy, c.SuccessCondition, c.FailureCondition = f(r.MergeStrategy), f(r.SuccessCondition), f(r.FailureCondition)
	c.Flags = nil
	for _, flag := range r.Flags {
		c.Flags = append(c.Flags, f(flag))
	}
	c.Manifest = MapText(r.Manifest, f).(Object)
	return &c
}

// mapContainer maps the texts of a core/v1 Container.
func mapContainer(k Object, f, expanded func(string) string) Object {
	c := make(Object, 0, len(k))
	for _, m := range k {
		v := m.Value
		switch m.Name {
		case "command", "args":
			v = MapText(v, expanded)
		case "env":
			v = mapEnv(v, f, expanded)
		default:
			v = MapText(v, f)
		}
		c = append(c, Member{Name: f(m.Name), Value: v})
	}
	return c
}

// mapEnv maps a list of core/v1 EnvVars, whose values the kubelet expands.
func mapEnv(env any, f, expanded func(string) string) any {
	list, ok := env.([]any)
	if !ok {
		return MapText(env, f)
	}
	mapped := make([]any, len(list))
	for i, e := range list {
		mapped[i] = MapText(e, f)
		if text, ok := e.(Object); ok {
			if value, ok := text.Get("value").(string); ok {
				obj := mapped[i].(Object)
				obj.Set(expanded(value), "value")
				mapped[i] = obj
			}
		}
	}
	return mapped
}
