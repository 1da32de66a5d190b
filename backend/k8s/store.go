package k8s

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/engine"
)

// This file keeps the facts of a run in ConfigMaps.

// stateKey is the entry of a ConfigMap that holds what kfs keeps there.
const stateKey = "kfs.json.gz"

// A shardObject is a shard as it is in the cluster.
type shardObject struct {
	mu   sync.Mutex // held while it is written
	at   *corev1.ConfigMap
	kept *shard
}

func shardName(run string, i int) string { return objectName(run) + "-s" + strconv.Itoa(i) }

// owned returns the metadata of an object of the run.
func (r *Run) owned(name, kind string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, Labels: runLabels(r.info.Name), OwnerReferences: []metav1.OwnerReference{r.owner}}
	if kind != "" {
		m.Labels[kindLabel] = kind
	}
	return m
}

// A maker is a client of one kind of object.
type maker[T metav1.Object] interface {
	Create(ctx context.Context, o T, opts metav1.CreateOptions) (T, error)
	Get(ctx context.Context, name string, opts metav1.GetOptions) (T, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
}

// makeOwned makes an object of the run that is named after it, unless that is
// there already. One that an earlier run of this name has left, as the cluster
// has not come to clear it away, is deleted first.
func makeOwned[T metav1.Object](ctx context.Context, r *Run, client maker[T], kind string, o T) error {
	err := r.cluster.do(ctx, func(ctx context.Context) error {
		for {
			made, err := client.Create(ctx, o, metav1.CreateOptions{})
			if err == nil {
				r.cluster.health.stamped(made.GetCreationTimestamp())
			}
			if !apierrors.IsAlreadyExists(err) {
				return err
			}
			old, err := client.Get(ctx, o.GetName(), metav1.GetOptions{})
			switch {
			case apierrors.IsNotFound(err):
				continue
			case err != nil:
				return err
			case old.GetLabels()[runLabel] != r.info.Name:
				return fmt.Errorf("it is there already and is not kfs's: choose another name for the run")
			case !ofAnother(old, r.owner.UID):
				return nil
			}
			uid := old.GetUID()
			err = client.Delete(ctx, o.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return err
			}
		}
	})
	return access(fmt.Sprintf("create %s %s", kind, o.GetName()), err)
}

// makeShard makes a shard of a new run, an empty one, unless it is there.
func (r *Run) makeShard(ctx context.Context, i int) error {
	data, err := pack(&shard{Version: stateVersion, Records: []storedRecord{}})
	if err != nil {
		return err
	}
	m := &corev1.ConfigMap{ObjectMeta: r.owned(shardName(r.info.Name, i), kindState), BinaryData: map[string][]byte{stateKey: data}}
	return makeOwned(ctx, r, r.cluster.configMaps, "config map", m)
}

// eachShard calls f for all shards at once.
func (r *Run) eachShard(f func(i int) error) error {
	errs := make([]error, r.object.Shards)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for _, err := range errs { // one tells enough
		if err != nil {
			return err
		}
	}
	return nil
}

// Claim implements engine.Store: it takes the run's Lease, and writes its
// number into each shard, so that whoever held the run before can write no
// more. The error is a *HeldError if another driver holds the run.
func (r *Run) Claim(ctx context.Context) (engine.Facts, int64, error) {
	epoch, isNew, err := r.takeLease(ctx)
	if err != nil {
		return engine.Facts{}, 0, err
	}
	r.working.Go(func() { r.keepLease(r.ctx) })
	facts := engine.Facts{Steps: map[string]engine.Record{}}
	r.shards = make([]*shardObject, r.object.Shards)
	for i := range r.shards {
		r.shards[i] = &shardObject{}
	}
	if err := r.readShards(ctx, isNew); err != nil {
		return facts, 0, err
	}
	latest := int64(0)
	for _, s := range r.shards {
		latest = max(latest, s.kept.Epoch)
	}
	if latest >= epoch {
		epoch = latest + 1
		if err := r.raise(ctx, epoch); err != nil {
			return facts, 0, access("take lease "+objectName(r.info.Name), err)
		}
	}
	if err := r.eachShard(func(i int) error { return r.claimShard(ctx, i, epoch) }); err != nil {
		return facts, 0, err
	}
	apart := slices.ContainsFunc(r.shards, func(s *shardObject) bool {
		return slices.ContainsFunc(s.kept.Records, func(rec storedRecord) bool { return rec.Values != "" })
	})
	var values map[string]map[string]string
	if apart {
		if values, err = r.readValues(ctx); err != nil {
			return facts, 0, err
		}
	}
	if run := r.shards[0].kept.Run; run != nil {
		facts.Run = *run
		r.stopping = run.Stop != ""
	}
	for _, s := range r.shards {
		for _, rec := range s.kept.Records {
			if rec.Values != "" {
				texts, ok := values[rec.Values]
				if !ok {
					return facts, 0, fmt.Errorf("config map %s, which holds the outputs of step %q, is missing: somebody has deleted it, and without it the run cannot go on: delete the run with  %s", rec.Values, rec.Step, r.cluster.Command("delete", r.info.Name))
				}
				rec.Outputs = texts
			}
			facts.Steps[rec.Step] = rec.Record
			for _, o := range rec.Attempts {
				r.noteCommitted(o.ID)
			}
		}
	}
	return facts, epoch, nil
}

// readShards reads all shards. Those of a run that has never begun may be
// missing, as whoever made it did not come to make them; else what is missing
// was deleted.
func (r *Run) readShards(ctx context.Context, isNew bool) error {
	missing := make([]bool, r.object.Shards)
	err := r.eachShard(func(i int) error {
		err := r.readShard(ctx, i)
		missing[i] = apierrors.IsNotFound(err)
		if missing[i] {
			return nil
		}
		return err
	})
	first := slices.Index(missing, true)
	if err != nil || first < 0 {
		return err
	}
	if isNew {
		if isNew, err = r.neverBegan(ctx, missing); err != nil {
			return err
		}
	}
	if !isNew {
		return fmt.Errorf("config map %s, which holds a part of the run's state, is missing: what has run already is not known any more, so the run cannot go on: delete it with  %s", shardName(r.info.Name, first), r.cluster.Command("delete", r.info.Name))
	}
	return r.eachShard(func(i int) error {
		if !missing[i] {
			return nil
		}
		if err := r.makeShard(ctx, i); err != nil {
			return err
		}
		return r.readShard(ctx, i)
	})
}

// neverBegan reports whether no driver has ever written a shard or made a pod.
func (r *Run) neverBegan(ctx context.Context, missing []bool) (bool, error) {
	for i, s := range r.shards {
		if !missing[i] && s.kept.Epoch > 0 {
			return false, nil
		}
	}
	opts := selector(r.info.Name, "")
	opts.Limit = 1
	pods := 0
	err := r.cluster.do(ctx, func(ctx context.Context) error {
		list, err := r.cluster.pods.List(ctx, opts)
		if err == nil {
			pods = len(list.Items)
		}
		return err
	})
	return pods == 0, access("list pods", err)
}

// readShard reads a shard as it is now. An error that it is not there is not
// wrapped.
func (r *Run) readShard(ctx context.Context, i int) error {
	s, name := r.shards[i], shardName(r.info.Name, i)
	err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
		s.at, err = r.cluster.configMaps.Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return err
	}
	if err != nil {
		return access("read config map "+name, err)
	}
	s.kept = &shard{}
	if err := unpack(s.at.BinaryData[stateKey], s.kept); err != nil {
		return fmt.Errorf("config map %s, which holds a part of the run's state: %w: the run cannot go on: delete it with  %s", name, err, r.cluster.Command("delete", r.info.Name))
	}
	if s.kept.Version != stateVersion {
		return fmt.Errorf("config map %s was written by another version of kfs (%d): want %d", name, s.kept.Version, stateVersion)
	}
	return nil
}

// claimShard writes the epoch into a shard that was read.
func (r *Run) claimShard(ctx context.Context, i int, epoch int64) error {
	s := r.shards[i]
	for {
		switch {
		case s.kept.Epoch > epoch:
			return engine.ErrStale
		case s.kept.Epoch == epoch:
			return nil // by a call of ours whose answer was lost: no other driver has this number
		}
		err := r.writeShard(ctx, s, s.kept.with(epoch, nil, nil))
		if apierrors.IsConflict(err) {
			err = r.readShard(ctx, i)
		} else if err == nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Commit implements engine.Store. The shards that the records are in are
// written side by side, and the one with the run's record after them.
func (r *Run) Commit(ctx context.Context, epoch int64, run *engine.RunRecord, records []engine.Record) error {
	byShard := map[int][]storedRecord{}
	for _, rec := range records {
		stored, err := r.stored(ctx, rec)
		if err != nil {
			return err
		}
		i := r.sharder.of(rec.Step)
		byShard[i] = append(byShard[i], stored)
	}
	last, hasLast := byShard[0], run != nil
	if hasLast {
		delete(byShard, 0)
	}
	var wg sync.WaitGroup
	errs := make([]error, r.object.Shards)
	for i, recs := range byShard {
		wg.Go(func() { errs[i] = r.commitShard(ctx, i, epoch, nil, recs) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	if err == nil && hasLast {
		err = r.commitShard(ctx, 0, epoch, run, last)
	}
	if err != nil {
		return err
	}
	for _, rec := range records {
		if n := len(rec.Attempts); n > 0 {
			r.committed(rec.Attempts[n-1].ID)
		}
	}
	return nil
}

// commitShard writes records into a shard. It goes on trying while the API
// server is away.
func (r *Run) commitShard(ctx context.Context, i int, epoch int64, run *engine.RunRecord, records []storedRecord) error {
	s := r.shards[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.kept.with(epoch, run, records)
	for {
		err := r.writeShard(ctx, s, next)
		switch {
		case err == nil:
			return nil
		case apierrors.IsConflict(err):
			if err := r.rebase(ctx, s, i, epoch); err != nil {
				return err
			}
		case apierrors.IsNotFound(err):
			return r.gone(ctx, s.at.Name)
		default:
			return err
		}
	}
}

// rebase settles a conflict: a shard of a later epoch ends this driver, any
// other change was no driver's, and gives way.
func (r *Run) rebase(ctx context.Context, s *shardObject, i int, epoch int64) error {
	var now *corev1.ConfigMap
	err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
		now, err = r.cluster.configMaps.Get(ctx, shardName(r.info.Name, i), metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return r.gone(ctx, s.at.Name)
	}
	if err != nil {
		return access("read config map "+s.at.Name, err)
	}
	var found shard
	if err := unpack(now.BinaryData[stateKey], &found); err == nil && found.Epoch > epoch {
		return engine.ErrStale
	}
	s.at = now
	return nil
}

// gone says why a shard is not there any more.
func (r *Run) gone(ctx context.Context, name string) error {
	if err := r.stillThere(ctx); err != nil {
		return err
	}
	return fmt.Errorf("config map %s, which holds a part of the run's state, was deleted by somebody: the run cannot go on", name)
}

// writeShard writes a shard, if it is as it was read and this driver holds the
// run. It goes on trying while the API server is away. An error of the server
// is wrapped, unless it is a conflict or the shard is not there.
func (r *Run) writeShard(ctx context.Context, s *shardObject, next *shard) error {
	next, data, err := next.fit(maxConfigMap - 4096)
	if err != nil {
		return fmt.Errorf("config map %s: %w: the run has too many steps for the %d parts of its state", s.at.Name, err, r.object.Shards)
	}
	write := s.at.DeepCopy()
	write.BinaryData = map[string][]byte{stateKey: data}
	err = r.mutate(ctx, func(ctx context.Context) error {
		done, err := r.cluster.configMaps.Update(ctx, write, metav1.UpdateOptions{})
		if err == nil {
			s.at, s.kept = done, next
		}
		return err
	})
	if err == nil {
		s.at.BinaryData = nil // kept holds it
		s.at.ManagedFields = nil
	}
	if err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) || r.lostLease() != nil {
		return err
	}
	return access("write config map "+write.Name, err)
}

// stored returns a record as it is kept. Larger outputs are in the ConfigMap
// that the executor has made of them; if it has not, as the texts come from
// another driver, it is made here.
func (r *Run) stored(ctx context.Context, rec engine.Record) (storedRecord, error) {
	s := storedRecord{Record: rec}
	size := 0
	for name, text := range rec.Outputs {
		size += len(name) + len(text)
	}
	if size <= maxInline {
		return s, nil
	}
	id := rec.Attempts[len(rec.Attempts)-1].ID
	if err := r.keepValues(ctx, id, rec.Outputs, nil, 0); err != nil {
		return s, err
	}
	s.Values, s.Outputs = valuesName(id), nil
	return s, nil
}

// valuesName is the name of the ConfigMap of an attempt's outputs. Its kind is
// in the name, as an attempt that changes an object has another one.
func valuesName(attempt string) string { return attempt + "-values" }

// quotaFor is how long the outputs of an attempt wait for room in a quota.
const quotaFor = 5 * time.Minute

// keepValues keeps the outputs of an attempt: texts and small files. What is
// kept does not change. For room in a quota it waits for so long.
func (r *Run) keepValues(ctx context.Context, attempt string, texts map[string]string, files map[string][]byte, wait time.Duration) error {
	r.mu.Lock()
	done := r.valuesKept[attempt]
	r.mu.Unlock()
	if done {
		return nil
	}
	m := &corev1.ConfigMap{ObjectMeta: r.owned(valuesName(attempt), kindValues), BinaryData: map[string][]byte{}}
	immutable := true
	m.Immutable = &immutable
	texts = maps.Clone(texts)
	packed, err := pack(texts)
	if err != nil {
		return err
	}
	m.BinaryData[stateKey] = packed
	size := len(packed)
	for i, name := range slices.Sorted(maps.Keys(files)) {
		m.BinaryData[fileKey(i)] = files[name]
		size += len(files[name])
	}
	if size > maxConfigMap-4096 {
		return fmt.Errorf("the outputs have %d bytes together, and a run without an artifact store can keep %d of a step", size, maxConfigMap-4096)
	}
	began := time.Now()
	for n := 0; ; n++ {
		err = r.mutate(ctx, func(ctx context.Context) error {
			_, err := r.cluster.configMaps.Create(ctx, m, metav1.CreateOptions{})
			if exceededQuota(err) { // which is looked at first
				if _, getErr := r.cluster.configMaps.Get(ctx, m.Name, metav1.GetOptions{}); getErr == nil {
					return nil
				}
			}
			return err
		})
		if !exceededQuota(err) || time.Since(began) > wait {
			break
		}
		if n == 0 {
			r.notice("the outputs of attempt %s wait for the quota of the namespace: %s", attempt, apiMessage(err))
		}
		if err := sleep(ctx, 3*time.Second); err != nil {
			return err
		}
	}
	switch {
	case err == nil, apierrors.IsAlreadyExists(err):
	case r.lostLease() != nil:
		return r.lostLease()
	case namespaceTerminating(err):
		if gone := r.stillThere(ctx); gone != nil {
			return gone
		}
		fallthrough
	default:
		return access("create config map "+m.Name, err)
	}
	r.mu.Lock()
	r.valuesKept[attempt] = true
	r.mu.Unlock()
	return nil
}

// fileKey is the entry of the i-th file in the ConfigMap of an attempt's
// outputs, by the order of their names.
func fileKey(i int) string { return "file" + strconv.Itoa(i) }

// readValues reads the texts of the outputs that are kept apart, by the names
// of the ConfigMaps.
func (r *Run) readValues(ctx context.Context) (map[string]map[string]string, error) {
	values := map[string]map[string]string{}
	opts := selector(r.info.Name, kindValues)
	opts.Limit = 20 // of up to 1 MiB each
	for {
		var page *corev1.ConfigMapList
		if err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
			page, err = r.cluster.configMaps.List(ctx, opts)
			return err
		}); apierrors.IsResourceExpired(err) {
			opts.Continue = "" // it was too slow: from the beginning
			continue
		} else if err != nil {
			return nil, access("list config maps", err)
		}
		for i := range page.Items {
			m := &page.Items[i]
			var texts map[string]string
			if err := unpack(m.BinaryData[stateKey], &texts); err != nil {
				return nil, fmt.Errorf("config map %s, which holds outputs of the run: %w", m.Name, err)
			}
			values[m.Name] = texts
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return values, nil
		}
	}
}
