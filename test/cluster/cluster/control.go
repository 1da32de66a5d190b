package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kfs-project/kfs/test/cluster/fakekubelet"
	"github.com/kfs-project/kfs/test/cluster/faultproxy"
	"github.com/kfs-project/kfs/test/cluster/image"
	"github.com/kfs-project/kfs/test/cluster/parts"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// This file talks to the supervisor by its control socket, and to containerd.

// Status asks how the cluster is.
func (c *Cluster) Status(ctx context.Context) (supervisor.Status, error) {
	var s supervisor.Status
	return s, c.ask(ctx, http.MethodGet, "/status", nil, &s)
}

// Freeze stops a part as SIGSTOP does: it holds its connections and answers
// nothing, until Thaw.
func (c *Cluster) Freeze(ctx context.Context, part string) error { return c.Act(ctx, part, "freeze") }

// Thaw lets a frozen part go on.
func (c *Cluster) Thaw(ctx context.Context, part string) error { return c.Act(ctx, part, "thaw") }

// Stop ends a part in an orderly way.
func (c *Cluster) Stop(ctx context.Context, part string) error { return c.Act(ctx, part, "stop") }

// Kill ends a part as a crash does.
func (c *Cluster) Kill(ctx context.Context, part string) error { return c.Act(ctx, part, "kill") }

// Start starts a part that was stopped or killed. It does not wait until the
// part is ready.
func (c *Cluster) Start(ctx context.Context, part string) error { return c.Act(ctx, part, "start") }

// Restart kills a part and starts it again.
func (c *Cluster) Restart(ctx context.Context, part string) error { return c.Act(ctx, part, "restart") }

// Act does to a part what a verb says: freeze, thaw, stop, kill, start, restart.
func (c *Cluster) Act(ctx context.Context, part, verb string) error {
	return c.ask(ctx, http.MethodPost, "/parts/"+url.PathEscape(part)+"/"+verb, nil, nil)
}

// StartAll starts every part that is not running, thaws the frozen ones, and
// returns when pods can be created.
func (c *Cluster) StartAll(ctx context.Context) error {
	return c.ask(ctx, http.MethodPost, "/start", nil, nil)
}

// AddFakeNodes makes n nodes without machines, PREFIX-0 to PREFIX-(n-1), those
// of them that are not there yet.
func (c *Cluster) AddFakeNodes(ctx context.Context, t fakekubelet.NodeTemplate, n int) error {
	return c.ask(ctx, http.MethodPost, "/nodes", supervisor.NodesRequest{Template: t, Count: n}, nil)
}

// complete makes a cluster that is up what config asks for.
func (c *Cluster) complete(ctx context.Context, config Config, programs parts.Programs) error {
	differs := ""
	switch {
	case config.Bound:
		differs = "a cluster that ends with its starter cannot be"
	case !maps.Equal(programs, c.Spec.Programs):
		differs = "with programs of other versions"
	case len(config.Args) > 0 && !maps.EqualFunc(config.Args, c.Spec.Args, slices.Equal):
		differs = "with other arguments of parts"
	case config.FakeEvents && !c.Spec.FakeEvents:
		differs = "without the events of fake nodes"
	}
	if differs != "" {
		return fmt.Errorf("cluster %s: %w, %s: take it down first", c.Spec.Name, ErrUp, differs)
	}
	if err := c.StartAll(ctx); err != nil {
		return err
	}
	if config.FakeNodes > 0 {
		return c.AddFakeNodes(ctx, config.Fake, config.FakeNodes)
	}
	return nil
}

// Starts returns the starts of containers that the fake kubelet counted, in
// their order.
func (c *Cluster) Starts(ctx context.Context) ([]fakekubelet.Start, error) {
	var starts []fakekubelet.Start
	return starts, c.ask(ctx, http.MethodGet, "/fake/starts", nil, &starts)
}

// Faults is the fault proxy, whose kubeconfig is FaultsKubeconfig.
func (c *Cluster) Faults() *faultproxy.Client {
	return &faultproxy.Client{HTTP: c.http(), URL: "http://cluster/faults"}
}

func (c *Cluster) http() *http.Client {
	return &http.Client{Transport: supervisor.UnixTransport(supervisor.ControlSocket(c.dir))}
}

// ask sends a request with in as its body, and decodes the answer into out.
func (c *Cluster) ask(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://cluster"+path, body)
	if err != nil {
		return err
	}
	client := c.http()
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", c.Spec.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return fmt.Errorf("cluster %s: %s %s: %s", c.Spec.Name, method, path, bytes.TrimSpace(said))
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// LoadArchive gives the node the images of an archive, such as image.Write
// writes. Pods that name them need no registry.
func (c *Cluster) LoadArchive(ctx context.Context, file string) error {
	ctr := exec.CommandContext(ctx, c.Spec.Programs["ctr"], "--address", filepath.Join(c.dir, "containerd.sock"),
		"--namespace", "k8s.io", "images", "import", file)
	if out, err := ctr.CombinedOutput(); err != nil {
		return fmt.Errorf("load %s into cluster %s: %w: %s", file, c.Spec.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Load gives the node an image under the name ref.
func (c *Cluster) Load(ctx context.Context, ref string, img v1.Image) error {
	f, err := os.CreateTemp("", "kfs-image-*.tar")
	if err != nil {
		return err
	}
	f.Close()
	defer os.Remove(f.Name())
	if err := image.Write(f.Name(), ref, img); err != nil {
		return err
	}
	return c.LoadArchive(ctx, f.Name())
}
