package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
)

// This file is the subcommand serve, and the model server that it starts or
// deploys.

const (
	modelPath    = "/v1/models/mnist"
	predictPath  = modelPath + ":predict"
	maxBody      = 16 << 20 // bytes of a request
	maxInstances = 1000     // images in a request
)

// runServe starts a server of an exported model, or deploys it in a cluster.
func runServe(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("serve")
	export := flags.String("model-export-path", "", "`folder` that the model was exported to")
	name := flags.String("server-name", "mnist-service", "`name` of the server")
	replicas := flags.Int("replicas", 1, "pods of the server; means something only in a cluster")
	kind := flags.String("service-type", "ClusterIP", "ClusterIP, NodePort or LoadBalancer; means something only in a cluster")
	flags.String("cluster-name", "", "means nothing")
	flags.String("pvc-name", "", "means nothing: in a cluster the server gets the volume claims of the step")
	if err := parse(flags, args, stdout); err != nil {
		return err
	}
	if *export == "" {
		return usagef("--model-export-path is missing: wanted the folder that the model was exported to")
	}
	if err := checkName("--server-name", *name); err != nil {
		return err
	}
	if err := checkServiceType(*kind); err != nil {
		return err
	}
	if *replicas < 1 {
		return usagef("--replicas is %d: wanted 1 or more", *replicas)
	}
	port, err := checkPort("MNIST_SERVE_PORT")
	if err != nil {
		return err
	}
	home, err := homeDir()
	if err != nil {
		return err
	}
	dir, err := exportDir(stdout, home, *export)
	if err != nil {
		return err
	}
	// A model that cannot be served must not take the place of one that is.
	net, err := loadModel(dir)
	if err != nil {
		return err
	}
	if inCluster() {
		c, err := openCluster()
		if err != nil {
			return err
		}
		err = c.deploy(ctx, deployment{
			name: *name,
			// The ID is the model's, so that another model replaces the pods.
			args:     []string{"server", "--dir", dir, "--listen", fmt.Sprint(":", modelPort), "--id", fmt.Sprintf("%x", sha256.Sum256(encodeModel(net)))},
			replicas: *replicas, port: modelPort, servicePort: modelPort, serviceType: *kind, claims: true,
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s serves %s; to reach it: kubectl -n %s port-forward service/%[1]s %[4]d\n", *name, modelFile(dir), c.namespace, modelPort)
		return nil
	}
	s, err := deploy(ctx, stdout, home, *name, port, quality(dir), "server", "--dir", dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s serves %s at %s%s (pid %d)\n", *name, modelFile(dir), s.URL, modelPath, s.PID)
	return nil
}

// quality says how good the model of an export directory is; "" if metrics.json
// does not tell.
func quality(dir string) string {
	var m metrics
	data, err := os.ReadFile(filepath.Join(dir, "metrics.json"))
	if err != nil || json.Unmarshal(data, &m) != nil {
		return ""
	}
	return fmt.Sprintf("%.2f %% of %d held-out images right", 100*m.Accuracy, m.TestImages)
}

// runServer is the model server itself.
func runServer(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("server")
	dir := flags.String("dir", "", "`folder` that the model was exported to")
	addr := flags.String("listen", "", "`address` to listen on, such as :8500")
	id := flags.String("id", "", "what /healthz answers")
	if err := parse(flags, args, stdout); err != nil {
		return err
	}
	net, err := loadModel(*dir)
	if err != nil {
		return err
	}
	return listen(ctx, *addr, *id, modelMux(net))
}

// modelMux answers as TensorFlow Serving's REST API does:
// https://www.tensorflow.org/tfx/serving/api_rest.
func modelMux(net network) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+modelPath, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{
			"model_version_status": []any{map[string]any{
				"version": "1",
				"state":   "AVAILABLE",
				"status":  map[string]string{"error_code": "OK", "error_message": ""},
			}},
		})
	})
	mux.HandleFunc("POST "+predictPath, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			writeError(w, bodyStatus(err), fmt.Errorf("read the request: %w", err))
			return
		}
		images, err := readInstances(body)
		if err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
		predictions := make([][classes]float32, len(images))
		for i := range images {
			_, predictions[i] = net.forward(&images[i])
		}
		writeJSON(w, http.StatusOK, map[string]any{"predictions": predictions})
	})
	mux.HandleFunc(modelPath, only("GET"))
	mux.HandleFunc(predictPath, only("POST"))
	mux.HandleFunc("/", notFound("GET "+modelPath+" or POST "+predictPath))
	return mux
}

// readInstances reads the images of a predict request:
//
//	{"instances": [IMAGE, ...]}
//
// where an IMAGE is 784 numbers from 0 to 1, or 28 rows of 28, or an object
// with one of these as its "image".
func readInstances(body []byte) ([][pixels]float32, error) {
	var req struct {
		Instances []json.RawMessage `json:"instances"`
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, fmt.Errorf(`wanted {"instances": [...]}: %w`, err)
	}
	if n := len(req.Instances); n == 0 || n > maxInstances {
		return nil, fmt.Errorf(`"instances" holds %d images: wanted 1 to %d`, n, maxInstances)
	}
	images := make([][pixels]float32, len(req.Instances))
	for i, raw := range req.Instances {
		if err := readImage(&images[i], raw); err != nil {
			return nil, fmt.Errorf("instances[%d]: %w", i, err)
		}
	}
	return images, nil
}

func readImage(dst *[pixels]float32, raw json.RawMessage) error {
	if len(raw) > 0 && raw[0] == '{' {
		var o struct {
			Image json.RawMessage `json:"image"`
		}
		if err := json.Unmarshal(raw, &o); err != nil {
			return err
		}
		raw = o.Image
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || len(raw) == 0 {
		return fmt.Errorf("wanted 784 numbers, 28 rows of 28, or an object with one of these as its \"image\"")
	}
	var numbers []float32
	switch len(list) {
	case pixels:
		if err := json.Unmarshal(raw, &numbers); err != nil {
			return err
		}
	case side:
		var rows [][]float32
		if err := json.Unmarshal(raw, &rows); err != nil {
			return err
		}
		for i, row := range rows {
			if len(row) != side {
				return fmt.Errorf("row %d holds %d numbers: wanted %d", i, len(row), side)
			}
			numbers = append(numbers, row...)
		}
	default:
		return fmt.Errorf("found %d numbers or rows: wanted 784 numbers or 28 rows of 28", len(list))
	}
	for i, v := range numbers {
		if v < 0 || v > 1 {
			return fmt.Errorf("pixel %d is %g: wanted 0, the background, to 1, the ink", i, v)
		}
	}
	copy(dst[:], numbers)
	return nil
}
