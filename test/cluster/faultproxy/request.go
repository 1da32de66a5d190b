package faultproxy

// This file tells from a request what it asks of the API server.

import (
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A request is what the method and the URL say of an HTTP request.
type request struct {
	verb     string
	method   string
	path     string
	resource schema.GroupResource // zero if the path is no resource
	name     string               // empty for a collection
}

// parse returns what r asks for. The method is that of RequestInfo in
// k8s.io/apiserver/pkg/endpoints/request, except that the verb of a subresource
// that upgrades or proxies a connection is connect, as it is at admission.
func parse(r *http.Request) request {
	req := request{verb: strings.ToLower(r.Method), method: r.Method, path: r.URL.Path}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	group := ""
	switch {
	case parts[0] == "api" && len(parts) > 2: // api, version, resource
		parts = parts[2:]
	case parts[0] == "apis" && len(parts) > 3: // apis, group, version, resource
		group = parts[1]
		parts = parts[3:]
	default:
		return req
	}
	prefix := ""
	if parts[0] == "watch" || parts[0] == "proxy" {
		if len(parts) == 1 {
			return req
		}
		prefix = parts[0]
		parts = parts[1:]
	}
	if parts[0] == "namespaces" && len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
		parts = parts[2:]
	}
	req.resource = schema.GroupResource{Group: group, Resource: parts[0]}
	if len(parts) > 1 {
		req.name = parts[1]
	}
	subresource := ""
	if len(parts) > 2 {
		subresource = parts[2]
	}
	switch {
	case prefix == "watch":
		req.verb = "watch"
	case prefix == "proxy":
		req.verb = "connect"
	default:
		req.verb = verb(r, req.name, subresource)
	}
	return req
}

// verb returns the verb of a request for a resource.
func verb(r *http.Request, name, subresource string) string {
	switch subresource {
	case "exec", "attach", "portforward", "proxy":
		return "connect"
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if name != "" {
			return "get"
		}
		if v := r.URL.Query()["watch"]; len(v) > 0 && v[0] != "0" && !strings.EqualFold(v[0], "false") {
			return "watch"
		}
		return "list"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodDelete:
		if name == "" {
			return "deletecollection"
		}
		return "delete"
	}
	return strings.ToLower(r.Method)
}
