package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdServe: serve DIR serves the files DIR/HOST/PATH as http://HOST/PATH and
// https://HOST/PATH, for hosts below .test, by way of a proxy that it names in
// the environment. Its authority for TLS is ca.pem, and requests lists what
// was asked for, a line each. The host slow.test never answers, and what was
// asked of it leaves requests.slow.
func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serve dir")
	}
	dir, requests := ts.MkAbs(args[0]), ts.MkAbs("requests")
	var mu sync.Mutex
	files := func(scheme string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if f, err := os.OpenFile(requests, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666); err == nil {
				fmt.Fprintf(f, "%s://%s%s\n", scheme, r.Host, r.URL.RequestURI())
				f.Close()
			}
			if r.Host == "slow.test" {
				os.WriteFile(requests+".slow", nil, 0o666)
				<-r.Context().Done()
				return
			}
			http.ServeFile(w, r, filepath.Join(dir, r.Host, filepath.FromSlash(r.URL.Path)))
		}
	}
	ts.Check(os.WriteFile(requests, nil, 0o666))

	cert, authority, err := certificate("*.test")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), authority, 0o666))
	secure := httptest.NewUnstartedServer(files("https"))
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it
	secure.StartTLS()
	ts.Defer(secure.Close)

	plain := files("http")
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			plain(w, r)
			return
		}
		there, err := net.Dial("tcp", secure.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		fmt.Fprint(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() {
			io.Copy(there, here)
			there.Close()
		}()
		io.Copy(here, there)
	}))
	ts.Defer(proxy.Close)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		ts.Setenv(name, proxy.URL)
	}
	ts.Setenv("NO_PROXY", "")
	ts.Setenv("no_proxy", "")
}

// certificate returns a certificate for a host, which is its own authority, and
// the PEM of that.
func certificate(host string) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kfs test"}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}
