package vendoring

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// This file defines how a URL is fetched.

// A ClientConfig says how URLs are fetched. The zero value works.
type ClientConfig struct {
	CAFile   string        // PEM file of authorities that are trusted beside the system's; "" is none
	Timeout  time.Duration // of one try, from dialing to the last byte; 0 is 30 s
	MaxBytes int64         // of one file; 0 is 4 MiB
	Tries    int           // for a server that is busy or breaks off; 0 is 3
	Pause    time.Duration // before the second try, twice as long before each further one; 0 is 1 s

	// Log receives a line for each further try; nil drops it.
	Log func(line string)
}

// A Client fetches files by HTTP. Proxies are those of $HTTPS_PROXY,
// $HTTP_PROXY and $NO_PROXY; authorities those of the system, or of
// $SSL_CERT_FILE and $SSL_CERT_DIR.
type Client struct {
	cfg  ClientConfig
	http *http.Client
}

const (
	maxRedirects  = 10
	maxRetryAfter = 30 * time.Second // that a server may ask to wait
)

// NewClient returns a client. The error is about the file of authorities.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 4 << 20
	}
	if cfg.Tries == 0 {
		cfg.Tries = 3
	}
	if cfg.Pause == 0 {
		cfg.Pause = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = func(string) {}
	}
	authorities, err := authorities(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	return &Client{cfg, &http.Client{
		CheckRedirect: checkRedirect,
		Transport: &http.Transport{
			Proxy:               proxy,
			TLSClientConfig:     &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12},
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     30 * time.Second,
		},
	}}, nil
}

// authorities returns those of the system and of a file; nil is the system's.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}

// proxy is http.ProxyFromEnvironment, whose error would show a password.
func proxy(r *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(r)
	if err != nil {
		return nil, errors.New("the proxy of $HTTPS_PROXY or $HTTP_PROXY is no URL")
	}
	return u, nil
}

func checkRedirect(r *http.Request, via []*http.Request) error {
	switch before := via[len(via)-1].URL; {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case r.URL.Scheme != "https" && r.URL.Scheme != "http":
		return fmt.Errorf("%s leads to %s://, which is refused", before.Host, r.URL.Scheme)
	case r.URL.Scheme == "http" && before.Scheme == "https":
		return fmt.Errorf("%s leads from https to http, at %s, which is refused", before.Host, r.URL.Host)
	}
	return nil
}

// Get returns the content of a URL. The error tells what the server or the way
// to it has done, without the URL; one with a method Hint() string has a hint.
func (c *Client) Get(ctx context.Context, address string) ([]byte, error) {
	for try := 1; ; try++ {
		text, err := c.try(ctx, address)
		var again *tryAgain
		if err == nil || ctx.Err() != nil || !errors.As(err, &again) {
			return text, err
		}
		wait := c.cfg.Pause << (try - 1)
		wait += rand.N(wait/4 + 1)
		switch {
		case try == c.cfg.Tries:
			return nil, fmt.Errorf("%w, %d times", err, try)
		case again.after > maxRetryAfter:
			return nil, fmt.Errorf("%w: it asks to come back in %v", err, again.after)
		case again.after > wait:
			wait = again.after
		}
		c.cfg.Log(fmt.Sprintf("%s: %v: trying again in %v", shown(address), err, wait.Round(100*time.Millisecond)))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// A tryAgain is an error that may pass.
type tryAgain struct {
	err   error
	after time.Duration // that the server asks to wait; 0 if it does not say
}

func (e *tryAgain) Error() string { return e.err.Error() }
func (e *tryAgain) Unwrap() error { return e.err }

// try is one try of Get.
func (c *Client) try(ctx context.Context, address string) ([]byte, error) {
	limit, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(limit, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("it is no URL")
	}
	r.Header.Set("User-Agent", "kfs")
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, badStatus(answer, r.URL)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, c.cfg.MaxBytes+1))
	switch {
	case int64(len(text)) > c.cfg.MaxBytes:
		return nil, fmt.Errorf("it is larger than %d bytes, which no component is", c.cfg.MaxBytes)
	case err != nil:
		return nil, c.explain(ctx, err)
	case isPage(text):
		return nil, &fault{msg: "it gives a web page, no component", hint: pageHint(r.URL)}
	}
	return text, nil
}

// explain returns an error of the connection without the URL, which may be one
// that a redirect named and hold a secret.
func (c *Client) explain(ctx context.Context, err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		return &fault{msg: fmt.Sprintf("no answer, or no end of it, in %v", c.cfg.Timeout), hint: "more time is given by  --timeout", err: err}
	case errors.As(err, &unknown):
		return &fault{msg: unknown.Error(), hint: "an authority of your own is given by  --ca-file FILE  or by $SSL_CERT_FILE", err: err}
	case errors.As(err, &certificate):
		return certificate.Err
	case strings.Contains(err.Error(), "Location header"): // net/http shows all of it
		return errors.New("it leads to what is no URL")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return &tryAgain{err: errors.New("the connection ends before the answer does")}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.As(err, &dns) && dns.IsTemporary:
		return &tryAgain{err: err}
	}
	return err
}

// badStatus is the error of an answer that is not 200.
func badStatus(answer *http.Response, u *url.URL) error {
	err := fmt.Errorf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return &tryAgain{err, retryAfter(answer.Header.Get("Retry-After"))}
	case http.StatusUnauthorized, http.StatusForbidden:
		return &fault{msg: err.Error(), hint: byPath}
	}
	if rawURL(u) != "" {
		return &fault{msg: err.Error(), hint: pageHint(u)}
	}
	return err
}

// retryAfter reads the header of that name: seconds, or a time.
func retryAfter(text string) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 1<<30)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at).Round(time.Second), 0)
	}
	return 0
}

// isPage reports whether a text is HTML or XML, as no YAML of a component is.
func isPage(text []byte) bool {
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\ufeff")))
	return bytes.HasPrefix(text, []byte("<")) && !bytes.HasPrefix(text, []byte("<<"))
}

func pageHint(u *url.URL) string {
	if raw := rawURL(u); raw != "" {
		return "the file itself is at  " + raw
	}
	return "name the URL of the file itself, which such pages link as raw"
}
