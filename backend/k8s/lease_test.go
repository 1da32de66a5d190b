package k8s

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestHolder wants a process to be known again by what a Lease says of it.
func TestHolder(t *testing.T) {
	me := self()
	if got := parseHolder(me.identity()); got != me {
		t.Errorf("parseHolder(%q) = %v; want %v", me.identity(), got, me)
	}
	if other := self(); other.Token == me.Token {
		t.Error("two drivers of one process have the same token")
	}
	for identity, want := range map[string]Holder{
		"":                 {},
		"somebody":         {Host: "somebody"},
		"h/b/n/12/34/t/x":  {Host: "h/b/n/12/34/t/x"},
		"h/b/n/many/34/tt": {Host: "h", Boot: "b", Namespace: "n", Began: "34", Token: "tt"},
	} {
		if got := parseHolder(identity); got != want {
			t.Errorf("parseHolder(%q) = %v; want %v", identity, got, want)
		}
	}
	if (Holder{}).named() != "" || me.named() == "" {
		t.Errorf("named: %q, %q", Holder{}.named(), me.named())
	}
}

// TestHolderAlive wants only a process of this machine, and of this namespace of
// processes, to be taken for dead or alive.
func TestHolderAlive(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what is known of processes is Linux'")
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	me, child := self(), self()
	child.PID = cmd.Process.Pid
	child.Began, _ = processStart(child.PID)
	with := func(h Holder, f func(*Holder)) Holder {
		f(&h)
		return h
	}
	type state struct{ dead, alive bool }
	check := func(name string, h Holder, want state) {
		t.Helper()
		if got := (state{h.dead(), h.alive()}); got != want {
			t.Errorf("%s: %+v; want %+v", name, got, want)
		}
	}
	check("this process", me, state{alive: true})
	check("a child", child, state{alive: true})
	check("a process of this number that began at another time", with(me, func(h *Holder) { h.Began = "1" }), state{dead: true})
	check("another machine", with(child, func(h *Holder) { h.Boot = "another" }), state{})
	check("another namespace", with(child, func(h *Holder) { h.Namespace = "another" }), state{})
	check("a machine that says nothing of itself", with(child, func(h *Holder) { h.Boot = "" }), state{})
	check("nobody", Holder{}, state{})
	cmd.Process.Kill()
	for end := time.Now().Add(time.Minute); child.alive() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	check("a child that was killed and not waited for", child, state{dead: true})
	cmd.Wait()
	check("a child that is gone", child, state{dead: true})
	if began, ok := processStart(os.Getpid()); !ok || began == "" {
		t.Errorf("processStart of this process: %q, %v", began, ok)
	}
}

// TestLeaseWatch wants a Lease to be free only if its holder can be known to be
// dead, by whatever clock it wrote.
func TestLeaseWatch(t *testing.T) {
	const duration = 30 * time.Second
	elsewhere := self()
	elsewhere.Host, elsewhere.Boot = "elsewhere", "another"
	dead := self()
	dead.Began = "1"
	lease := func(h Holder, ago time.Duration) *coordinationv1.Lease {
		l := &coordinationv1.Lease{}
		fillLease(l, h, 1, duration)
		at := metav1.NewMicroTime(time.Now().Add(-ago))
		l.Spec.RenewTime = &at
		return l
	}
	nobody := lease(elsewhere, 0)
	none := ""
	nobody.Spec.HolderIdentity = &none
	waits := lease(elsewhere, time.Hour)
	stopped := lease(self(), time.Minute)
	const free, wait, held = "free", "wait", "held"
	for _, tt := range []struct {
		name   string
		leases []*coordinationv1.Lease // as they are seen, one after the other
		late   bool                    // the last is seen when the lease has run out
		want   string                  // in the end
	}{
		{"nobody", []*coordinationv1.Lease{nobody}, false, free},
		{"one without a holder at all", []*coordinationv1.Lease{{}}, false, free},
		{"dead", []*coordinationv1.Lease{lease(dead, 0)}, false, free},
		{"alive", []*coordinationv1.Lease{lease(self(), time.Second)}, false, held},
		{"of this machine and frozen", []*coordinationv1.Lease{stopped}, false, wait},
		{"frozen, and still so", []*coordinationv1.Lease{stopped, stopped}, true, free},
		{"frozen, and woken", []*coordinationv1.Lease{stopped, lease(self(), 0)}, true, held},
		{"elsewhere", []*coordinationv1.Lease{lease(elsewhere, 0)}, false, wait},
		{"elsewhere, clock an hour behind", []*coordinationv1.Lease{waits}, false, wait},
		{"elsewhere, clock an hour ahead", []*coordinationv1.Lease{lease(elsewhere, -time.Hour)}, false, wait},
		{"elsewhere, unchanged so far", []*coordinationv1.Lease{waits, waits}, false, wait},
		{"elsewhere, unchanged", []*coordinationv1.Lease{waits, waits}, true, free},
		{"elsewhere, renewed", []*coordinationv1.Lease{waits, lease(elsewhere, time.Hour-time.Second)}, false, held},
		{"elsewhere, taken by a third", []*coordinationv1.Lease{waits, lease(Holder{Host: "third", Token: "3"}, time.Hour)}, false, held},
		{"elsewhere, let go", []*coordinationv1.Lease{waits, nobody}, false, free},
	} {
		notices := 0
		w := leaseWatch{run: "r", notice: func(string, ...any) { notices++ }}
		got := ""
		for i, l := range tt.leases {
			if tt.late && i == len(tt.leases)-1 {
				w.since = w.since.Add(-duration)
			}
			is, err := w.free(l)
			switch {
			case errors.As(err, new(*HeldError)):
				got = held
			case err != nil:
				t.Fatal(err)
			case is:
				got = free
			default:
				got = wait
			}
		}
		if got != tt.want {
			t.Errorf("%s: %s; want %s", tt.name, got, tt.want)
		}
		if notices > 1 || tt.want == wait && notices == 0 {
			t.Errorf("%s: %d notices", tt.name, notices)
		}
	}
}

// TestOfAnother tells what an earlier run has left from what somebody has cut
// loose.
func TestOfAnother(t *testing.T) {
	for _, tt := range []struct {
		owners []string
		want   bool
	}{{nil, false}, {[]string{"mine"}, false}, {[]string{"another"}, true}, {[]string{"another", "mine"}, false}} {
		l := &coordinationv1.Lease{}
		for _, uid := range tt.owners {
			l.OwnerReferences = append(l.OwnerReferences, metav1.OwnerReference{UID: types.UID(uid)})
		}
		if got := ofAnother(l, "mine"); got != tt.want {
			t.Errorf("owned by %v: %v; want %v", tt.owners, got, tt.want)
		}
	}
}
