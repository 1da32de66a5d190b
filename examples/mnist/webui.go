package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"
)

// This file is the subcommand web-ui, and the page server that it starts or
// deploys.

// modelServer is the name of the model server in the pipeline.
const modelServer = "mnist-service"

// maxDrawing is the most bytes of a request from the page: one image.
const maxDrawing = 64 << 10

//go:embed web
var web embed.FS

// runWebUI starts a server of the page, or deploys it in a cluster.
func runWebUI(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("web-ui")
	name := flags.String("name", "web-ui", "`name` of the page server")
	kind := flags.String("service-type", "ClusterIP", "ClusterIP, NodePort or LoadBalancer; means something only in a cluster")
	containerPort := flags.Int("container-port", 5000, "`port` that the page server listens on in a cluster")
	servicePort := flags.Int("service-port", 80, "`port` of its service in a cluster")
	flags.String("image", "", "means nothing: the page is in this program")
	flags.String("cluster-name", "", "means nothing")
	if err := parse(flags, args, stdout); err != nil {
		return err
	}
	if err := checkName("--name", *name); err != nil {
		return err
	}
	if *name == modelServer {
		return usagef("--name is %q: wanted another name than the model server's", *name)
	}
	for flag, port := range map[string]int{"container-port": *containerPort, "service-port": *servicePort} {
		if port < 1 || port > 65535 {
			return usagef("--%s is %d: wanted a port from 1 to 65535", flag, port)
		}
	}
	if err := checkServiceType(*kind); err != nil {
		return err
	}
	if inCluster() {
		c, err := openCluster()
		if err != nil {
			return err
		}
		err = c.deploy(ctx, deployment{
			name:     *name,
			args:     []string{"page", "--listen", fmt.Sprint(":", *containerPort), "--model", fmt.Sprintf("http://%s:%d", modelServer, modelPort)},
			replicas: 1, port: *containerPort, servicePort: *servicePort, serviceType: *kind,
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s: draw a digit at http://localhost:5000/ after: kubectl -n %s port-forward service/%[1]s 5000:%[3]d\n", *name, c.namespace, *servicePort)
		return nil
	}
	port, err := checkPort("MNIST_WEB_PORT")
	if err != nil {
		return err
	}
	home, err := homeDir()
	if err != nil {
		return err
	}
	s, err := deploy(ctx, stdout, home, *name, port, "draw a digit there", "page", "--home", home)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: draw a digit at %s/ (pid %d)\n", *name, s.URL, s.PID)
	return nil
}

// runPage is the page server itself.
func runPage(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("page")
	home := flags.String("home", "", "`folder` of the registry")
	model := flags.String("model", "", "`URL` of the model server, instead of what the registry says")
	addr := flags.String("listen", "", "`address` to listen on, such as :5000")
	id := flags.String("id", "", "what /healthz answers")
	if err := parse(flags, args, stdout); err != nil {
		return err
	}
	return listen(ctx, *addr, *id, pageMux(*home, *model))
}

// pageMux serves the page, and passes its drawings on to the model server at
// the URL model or, if that is "", to the one that the registry under home
// names.
func pageMux(home, model string) *http.ServeMux {
	files, err := fs.Sub(web, "web")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	pages := http.FileServerFS(files)
	mux := http.NewServeMux()
	for _, path := range []string{"/{$}", "/page.css", "/page.js", "/digit.js"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; "+
				"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cache-Control", "no-cache")
			pages.ServeHTTP(w, r)
		})
	}
	mux.HandleFunc("POST /api/predict", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDrawing))
		if err != nil {
			writeError(w, bodyStatus(err), fmt.Errorf("read the drawing: %w", err))
			return
		}
		status, answer, err := askModel(r.Context(), home, model, body)
		if err != nil {
			writeError(w, http.StatusBadGateway, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		w.Write(answer)
	})
	mux.HandleFunc("/api/predict", only("POST"))
	mux.HandleFunc("/", notFound("/"))
	return mux
}

// askModel passes a predict request on and returns the answer.
func askModel(ctx context.Context, home, model string, body []byte) (status int, answer []byte, err error) {
	if model == "" {
		list, err := readServices(home)
		if err != nil {
			return 0, nil, err
		}
		s, ok := list[modelServer]
		if !ok {
			return 0, nil, fmt.Errorf("no model server %q is registered: run the step serve, or `mnist serve`", modelServer)
		}
		model = s.URL
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", model+predictPath, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := direct.Do(req)
	if err == nil {
		defer resp.Body.Close()
		answer, err = io.ReadAll(io.LimitReader(resp.Body, maxDrawing))
	}
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("no answer within 5 s")
		}
		return 0, nil, fmt.Errorf("model server %q does not answer: run the step serve again, or `mnist serve`: %w", modelServer, err)
	}
	return resp.StatusCode, answer, nil
}
