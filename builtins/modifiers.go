package builtins

import (
	"cmp"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/kube"
)

// This file defines the modifiers for step.apply.

// modifier returns a function of one step.
func (c *call) modifier(fn func(c *call, st *step)) starlark.Value {
	return c.s.builtin(c.name, func(c *call) (starlark.Value, error) {
		var v starlark.Value
		if err := c.unpack("step", &v); err != nil {
			return nil, err
		}
		st, ok := v.(*step)
		if !ok {
			return nil, c.errorf("", "%s: want a step, got %s", c.name, typeName(v))
		}
		if skip, err := c.skips(st); skip || err != nil {
			return st, err
		}
		fn(c, st)
		return st, nil
	})
}

// useGCPSecret: use_gcp_secret(secret_name="user-gcp-sa", secret_file_path_in_volume=None, volume_name=None, secret_volume_mount_path="/secret/gcp-credentials") -> modifier
//
// Mounts the secret and points Google's variables at it.
//
// The source is kfp.gcp.use_gcp_secret of kfp 1.8.22.
func (s *Session) useGCPSecret(c *call) (starlark.Value, error) {
	var secret, mountPath text = "user-gcp-sa", "/secret/gcp-credentials"
	var file, volume text
	if err := c.unpack("secret_name??", &secret, "secret_file_path_in_volume??", &file, "volume_name??", &volume,
		"secret_volume_mount_path??", &mountPath); err != nil {
		return nil, err
	}
	c.checkName("secret_name", string(secret))
	if file == "" {
		file = "/" + secret + ".json"
	}
	if volume == "" {
		volume = "gcp-credentials-" + secret
	}
	return c.modifier(func(c *call, st *step) {
		c.addVolume(st.d, dag.Object{
			{Name: "name", Value: string(volume)},
			{Name: "secret", Value: dag.Object{{Name: "secretName", Value: string(secret)}}},
		})
		c.addMount(st.target(), string(volume), string(mountPath))
		c.addEnv(st.target(), "GOOGLE_APPLICATION_CREDENTIALS", string(mountPath+file))
		c.addEnv(st.target(), "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE", string(mountPath+file))
	}), nil
}

// mountPVC: mount_pvc(pvc_name="pipeline-claim", volume_name="pipeline", volume_mount_path="/mnt/pipeline") -> modifier
//
// Mounts a claim.
//
// The source is kfp.onprem.mount_pvc of kfp 1.8.22.
func (s *Session) mountPVC(c *call) (starlark.Value, error) {
	var pvc, volume, mountPath text = "pipeline-claim", "pipeline", "/mnt/pipeline"
	if err := c.unpack("pvc_name??", &pvc, "volume_name??", &volume, "volume_mount_path??", &mountPath); err != nil {
		return nil, err
	}
	c.checkName("pvc_name", string(pvc))
	return c.modifier(func(c *call, st *step) {
		c.addVolume(st.d, dag.Object{
			{Name: "name", Value: string(volume)},
			{Name: "persistentVolumeClaim", Value: dag.Object{{Name: "claimName", Value: string(pvc)}}},
		})
		c.addMount(st.target(), string(volume), string(mountPath))
	}), nil
}

// checkName reports the name of an object of the cluster that no object can
// have.
func (c *call) checkName(arg, name string) {
	if err := kube.CheckSubdomain(name); err != nil && !dag.HasRefs(name) {
		c.report(arg, "%s: %s %v", c.name, arg, err)
	}
}

// usePreemptibleNodepool: use_preemptible_nodepool(toleration=..., hard_constraint=False) -> modifier
//
// Prefers, or with `hard_constraint` wants, preemptible nodes of GKE.
//
// The source of this and the next two is kfp.gcp of kfp 1.8.22.
func (s *Session) usePreemptibleNodepool(c *call) (starlark.Value, error) {
	var v starlark.Value
	hard := false
	if err := c.unpack("toleration??", &v, "hard_constraint?", &hard); err != nil {
		return nil, err
	}
	toleration := c.toleration(v, "preemptible")
	term := dag.Object{{Name: "matchExpressions", Value: []any{dag.Object{
		{Name: "key", Value: "cloud.google.com/gke-preemptible"},
		{Name: "operator", Value: "In"},
		{Name: "values", Value: []any{"true"}},
	}}}}
	var node dag.Object
	if hard {
		node.Set([]any{term}, "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	} else {
		preferred := dag.Object{{Name: "preference", Value: term}, {Name: "weight", Value: int64(50)}}
		node.Set([]any{preferred}, "preferredDuringSchedulingIgnoredDuringExecution")
	}
	return c.modifier(func(c *call, st *step) {
		c.addToleration(st.d, toleration)
		st.d.Affinity = dag.Object{{Name: "nodeAffinity", Value: node}}
	}), nil
}

// addGPUToleration: add_gpu_toleration(toleration=...) -> modifier
//
// Tolerates the taint of nodes with GPUs.
func (s *Session) addGPUToleration(c *call) (starlark.Value, error) {
	var v starlark.Value
	if err := c.unpack("toleration??", &v); err != nil {
		return nil, err
	}
	toleration := c.toleration(v, "nvidia.com/gpu")
	return c.modifier(func(c *call, st *step) { c.addToleration(st.d, toleration) }), nil
}

// toleration returns a toleration that was given, else one of the taint
// key=true:NoSchedule.
func (c *call) toleration(v starlark.Value, key string) dag.Object {
	if v != nil {
		return c.fitObject("toleration", "Toleration", v)
	}
	return dag.Object{
		{Name: "effect", Value: "NoSchedule"},
		{Name: "key", Value: key},
		{Name: "operator", Value: "Equal"},
		{Name: "value", Value: "true"},
	}
}

// useTPU: use_tpu(tpu_cores, tpu_resource, tf_version) -> modifier
//
// Asks for a TPU of GKE.
func (s *Session) useTPU(c *call) (starlark.Value, error) {
	var cores, version scalar
	var resource string
	if err := c.unpack("tpu_cores", &cores, "tpu_resource", &resource, "tf_version", &version); err != nil {
		return nil, err
	}
	c.checkCount("tpu_cores", string(cores), 1)
	return c.modifier(func(c *call, st *step) {
		c.setPair(&st.d.Annotations, st.target().what, "tf_version", "annotation", "tf-version.cloud-tpus.google.com", string(version), false)
		c.setResource(st.target(), "limits", "cloud-tpus.google.com/"+resource, "tpu_cores", textQuantity(cores))
	}), nil
}

// useAWSSecret: use_aws_secret(secret_name="aws-secret", aws_access_key_id_name="AWS_ACCESS_KEY_ID", aws_secret_access_key_name="AWS_SECRET_ACCESS_KEY", aws_region=None) -> modifier
//
// Sets Amazon's variables from the secret.
//
// The source is kfp.aws.use_aws_secret of kfp 1.8.22.
func (s *Session) useAWSSecret(c *call) (starlark.Value, error) {
	var secret, id, key text = "aws-secret", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
	var region text
	if err := c.unpack("secret_name??", &secret, "aws_access_key_id_name??", &id, "aws_secret_access_key_name??", &key,
		"aws_region??", &region); err != nil {
		return nil, err
	}
	c.checkName("secret_name", string(secret))
	return c.modifier(func(c *call, st *step) {
		c.addSecretEnv(st.target(), "AWS_ACCESS_KEY_ID", string(secret), string(id))
		c.addSecretEnv(st.target(), "AWS_SECRET_ACCESS_KEY", string(secret), string(key))
		if region != "" {
			c.addEnv(st.target(), "AWS_REGION", string(region))
		}
	}), nil
}

// useAzureSecret: use_azure_secret(secret_name="azcreds") -> modifier
//
// Sets Azure's variables from the secret.
//
// The source is kfp.azure.use_azure_secret of kfp 1.8.22.
func (s *Session) useAzureSecret(c *call) (starlark.Value, error) {
	var secret text = "azcreds"
	if err := c.unpack("secret_name??", &secret); err != nil {
		return nil, err
	}
	c.checkName("secret_name", string(secret))
	return c.modifier(func(c *call, st *step) {
		for _, name := range []string{"AZ_SUBSCRIPTION_ID", "AZ_TENANT_ID", "AZ_CLIENT_ID", "AZ_CLIENT_SECRET"} {
			c.addSecretEnv(st.target(), name, string(secret), name)
		}
	}), nil
}

// useK8sSecret: use_k8s_secret(secret_name="k8s-secret", k8s_secret_key_to_env={}) -> modifier
//
// Sets variables from keys of the secret: `{"key": "VARIABLE"}`.
//
// The source of this and the next one is kfp.onprem of kfp 1.8.22.
func (s *Session) useK8sSecret(c *call) (starlark.Value, error) {
	var secret text = "k8s-secret"
	var keys starlark.Value = new(starlark.Dict)
	if err := c.unpack("secret_name??", &secret, "k8s_secret_key_to_env??", &keys); err != nil {
		return nil, err
	}
	c.checkName("secret_name", string(secret))
	names, _ := c.fit("k8s_secret_key_to_env", "{}string", keys).(dag.Object)
	for _, m := range names {
		if err := kube.CheckEnvName(m.Value.(string)); err != nil {
			c.report("k8s_secret_key_to_env", "%s: variable %v", c.name, err)
		}
	}
	return c.modifier(func(c *call, st *step) {
		for _, m := range names {
			c.addSecretEnv(st.target(), m.Value.(string), string(secret), m.Name)
		}
	}), nil
}

// addDefaultResourceSpec: add_default_resource_spec(memory_limit=None, cpu_limit=None, memory_request=None, cpu_request=None) -> modifier
//
// Limits and requests, where the step has none; meant as a transformer.
//
// A request that is not given is the limit. What a step already limits or
// requests stays.
func (s *Session) addDefaultResourceSpec(c *call) (starlark.Value, error) {
	var memoryLimit, cpuLimit, memoryRequest, cpuRequest scalar
	if err := c.unpack("memory_limit??", &memoryLimit, "cpu_limit??", &cpuLimit, "memory_request??", &memoryRequest,
		"cpu_request??", &cpuRequest); err != nil {
		return nil, err
	}
	type spec struct {
		resource, kind, arg string
		quantity            scalar
	}
	var specs []spec
	for _, sp := range []spec{
		{"cpu", "limits", "cpu_limit", cpuLimit},
		{"cpu", "requests", "cpu_request", cmp.Or(cpuRequest, cpuLimit)},
		{"memory", "limits", "memory_limit", memoryLimit},
		{"memory", "requests", "memory_request", cmp.Or(memoryRequest, memoryLimit)},
	} {
		if sp.quantity == "" {
			continue
		}
		if err := kube.CheckQuantity(sp.resource, string(sp.quantity)); err != nil {
			c.report(sp.arg, "%s: %v", c.name, err)
			continue
		}
		specs = append(specs, sp)
	}
	return c.modifier(func(c *call, st *step) {
		limited := map[string]bool{}
		for _, r := range []string{"cpu", "memory"} {
			limited[r] = st.d.Container.Get("resources", "limits", r) != nil
		}
		for _, sp := range specs {
			if !limited[sp.resource] && st.d.Container.Get("resources", sp.kind, sp.resource) == nil {
				c.setResource(st.target(), sp.kind, sp.resource, sp.arg, textQuantity(sp.quantity))
			}
		}
	}), nil
}
