package k8s

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// TestKillList asks for killings while they are watched, and while they are not.
func TestKillList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists := 0
		var listed []types.UID
		var fails error
		k := &killList{pods: map[types.UID]bool{}, list: func(context.Context) (*corev1.EventList, error) {
			lists++
			time.Sleep(100 * time.Millisecond)
			list := &corev1.EventList{}
			for _, uid := range listed {
				list.Items = append(list.Items, corev1.Event{InvolvedObject: corev1.ObjectReference{UID: uid}})
			}
			return list, fails
		}}
		want := func(what string, pod types.UID, seen time.Time, killed bool, requests int) {
			t.Helper()
			lists = 0
			if got := k.has(t.Context(), pod, seen); got != killed || lists != requests {
				t.Errorf("%s: killed %v after %d lists; want %v after %d", what, got, lists, killed, requests)
			}
		}
		listed = []types.UID{"a"}
		began := time.Now()
		time.Sleep(time.Second)
		want("nothing is known", "a", began, true, 1)
		want("a pod that ended before the list", "b", began, false, 0)
		want("a pod that ended after it", "b", time.Now(), false, 1)
		fails = errors.New("forbidden")
		want("nobody tells", "c", time.Now(), false, 1)
		fails = nil

		events := watch.NewFake()
		w := k.watches(events, false)
		want("a watch that has just begun", "c", time.Now(), false, 1)
		time.Sleep(caughtUp + time.Second)
		want("a watch", "c", time.Now(), false, 0)
		go events.Add(&corev1.Event{InvolvedObject: corev1.ObjectReference{UID: "c"}})
		ev := <-w.ResultChan()
		k.Add(ev.Object)
		want("a watch that has told", "c", time.Now(), true, 0)
		events.Stop()
		if _, ok := <-w.ResultChan(); ok {
			t.Error("the watch has not ended with that which it passes on")
		}
		want("a watch that has ended", "d", time.Now(), false, 1)

		w = k.watches(watch.NewFake(), true)
		time.Sleep(caughtUp + time.Second)
		want("a watch that still tells of before", "d", time.Now(), false, 1)
		k.Replace(nil, "")
		time.Sleep(caughtUp + time.Second)
		want("a watch that has told of before", "d", time.Now(), false, 0)
		w.Stop()
		synctest.Wait()
		want("a watch that was stopped", "d", time.Now(), false, 1)
	})
}
