package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"
)

// This file is what the two servers share.

// listen serves mux at addr until ctx ends. An empty addr stands for the socket
// that deploy left as file 3, for this machine only.
func listen(ctx context.Context, addr, id string, mux *http.ServeMux) error {
	h := http.NewCrossOriginProtection().Handler(mux)
	var l net.Listener
	var err error
	if addr == "" {
		h = loopbackOnly(h)
		if l, err = net.FileListener(os.NewFile(3, "listener")); err != nil {
			return fmt.Errorf("found no socket to listen on: wanted --listen, or `mnist serve` or `mnist web-ui`, which start this command: %w", err)
		}
	} else if l, err = net.Listen("tcp", addr); err != nil {
		return err
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, id)
	})
	srv := &http.Server{
		Handler:           noSniff(h),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	log.Printf("listens on http://%s", l.Addr())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	log.Print("ends")
	last, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		return srv.Close()
	}
	return nil
}

// loopbackOnly refuses requests that name another host than this machine: a
// page elsewhere could else reach the server through a name that it makes
// resolve to 127.0.0.1.
func loopbackOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		ip, err := netip.ParseAddr(host)
		if host != "localhost" && (err != nil || !ip.IsLoopback()) {
			writeError(w, http.StatusForbidden, fmt.Errorf("host %q: wanted localhost or a loopback address", r.Host))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// noSniff tells browsers to believe the types of what h answers.
func noSniff(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		h.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"error": "the answer is no JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(data, '\n'))
}

// writeError answers {"error": ...}, as TensorFlow Serving does.
func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

// bodyStatus returns the status for an error from reading a request's body.
func bodyStatus(err error) int {
	if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

// only answers requests of any other method than the one that is served.
func only(method string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", method)
		writeError(w, http.StatusMethodNotAllowed, fmt.Errorf("method %s: wanted %s", r.Method, method))
	}
}

// notFound answers requests for any other path than those in wanted.
func notFound(wanted string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Errorf("path %q: wanted %s", r.URL.Path, wanted))
	}
}
