package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kfs-project/kfs/test/cluster/fakekubelet"
)

// This file is the process of the fake kubelet.

// fakeSocket is where the fake kubelet tells of its starts.
func fakeSocket(spec *Spec) string { return spec.path("fake.sock") }

// UnixTransport makes HTTP requests by the Unix socket at path, whatever host
// they name.
func UnixTransport(path string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
}

// runFakeKubelet is the fake kubelet until ctx ends.
func runFakeKubelet(ctx context.Context, spec *Spec) error {
	config, err := clientcmd.BuildConfigFromFlags("", spec.path(FakeKubelet+".kubeconfig"))
	if err != nil {
		return err
	}
	config.QPS = -1 // as fast as the API server takes it
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	k, err := fakekubelet.New(fakekubelet.Config{
		Client:     client,
		Events:     spec.FakeEvents,
		StartsFile: spec.path("starts.jsonl"),
		Log:        slog.Default(),
	})
	if err != nil {
		return err
	}
	if err := os.Remove(fakeSocket(spec)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ln, err := net.Listen("unix", fakeSocket(spec))
	if err != nil {
		return err
	}
	defer ln.Close()
	go http.Serve(ln, k.Handler())
	return k.Run(ctx)
}
