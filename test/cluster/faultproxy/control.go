package faultproxy

// This file carries the methods of a Proxy over HTTP.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Control returns a handler through which the proxy is told what to do:
//
//	GET    /rules           the rules, as a JSON list of RuleStatus
//	POST   /rules           adds a Rule in JSON and answers with it and its ID
//	DELETE /rules           removes all rules
//	DELETE /rules/{id}      removes one
//	POST   /watches/drop    DropWatches; answers {"watches": n}
//	POST   /watches/expire  ExpireWatches; answers {"watches": n}
//
// An error is text: of code 400 about a rule that cannot be added, of code 404
// about an ID that no rule has. The handler authenticates nobody; whoever
// reaches it commands the proxy.
func (p *Proxy) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /rules", func(w http.ResponseWriter, r *http.Request) {
		write(w, p.Rules())
	})
	mux.HandleFunc("POST /rules", func(w http.ResponseWriter, r *http.Request) {
		rule, err := decode(r.Body)
		if err == nil {
			rule, err = p.Add(rule)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		write(w, rule)
	})
	mux.HandleFunc("DELETE /rules", func(w http.ResponseWriter, r *http.Request) {
		p.Clear()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /rules/{id}", func(w http.ResponseWriter, r *http.Request) {
		if err := p.Remove(r.PathValue("id")); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /watches/drop", func(w http.ResponseWriter, r *http.Request) {
		write(w, ended{p.DropWatches()})
	})
	mux.HandleFunc("POST /watches/expire", func(w http.ResponseWriter, r *http.Request) {
		write(w, ended{p.ExpireWatches()})
	})
	return mux
}

// ended says how many watches were ended.
type ended struct {
	Watches int `json:"watches"`
}

// decode reads one rule and nothing else.
func decode(r io.Reader) (Rule, error) {
	var rule Rule
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&rule); err != nil {
		return Rule{}, fmt.Errorf("decode rule: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Rule{}, errors.New("decode rule: more follows the first value: want one rule")
	}
	return rule, nil
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// A Client calls the handler that Control returns. Its methods are those of
// Proxy; their errors are the proxy's, or say why it could not be asked.
type Client struct {
	HTTP *http.Client // nil means http.DefaultClient
	URL  string       // where the handler is, such as "http://127.0.0.1:8081"
}

// Add is Proxy.Add.
func (c *Client) Add(ctx context.Context, r Rule) (Rule, error) {
	var added Rule
	err := c.do(ctx, http.MethodPost, "/rules", r, &added)
	return added, err
}

// Remove is Proxy.Remove.
func (c *Client) Remove(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/rules/"+url.PathEscape(id), nil, nil)
}

// Clear is Proxy.Clear.
func (c *Client) Clear(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "/rules", nil, nil)
}

// Rules is Proxy.Rules.
func (c *Client) Rules(ctx context.Context) ([]RuleStatus, error) {
	var s []RuleStatus
	err := c.do(ctx, http.MethodGet, "/rules", nil, &s)
	return s, err
}

// DropWatches is Proxy.DropWatches.
func (c *Client) DropWatches(ctx context.Context) (int, error) {
	var e ended
	err := c.do(ctx, http.MethodPost, "/watches/drop", nil, &e)
	return e.Watches, err
}

// ExpireWatches is Proxy.ExpireWatches.
func (c *Client) ExpireWatches(ctx context.Context) (int, error) {
	var e ended
	err := c.do(ctx, http.MethodPost, "/watches/expire", nil, &e)
	return e.Watches, err
}

// do sends in, if it is not nil, and reads the answer into out, if that is not
// nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+path, body)
	if err != nil {
		return err
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s", method, path, strings.TrimSpace(string(b)))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
