package kube

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/dag"
)

func TestSnake(t *testing.T) {
	for _, tt := range []struct{ name, snake, client string }{
		{"name", "name", "name"},
		{"hostIP", "host_ip", "host_ip"},
		{"podIPs", "pod_ips", "pod_i_ps"},
		{"targetWWNs", "target_wwns", "target_ww_ns"},
		{"setHostnameAsFQDN", "set_hostname_as_fqdn", "set_hostname_as_fqdn"},
		{"requiredDuringSchedulingIgnoredDuringExecution", "required_during_scheduling_ignored_during_execution", "required_during_scheduling_ignored_during_execution"},
		{"seLinuxOptions", "se_linux_options", "se_linux_options"},
		{"clusterIPs", "cluster_ips", "cluster_i_ps"},
	} {
		if got, client := Snake(tt.name), clientSnake(tt.name); got != tt.snake || client != tt.client {
			t.Errorf("Snake(%q) = %q, clientSnake %q; want %q, %q", tt.name, got, client, tt.snake, tt.client)
		}
	}
}

func TestTypeOf(t *testing.T) {
	for _, name := range ObjectTypes() {
		typ := TypeOf(name)
		if typ == nil || typ.Values != nil || typ.Name != name || TypeOf("V1"+name).Name != name {
			t.Fatalf("TypeOf(%q) = %v; want the object type", name, typ)
		}
		for _, f := range typ.Fields {
			for _, as := range []string{f.Name, Snake(f.Name), clientSnake(f.Name)} {
				if got := typ.Field(as); got == nil || got.Name != f.Name {
					t.Errorf("%s.Field(%q) = %v; want %s", name, as, got, f.Name)
				}
			}
			if elem := strings.TrimLeft(f.Type, "[]{}"); elem[0] < 'a' && TypeOf(elem) == nil {
				t.Errorf("%s.%s holds %s, which is no type", name, f.Name, f.Type)
			}
		}
	}
	for _, name := range []string{"", "V1", "pod", "PodX", "Pod\n", "string", "#"} {
		if typ := TypeOf(name); typ != nil {
			t.Errorf("TypeOf(%q) = %v; want nil", name, typ)
		}
	}
}

func TestFit(t *testing.T) {
	param := dag.Ref{Kind: dag.RefParam, Name: "n"}.Token()
	obj := func(name string, v any) dag.Object { return dag.Object{{Name: name, Value: v}} }
	for _, tt := range []struct {
		holds    string
		in, want any
		fault    string // part of the only one; "" is none
	}{
		{"string", "", "", ""},
		{"string", int64(1), nil, "want text, got 1"},
		{"bool", false, false, ""},
		{"bool", param, nil, "n is known only when the pipeline runs"},
		{"int32", int64(1) << 40, nil, "too large"},
		{"int64", int64(1) << 40, int64(1) << 40, ""},
		{"int64", 1.5, nil, "want a whole number, got 1.5"},
		{"float64", int64(1), int64(1), ""},
		{"intOrString", param, param, ""},
		{"intOrString", true, nil, "want a whole number or text, got True"},
		{"quantity", "1Gi", "1Gi", ""},
		{"quantity", int64(2), int64(2), ""},
		{"quantity", 0.5, 0.5, ""},
		{"quantity", param, param, ""},
		{"quantity", param + "Gi", nil, "is not a quantity"},
		{"quantity", "-1", nil, "is not a quantity"},
		{"VolumeResourceRequirements", Typed{"ResourceRequirements", obj("limits", obj("a/b", "1"))}, obj("limits", obj("a/b", "1")), ""},
		{"quantity", false, nil, "want a quantity"},
		{"bytes", "YQ==", "YQ==", ""},
		{"bytes", "a", nil, "not base64"},
		{"time", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z", ""},
		{"any", obj("x", []any{Typed{"EnvVar", obj("name", "A")}}), obj("x", []any{obj("name", "A")}), ""},
		{"[]string", []any{"a", nil}, []any{"a"}, "want text, got None"},
		{"{}string", obj("a", true), obj("a", "True"), ""},
		{"{}quantity", obj("nvidia.com/gpu", "0.5"), dag.Object{}, "want a whole number"},
		{"PullPolicy", "", "", ""},
		{"PullPolicy", param, param, ""},
		{"PullPolicy", "always", nil, "want one of Always, Never, IfNotPresent"},
		{"EnvVar", obj("name", "A"), obj("name", "A"), ""},
		{"EnvVar", obj("value", int64(3)), obj("value", "3"), "an EnvVar needs name"},
		{"EnvVar", obj("name", nil), dag.Object{}, "an EnvVar needs name"},
		{"EnvVar", dag.Object{{Name: "name", Value: "A"}, {Name: "valu", Value: "x"}}, obj("name", "A"), `did you mean "value"?`},
		{"NodeAffinity", dag.Object{}, dag.Object{}, ""},
		{"SecurityContext", obj("run_as_user", int64(-1)), obj("runAsUser", int64(-1)), "-1: want 0 or more"},
		{"ContainerPort", obj("container_port", int64(0)), obj("containerPort", int64(0)), "0: want a number from 1 to 65535"},
		{"KeyToPath", dag.Object{{Name: "key", Value: "k"}, {Name: "path", Value: "p"}, {Name: "mode", Value: int64(777)}},
			dag.Object{{Name: "key", Value: "k"}, {Name: "path", Value: "p"}, {Name: "mode", Value: int64(777)}}, "777: want a number from 0 to 511"},
		{"Toleration", obj("value", "x"), obj("value", "x"), "a Toleration without a key needs the operator Exists"},
		{"Toleration", obj("operator", "Exists"), obj("operator", "Exists"), ""},
		{"Toleration", dag.Object{{Name: "key", Value: "k"}, {Name: "toleration_seconds", Value: int64(0)}},
			dag.Object{{Name: "key", Value: "k"}, {Name: "tolerationSeconds", Value: int64(0)}}, "needs the effect NoExecute"},
		{"NodeSelector", obj("nodeSelectorTerms", []any{}), obj("nodeSelectorTerms", []any{}), "at least one"},
		{"NodeSelectorRequirement", dag.Object{{Name: "key", Value: "k"}, {Name: "operator", Value: "In"}},
			dag.Object{{Name: "key", Value: "k"}, {Name: "operator", Value: "In"}}, "the operator In needs values"},
		{"NodeSelectorRequirement", dag.Object{{Name: "key", Value: "k"}, {Name: "operator", Value: "Gt"}, {Name: "values", Value: []any{param}}},
			dag.Object{{Name: "key", Value: "k"}, {Name: "operator", Value: "Gt"}, {Name: "values", Value: []any{param}}}, ""},
		{"Probe", dag.Object{}, dag.Object{}, "a Probe needs one of exec, grpc, http_get, tcp_socket"},
		{"EnvVarSource", dag.Object{}, dag.Object{}, "needs one of config_map_key_ref, field_ref"},
		{"Volume", dag.Object{{Name: "name", Value: "v"}, {Name: "emptyDir", Value: dag.Object{}}, {Name: "hostPath", Value: obj("path", "/")}},
			dag.Object{{Name: "name", Value: "v"}, {Name: "emptyDir", Value: dag.Object{}}, {Name: "hostPath", Value: obj("path", "/")}},
			"a Volume has empty_dir and host_path: want one of them"},
		{"Toleration", Typed{"EnvVar", nil}, nil, "want a Toleration, got an EnvVar"},
		{"LocalObjectReference", Typed{"ObjectReference", obj("name", "x")}, obj("name", "x"), ""},
		{"Lifecycle", obj("preStop", obj("_exec", obj("command", []any{"x"}))), obj("preStop", obj("exec", obj("command", []any{"x"}))), ""},
	} {
		got, faults := Fit(tt.holds, tt.in)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Fit(%s, %v) (-want +got):\n%s", tt.holds, tt.in, diff)
		}
		if tt.fault == "" && faults != nil || tt.fault != "" && (len(faults) != 1 || !strings.Contains(faults[0].Msg, tt.fault)) {
			t.Errorf("Fit(%s, %v): faults %v; want %q", tt.holds, tt.in, faults, tt.fault)
		}
	}
}

func TestCheckLabelName(t *testing.T) {
	for _, tt := range []struct {
		name string
		ok   bool
	}{
		{"a", true}, {"team_A.b-c", true}, {"example.com/team", true}, {strings.Repeat("a", 63), true},
		{"", false}, {"-a", false}, {"a/", false}, {"/a", false}, {"a/b/c", false}, {"A.com/b", false},
		{strings.Repeat("a", 64), false}, {"a b", false}, {"ä", false},
	} {
		if err := CheckLabelName(tt.name); (err == nil) != tt.ok {
			t.Errorf("CheckLabelName(%q) = %v; want ok %v", tt.name, err, tt.ok)
		}
	}
	if err := CheckLabelValue(""); err != nil {
		t.Errorf("CheckLabelValue of nothing: %v", err)
	}
}
