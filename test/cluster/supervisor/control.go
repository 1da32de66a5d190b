package supervisor

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"

	"github.com/kfs-project/kfs/test/cluster/fakekubelet"
)

// This file serves the control socket: HTTP, by a socket that only the
// cluster's owner can open.
//
//	GET  /status                 Status
//	POST /parts/{part}/{verb}    start, stop, kill, restart, freeze, thaw
//	POST /start                  starts all that is not running, thaws the frozen,
//	                             answers when pods can be created
//	POST /nodes                  NodesRequest
//	     /faults/...             faultproxy's Control
//	GET  /fake/...               fakekubelet's Handler

// Status is how a cluster is.
type Status struct {
	Name    string
	Ready   bool // has been up as a whole
	Started time.Time
	Parts   []PartStatus
}

// States of a part.
const (
	Running = "running"
	Frozen  = "frozen"  // by SIGSTOP
	Stopped = "stopped" // on demand
	Ended   = "ended"   // by itself
)

// PartStatus is how one part is.
type PartStatus struct {
	Name    string
	State   string
	How     string    `json:",omitempty"` // it ended, such as "exit status 1"
	PID     int       // as the cluster counts
	Started time.Time // of the process
	Memory  int64     // resident, in bytes
}

// A NodesRequest asks for fake nodes, from Prefix-0 on.
type NodesRequest struct {
	Template fakekubelet.NodeTemplate
	Count    int
}

func (c *cluster) serveControl() error {
	socket := ControlSocket(c.spec.Dir)
	if err := os.RemoveAll(socket); err != nil {
		return err
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(c.status())
	})
	mux.HandleFunc("POST /parts/{part}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		p := c.part(r.PathValue("part"))
		if p == nil {
			http.Error(w, "no part is named "+r.PathValue("part"), http.StatusNotFound)
			return
		}
		c.acts.Lock()
		defer c.acts.Unlock()
		answer(w, c.act(p, r.PathValue("verb")))
	})
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, r *http.Request) {
		c.acts.Lock()
		defer c.acts.Unlock()
		answer(w, c.startAll(r.Context(), func(string) {}))
	})
	mux.HandleFunc("POST /nodes", func(w http.ResponseWriter, r *http.Request) {
		var req NodesRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.acts.Lock()
		defer c.acts.Unlock()
		answer(w, c.addFakeNodes(r.Context(), req.Template, req.Count))
	})
	mux.Handle("/faults/", http.StripPrefix("/faults", c.proxy.Control()))
	mux.Handle("/fake/", http.StripPrefix("/fake", c.fakeProxy()))
	go http.Serve(ln, mux)
	return nil
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// fakeProxy passes questions on to the fake kubelet, a process of its own.
func (c *cluster) fakeProxy() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "fake-kubelet"}) },
		Transport: UnixTransport(fakeSocket(c.spec)),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "no answer from the fake kubelet (is there a fake node?): "+err.Error(), http.StatusServiceUnavailable)
		},
	}
}

func (c *cluster) status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Name: c.spec.Name, Ready: c.ready, Started: c.started}
	for _, p := range c.parts {
		if p.proc == nil {
			continue
		}
		ps := PartStatus{Name: p.name, State: Running, Started: p.proc.started}
		switch {
		case p.proc.hasEnded():
			ps.State, ps.How = Ended, p.proc.how()
			if p.stopped {
				ps.State = Stopped
			}
		default:
			ps.PID, ps.Memory = p.proc.pid, p.proc.memory()
			if p.proc.frozen() {
				ps.State = Frozen
			}
		}
		s.Parts = append(s.Parts, ps)
	}
	return s
}
