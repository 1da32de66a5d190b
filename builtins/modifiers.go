package builtins

import (
	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/kube"
)

// This file defines the modifiers for step.apply.

// modifier returns a function of one step.
func (c *call) modifier(fn func(c *call, d *dag.Step)) starlark.Value {
	return c.s.builtin(c.name, func(c *call) (starlark.Value, error) {
		var v starlark.Value
		if err := c.unpack("step", &v); err != nil {
			return nil, err
		}
		st, ok := v.(*step)
		if !ok {
			return nil, c.errorf("", "%s: want a step, got %s", c.name, v.Type())
		}
		fn(c, st.d)
		return st, nil
	})
}

// useGCPSecret: use_gcp_secret(secret_name="user-gcp-sa", secret_file_path_in_volume=None, volume_name=None, secret_volume_mount_path="/secret/gcp-credentials") -> modifier
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
	return c.modifier(func(c *call, d *dag.Step) {
		c.addVolume(d, dag.Object{
			{Name: "name", Value: string(volume)},
			{Name: "secret", Value: dag.Object{{Name: "secretName", Value: string(secret)}}},
		})
		c.addMount(d, string(volume), string(mountPath))
		c.addEnv(d, "GOOGLE_APPLICATION_CREDENTIALS", string(mountPath+file))
		c.addEnv(d, "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE", string(mountPath+file))
	}), nil
}

// mountPVC: mount_pvc(pvc_name="pipeline-claim", volume_name="pipeline", volume_mount_path="/mnt/pipeline") -> modifier
//
// The source is kfp.onprem.mount_pvc of kfp 1.8.22.
func (s *Session) mountPVC(c *call) (starlark.Value, error) {
	var pvc, volume, mountPath text = "pipeline-claim", "pipeline", "/mnt/pipeline"
	if err := c.unpack("pvc_name??", &pvc, "volume_name??", &volume, "volume_mount_path??", &mountPath); err != nil {
		return nil, err
	}
	c.checkName("pvc_name", string(pvc))
	return c.modifier(func(c *call, d *dag.Step) {
		c.addVolume(d, dag.Object{
			{Name: "name", Value: string(volume)},
			{Name: "persistentVolumeClaim", Value: dag.Object{{Name: "claimName", Value: string(pvc)}}},
		})
		c.addMount(d, string(volume), string(mountPath))
	}), nil
}

// checkName reports the name of an object of the cluster that no object can
// have.
func (c *call) checkName(arg, name string) {
	if err := kube.CheckSubdomain(name); err != nil && !dag.HasRefs(name) {
		c.report(arg, "%s: %s %v", c.name, arg, err)
	}
}
