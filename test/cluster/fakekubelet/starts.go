package fakekubelet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// This file counts starts.

// A Start is one start of the containers of a pod.
type Start struct {
	Key       string    `json:"key"` // what it counts under; see [KeyAnnotation]
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	UID       string    `json:"uid"` // of the pod
	Node      string    `json:"node"`
	Time      time.Time `json:"time"`
}

// line is a Start as a line of the file has it.
type line struct {
	Start
	Entry int `json:"entry"` // the entry of the behavior that it took, from 0
}

// ledger keeps the starts, in memory and in a file.
type ledger struct {
	mu     sync.Mutex
	starts []Start
	counts map[string]int // starts by key
	taken  map[string]int // entries taken by key
	pods   map[types.UID]past
	file   *os.File // nil for none
	size   int64    // of the file up to its last whole line
}

// past is what the ledger knows of a pod.
type past struct {
	entry  int       // the one taken last
	runs   int       // starts with that entry
	starts int       // all starts
	last   time.Time // the last start
}

// openLedger reads the starts from the file and appends to it from there on.
// A last line that is not whole is cut off. Without a name it keeps no file.
func openLedger(name string) (*ledger, error) {
	l := &ledger{counts: map[string]int{}, taken: map[string]int{}, pods: map[types.UID]past{}}
	if name == "" {
		return l, nil
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	l.file = f
	if err := l.load(); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

func (l *ledger) load() error {
	data, err := io.ReadAll(l.file)
	if err != nil {
		return err
	}
	for i := 1; ; i++ {
		text, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			break
		}
		var n line
		if err := json.Unmarshal(text, &n); err != nil {
			return fmt.Errorf("%s:%d: %w", l.file.Name(), i, err)
		}
		l.count(n)
		l.taken[n.Key] = max(l.taken[n.Key], n.Entry+1)
		l.size += int64(len(text)) + 1
		data = rest
	}
	return l.file.Truncate(l.size)
}

func (l *ledger) count(n line) {
	l.starts = append(l.starts, n.Start)
	l.counts[n.Key]++
	p := l.pods[types.UID(n.UID)]
	if p.entry != n.Entry {
		p.entry, p.runs = n.Entry, 0
	}
	p.runs++
	p.starts++
	p.last = n.Time
	l.pods[types.UID(n.UID)] = p
}

// take returns the next entry of the key. A pod that takes one need not start:
// the entries that have been taken may be more than the starts.
func (l *ledger) take(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken[key]++
	return l.taken[key] - 1
}

// start records a start. If it cannot be written, it has not happened.
func (l *ledger) start(s Start, entry int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := line{s, entry}
	if l.file != nil {
		text, err := json.Marshal(n)
		if err != nil {
			return err
		}
		if _, err := l.file.WriteAt(append(text, '\n'), l.size); err != nil {
			return err
		}
		l.size += int64(len(text)) + 1
	}
	l.count(n)
	return nil
}

// of returns what is known of a pod, and false if it never started.
func (l *ledger) of(uid types.UID) (past, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.pods[uid]
	return p, ok
}

func (l *ledger) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// startKey returns what the starts of the pod count under.
func startKey(pod *corev1.Pod) string {
	if key := pod.Annotations[KeyAnnotation]; key != "" {
		return key
	}
	return pod.Namespace + "/" + pod.Name
}

// Starts returns all starts, in their order.
func (k *Kubelet) Starts() []Start {
	k.ledger.mu.Lock()
	defer k.ledger.mu.Unlock()
	return slices.Clone(k.ledger.starts)
}

// Handler returns a handler of two paths, for GET:
//
//	/starts  the starts as a JSON list, in their order;
//	         ?key= and ?namespace= leave out all others
//	/counts  the number of starts as a JSON object, by key
func (k *Kubelet) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /starts", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		starts := slices.DeleteFunc(k.Starts(), func(s Start) bool {
			return q.Has("key") && s.Key != q.Get("key") ||
				q.Has("namespace") && s.Namespace != q.Get("namespace")
		})
		if starts == nil {
			starts = []Start{} // null is not a list
		}
		k.reply(w, starts)
	})
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, r *http.Request) {
		k.ledger.mu.Lock()
		counts := maps.Clone(k.ledger.counts)
		k.ledger.mu.Unlock()
		k.reply(w, counts)
	})
	return mux
}

func (k *Kubelet) reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		k.log.Warn("reply", "err", err)
	}
}
