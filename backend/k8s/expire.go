package k8s

import (
	"context"
	"math"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// This file has the cluster delete a run some time after its end, when no kfs
// may be there to do it.

// A Job of no completions is complete at once, without a pod. When its time to
// live is over, the cluster deletes it, and the run with it, as that is its own.

func expiryName(run string) string { return objectName(run) + "-ttl" }

// expireFor is how long it may take to tell the cluster: the run is over, and
// somebody waits for its result.
const expireFor = 15 * time.Second

// expire has the cluster delete a run that has ended and whose pods are let go,
// if its pipeline says after how long.
func (r *Run) expire(ctx context.Context) {
	ttl := conf(r.object.Pipeline).TTLSeconds
	if ttl == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, expireFor)
	defer cancel()
	job, err := r.makeExpiry(ctx, int32(min(*ttl, math.MaxInt32)))
	if err == nil {
		err = r.ownedBy(ctx, job)
	}
	if err != nil && r.lostLease() == nil {
		r.notice("the run will not be deleted by itself in %v: %v; to delete it:  %s", time.Duration(*ttl)*time.Second, err, r.cluster.Command("delete", r.info.Name))
	}
}

// makeExpiry makes the Job of a run, unless it is there.
func (r *Run) makeExpiry(ctx context.Context, ttl int32) (*batchv1.Job, error) {
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: expiryName(r.info.Name), Labels: runLabels(r.info.Name), Annotations: map[string]string{runIDAnnotation: r.info.ID}},
		Spec: batchv1.JobSpec{
			Completions: new(int32), Parallelism: new(int32), TTLSecondsAfterFinished: &ttl,
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: mainContainer, Image: "none"}},
			}},
		},
	}
	var made *batchv1.Job
	err := r.mutate(ctx, func(ctx context.Context) (err error) {
		made, err = r.cluster.jobs.Create(ctx, job, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		old, err := r.cluster.jobs.Get(ctx, job.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		made = old
		return r.verify(&old.ObjectMeta, &job.ObjectMeta, "job")
	})
	return made, access("create job "+job.Name, err)
}

// ownedBy makes the run the property of a Job.
func (r *Run) ownedBy(ctx context.Context, job *batchv1.Job) error {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		return r.mutate(ctx, func(ctx context.Context) error {
			m, err := r.cluster.configMaps.Get(ctx, r.owner.Name, metav1.GetOptions{})
			if err != nil || m.UID != r.owner.UID || slices.ContainsFunc(m.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == job.UID }) {
				return err
			}
			m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: job.Name, UID: job.UID})
			_, err = r.cluster.configMaps.Update(ctx, m, metav1.UpdateOptions{})
			return err
		})
	})
	return access("update config map "+r.owner.Name, err)
}

// deleteExpiry deletes the Job that would delete a run later.
func deleteExpiry(ctx context.Context, c *Cluster, run *corev1.ConfigMap) error {
	for _, owner := range run.OwnerReferences {
		if owner.Kind != "Job" || owner.Name != expiryName(run.Labels[runLabel]) {
			continue
		}
		background := metav1.DeletePropagationBackground
		err := c.do(ctx, func(ctx context.Context) error {
			return c.jobs.Delete(ctx, owner.Name, metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &owner.UID}})
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return access("delete job "+owner.Name, err)
		}
	}
	return nil
}
