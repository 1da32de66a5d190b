package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// ask sends one request to h and returns the status and the body.
func ask(h http.Handler, method, path, body string) (int, string) {
	req := httptest.NewRequest(method, "http://127.0.0.1"+path, strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

// row is n times v as a JSON list.
func row(n int, v string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(v+",", n), ",") + "]"
}

func TestModelServer(t *testing.T) {
	mux := modelMux(newNetwork(rand.New(rand.NewPCG(1, 0))))
	flat, square := row(784, "0.5"), row(28, row(28, "0.5"))

	status, body := ask(mux, "POST", predictPath, fmt.Sprintf(
		`{"signature_name": "serving_default", "instances": [%s, %s, {"image": %[1]s}, {"image": %[2]s}]}`, flat, square))
	var answer struct{ Predictions [][]float64 }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
		t.Fatalf("predict answers %d %s", status, body)
	}
	if len(answer.Predictions) != 4 {
		t.Fatalf("4 instances give %d predictions", len(answer.Predictions))
	}
	for i, p := range answer.Predictions {
		sum := 0.0
		for k := range p {
			sum += p[k]
			if p[k] != answer.Predictions[0][k] {
				t.Errorf("instance %d, the same image in another shape, has another prediction", i)
			}
		}
		if len(p) != 10 || math.Abs(sum-1) > 1e-5 {
			t.Errorf("prediction %d is %v; want 10 probabilities", i, p)
		}
	}

	const want = `{"model_version_status":[{"state":"AVAILABLE","status":{"error_code":"OK","error_message":""},"version":"1"}]}`
	if status, body := ask(mux, "GET", modelPath, ""); status != http.StatusOK || strings.TrimSpace(body) != want {
		t.Errorf("GET %s answers %d %s; want %s", modelPath, status, body, want)
	}
}

func TestModelServerFaults(t *testing.T) {
	mux := modelMux(make(network, params))
	flat := row(784, "0")
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string // in the error
	}{
		{"POST", predictPath, "", 400, `wanted {\"instances\": [...]}`},
		{"POST", predictPath, "[]", 400, "wanted {"},
		{"POST", predictPath, `{"instances": [` + flat + `]} x`, 400, "invalid character"},
		{"POST", predictPath, "{}", 400, "holds 0 images: wanted 1 to 1000"},
		{"POST", predictPath, `{"instances": ` + row(1001, "0") + `}`, 400, "holds 1001 images"},
		{"POST", predictPath, `{"instances": [null]}`, 400, "instances[0]: found 0 numbers or rows"},
		{"POST", predictPath, `{"instances": ["7"]}`, 400, "instances[0]: wanted 784 numbers"},
		{"POST", predictPath, `{"instances": [{}]}`, 400, "instances[0]: wanted 784 numbers"},
		{"POST", predictPath, `{"instances": [` + flat + `,` + row(783, "0") + `]}`, 400, "instances[1]: found 783 numbers or rows"},
		{"POST", predictPath, `{"instances": [` + row(28, row(27, "0")) + `]}`, 400, "row 0 holds 27 numbers: wanted 28"},
		{"POST", predictPath, `{"instances": [` + row(784, "[0]") + `]}`, 400, "instances[0]: json"},
		{"POST", predictPath, `{"instances": [` + row(784, "255") + `]}`, 400, "pixel 0 is 255"},
		{"POST", predictPath, `{"instances": [` + row(784, "-1") + `]}`, 400, "pixel 0 is -1"},
		{"POST", predictPath, `{"instances": [` + row(784, "1e99") + `]}`, 400, "1e99"},
		{"POST", predictPath, strings.Repeat(" ", maxBody+1), 413, "too large"},
		{"GET", predictPath, "", 405, "method GET: wanted POST"},
		{"POST", modelPath, "", 405, "method POST: wanted GET"},
		{"GET", "/v1/models/other", "", 404, `path \"/v1/models/other\": wanted GET /v1/models/mnist`},
	} {
		status, body := ask(mux, tt.method, tt.path, tt.body)
		if status != tt.status || !strings.HasPrefix(body, `{"error":`) || !strings.Contains(body, tt.want) {
			if len(tt.body) > 60 {
				tt.body = tt.body[:60] + "..."
			}
			t.Errorf("%s %s %s answers %d %s; want %d and an error with %s", tt.method, tt.path, tt.body, status, body, tt.status, tt.want)
		}
	}
}

func TestPageServer(t *testing.T) {
	home := t.TempDir()
	h := loopbackOnly(pageMux(home, ""))
	for path, want := range map[string]string{
		"/": "<h1>", "/page.js": "pointerdown", "/digit.js": "toDigit", "/page.css": ":root",
	} {
		req := httptest.NewRequest("GET", "http://localhost:5000"+path, nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("GET %s answers %d without %q", path, w.Code, want)
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none';") {
			t.Errorf("GET %s has the policy %q", path, csp)
		}
	}
	predict := func(want int, text string) {
		t.Helper()
		status, body := ask(h, "POST", "/api/predict", `{"instances": [`+row(784, "0")+`]}`)
		if status != want || !strings.Contains(body, text) {
			t.Errorf("predict answers %d %s; want %d with %q", status, body, want, text)
		}
	}
	register := func(url string) {
		t.Helper()
		r, err := openRegistry(t.Context(), home)
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		r.list[modelServer] = service{URL: url}
		if err := r.save(); err != nil {
			t.Fatal(err)
		}
	}
	predict(http.StatusBadGateway, `{"error":"no model server \"mnist-service\" is registered`)

	model := httptest.NewServer(modelMux(make(network, params)))
	register(model.URL)
	predict(http.StatusOK, `{"predictions":[[0.1,0.1,0.1`)
	named := pageMux("", model.URL)
	if status, body := ask(named, "POST", "/api/predict", `{"instances": [`+row(784, "0")+`]}`); status != http.StatusOK {
		t.Errorf("a page that was given its model server answers %d %s", status, body)
	}
	if status, body := ask(h, "POST", "/api/predict", "{}"); status != http.StatusBadRequest || !strings.Contains(body, "holds 0 images") {
		t.Errorf("a fault of the page answers %d %s; want what the model server says", status, body)
	}
	model.Close()
	predict(http.StatusBadGateway, `{"error":"model server \"mnist-service\" does not answer: run`)

	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/api/predict", "", 405},
		{"GET", "/other", "", 404},
		{"POST", "/api/predict", strings.Repeat(" ", maxDrawing+1), 413},
	} {
		if status, body := ask(h, tt.method, tt.path, tt.body); status != tt.status || !strings.HasPrefix(body, `{"error":`) {
			t.Errorf("%s %s answers %d %s; want %d", tt.method, tt.path, status, body, tt.status)
		}
	}
}

func TestLoopbackOnly(t *testing.T) {
	h := loopbackOnly(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{
		"localhost":           200,
		"localhost:5000":      200,
		"127.0.0.1:5000":      200,
		"[::1]:5000":          200,
		"example.com":         403,
		"example.com:5000":    403,
		"10.0.0.1:5000":       403,
		"localhost.evil:5000": 403,
		"":                    403,
	} {
		req := httptest.NewRequest("GET", "/", nil)
		req.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != want {
			t.Errorf("host %q answers %d; want %d", host, w.Code, want)
		}
	}
}
