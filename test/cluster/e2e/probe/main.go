// Command probe is what the pods of the tests run: it looks at the cluster
// from inside and says what it sees.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("want whoami, print TEXT, get URL or sleep DURATION")
	}
	switch args[0] {
	case "whoami":
		return whoami()
	case "print":
		fmt.Println(args[1])
		return nil
	case "get":
		return get(args[1])
	case "sleep":
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		fmt.Println("sleeping")
		time.Sleep(d)
		return nil
	}
	return fmt.Errorf("unknown word %q", args[0])
}

// mounted is where a pod's service account is mounted.
const mounted = "/var/run/secrets/kubernetes.io/serviceaccount/"

// whoami asks the API server, at the address that every pod is told, who the
// pod's token says that it is.
func whoami() error {
	token, err := os.ReadFile(mounted + "token")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(mounted + "ca.crt")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return errors.New("ca.crt holds no certificate")
	}
	client := http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
	host := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	review := `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`
	req, err := http.NewRequest("POST", "https://"+host+"/apis/authentication.k8s.io/v1/selfsubjectreviews", bytes.NewBufferString(review))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+string(token))
	req.Header.Set("Content-Type", "application/json")
	return show(client.Do(req))
}

func get(url string) error {
	client := http.Client{Timeout: 10 * time.Second}
	return show(client.Get(url))
}

// show prints a response, its status first.
func show(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}
