package vendoring

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestClient(t *testing.T) {
	var tries atomic.Int64
	mux := http.NewServeMux()
	fail := func(status, times int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if tries.Add(1) <= int64(times) {
				http.Error(w, "busy", status)
				return
			}
			io.WriteString(w, "text")
		}
	}
	mux.HandleFunc("/good", fail(0, 0))
	mux.HandleFunc("/500", fail(500, 1))
	mux.HandleFunc("/503", fail(503, 9))
	mux.HandleFunc("/501", fail(501, 1))
	mux.HandleFunc("/403", fail(403, 1))
	mux.HandleFunc("/429", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", r.URL.Query().Get("after"))
		fail(429, 1)(w, r)
	})
	mux.HandleFunc("/empty", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "\n<!doctype html>") })
	mux.HandleFunc("/merge", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<<: {}") })
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 101)) })
	mux.HandleFunc("/full", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 100)) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "te")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	broken := func(times int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if tries.Add(1) <= int64(times) {
				w.Header().Set("Content-Length", "4")
				io.WriteString(w, "te")
				panic(http.ErrAbortHandler)
			}
			io.WriteString(w, "text")
		}
	}
	mux.HandleFunc("/truncated", broken(9))
	mux.HandleFunc("/truncatedonce", broken(1))
	mux.HandleFunc("/reset", func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "text")
	})
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		var left int
		fmt.Sscan(r.URL.Query().Get("left"), &left)
		if left--; left >= 0 {
			http.Redirect(w, r, fmt.Sprintf("/redirect?left=%d", left), http.StatusFound)
			return
		}
		io.WriteString(w, "text")
	})
	mux.HandleFunc("/to", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("url"))
		w.WriteHeader(http.StatusMovedPermanently)
	})
	plain, secure := httptest.NewServer(mux), httptest.NewUnstartedServer(mux)
	defer plain.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // the client that does not trust it
	secure.StartTLS()
	defer secure.Close()
	dead := httptest.NewServer(mux)
	dead.Close()

	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o666); err != nil {
		t.Fatal(err)
	}
	client := func(ca string) *Client {
		c, err := NewClient(ClientConfig{CAFile: ca, Timeout: 500 * time.Millisecond, MaxBytes: 100, Pause: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	to := func(address string) string { return "/to?url=" + url.QueryEscape(address) }
	for _, tt := range []struct {
		url   string
		want  string // the text, or what the error holds
		tries int64
	}{
		{plain.URL + "/good", "text", 1},
		{secure.URL + "/good", "text", 1},
		{plain.URL + "/none", "error: 404 Not Found", 0},
		{plain.URL + "/-/blob/c.yaml", "error: 404 Not Found", 0},
		{plain.URL + "/403", "error: 403 Forbidden", 1},
		{plain.URL + "/500", "text", 2},
		{plain.URL + "/501", "error: 501 Not Implemented", 1},
		{plain.URL + "/503", "error: 503 Service Unavailable, 3 times", 3},
		{plain.URL + "/429", "text", 2},
		{plain.URL + "/429?after=3600", "error: 429 Too Many Requests: it asks to come back in 1h0m0s", 1},
		{plain.URL + "/empty", "error: 204 No Content", 0},
		{plain.URL + "/page", "error: it gives a web page", 0},
		{plain.URL + "/merge", "<<: {}", 0},
		{plain.URL + "/large", "error: it is larger than 100 bytes", 0},
		{plain.URL + "/full", strings.Repeat("x", 100), 0},
		{plain.URL + "/slow", "error: no answer, or no end of it, in 500ms", 0},
		{plain.URL + "/truncated", "error: the connection ends before the answer does, 3 times", 3},
		{plain.URL + "/truncatedonce", "text", 2},
		{plain.URL + "/reset", "text", 2},
		{dead.URL, "error: connection refused", 0},
		{plain.URL + "/redirect?left=10", "text", 0},
		{plain.URL + "/redirect?left=11", "error: more than 10 redirects", 0},
		{plain.URL + to(secure.URL+"/good"), "text", 1},
		{secure.URL + to(plain.URL+"/good"), "error: leads from https to http", 0},
		{plain.URL + to("file:///etc/passwd"), "error: leads to file://, which is refused", 0},
		{plain.URL + to("http://h:no port/?token=tok1234"), "error: it leads to what is no URL", 0},
		{plain.URL + to(dead.URL+"/?token=tok1234"), "error: connection refused", 0},
		{strings.Replace(plain.URL, "http:", "https:", 1) + "/good", "error: HTTP response to HTTPS client", 0},
	} {
		tries.Store(0)
		text, err := client(ca).Get(context.Background(), tt.url)
		got, want := string(text), tt.want
		if rest, fails := strings.CutPrefix(tt.want, "error: "); fails {
			if err != nil && strings.Contains(err.Error(), rest) && !strings.Contains(err.Error(), "tok1234") {
				got = want
			}
		} else if err != nil {
			got = err.Error()
		}
		if got != want || tries.Load() != tt.tries {
			t.Errorf("Get(%s) = %q, %v after %d tries; want %q after %d", tt.url, text, err, tries.Load(), want, tt.tries)
		}
	}

	_, err := client("").Get(context.Background(), secure.URL+"/good")
	if err == nil || !strings.Contains(hintOf(err), "--ca-file") {
		t.Errorf("Get of a server that is not trusted: %v; want a hint at --ca-file", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := client("").Get(ctx, plain.URL+"/slow"); err != context.DeadlineExceeded {
		t.Errorf("Get that the caller ends: %v; want the context's error", err)
	}
}

func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration
	}{
		{"", 0}, {"5", 5 * time.Second}, {"-5", 0}, {"soon", 0}, {"99999999999999", 1 << 30 * time.Second},
		{"Mon, 02 Jan 2006 15:04:05 GMT", 0},
		{time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), time.Minute},
	} {
		if got := retryAfter(tt.text); (got - tt.want).Abs() > 2*time.Second {
			t.Errorf("retryAfter(%q) = %v; want %v", tt.text, got, tt.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct{ url, fault, shown, raw string }{
		{"https://h/c.yaml?x=1#y", "", "https://h/c.yaml?x=1#y", ""},
		{"http://h:80/c.yaml", "", "http://h:80/c.yaml", ""},
		{"https:///c.yaml", "names no host", "https:///c.yaml", ""},
		{"https:c.yaml", "names no host", "https:c.yaml", ""},
		{"c.yaml", "want https://", "c.yaml", ""},
		{"/etc/c.yaml", "want https://", "/etc/c.yaml", ""},
		{"ftp://h/c.yaml", "want https://", "ftp://h/c.yaml", ""},
		{"https://h/\x01", "no URL", "a URL that cannot be read", ""},
		{"https://me:pw@h/c.yaml", "password", "https://...@h/c.yaml", ""},
		{"https://me@h/c.yaml", "password", "https://...@h/c.yaml", ""},
		{"https://h/c.yaml?a=b&X-Amz-Signature=pw", "X-Amz-Signature", "https://h/c.yaml?a=b&X-Amz-Signature=...", ""},
		{"https://h/c.yaml?sig=pw", "sig", "https://h/c.yaml?sig=...", ""},
		{"https://h/c.yaml?tokens&x", "", "https://h/c.yaml?tokens&x", ""},
		{"https://h/c.yaml?ref=x&access_token=pw&y=", "a secret, access_token,", "https://h/c.yaml?ref=x&access_token=...&y=", ""},
		{"https://h/c.yaml?a=1;token=pw", "a secret, token,", "https://h/c.yaml?a=1;token=...", ""},
		{"https://h/c.yaml?Pwd=pw%zz", "a secret, Pwd,", "https://h/c.yaml?Pwd=...", ""},
		{"https://h/c.yaml?%74oken=pw", "a secret, token,", "https://h/c.yaml?%74oken=...", ""},
		{"https://h/c.yaml?%zz=1&sig=pw", "a secret, sig,", "https://h/c.yaml?%zz=1&sig=...", ""},
		{"https://h/c.yaml#access_token=pw", "a secret, access_token,", "https://h/c.yaml#access_token=...", ""},
		{"https://h/c.yaml?\u009b31m\u202e=\u00e9", "", "https://h/c.yaml?\uFFFD31m\uFFFD=\u00e9", ""},
		{"https://github.com/o/r/blob/v1/a/c.yaml", "", "https://github.com/o/r/blob/v1/a/c.yaml", "https://raw.githubusercontent.com/o/r/v1/a/c.yaml"},
		{"https://github.com/o/r", "", "https://github.com/o/r", ""},
		{"https://gist.github.com/o/123", "", "https://gist.github.com/o/123", "https://gist.github.com/o/123/raw"},
		{"https://bitbucket.org/o/r/src/v1/c.yaml?at=x", "", "https://bitbucket.org/o/r/src/v1/c.yaml?at=x", "https://bitbucket.org/o/r/raw/v1/c.yaml"},
		{"https://git.example.com/g/p/-/blob/v1/c.yaml", "", "https://git.example.com/g/p/-/blob/v1/c.yaml", "https://git.example.com/g/p/-/raw/v1/c.yaml"},
	} {
		err := checkURL(tt.url)
		if (err == nil) != (tt.fault == "") || err != nil && (!strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), "pw")) {
			t.Errorf("checkURL(%q) = %v; want %q", tt.url, err, tt.fault)
		}
		if got := shown(tt.url); got != tt.shown {
			t.Errorf("shown(%q) = %q; want %q", tt.url, got, tt.shown)
		}
		if u, err := url.Parse(tt.url); err == nil {
			if got := rawURL(u); got != tt.raw {
				t.Errorf("rawURL(%q) = %q; want %q", tt.url, got, tt.raw)
			}
		}
	}
}
