package vendoring

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

	"github.com/kfs-project/kfs/internal/terminal"
)

// This file defines which URLs are fetched, and how they are shown.

// A fault is an error with a hint.
type fault struct {
	msg, hint string
	err       error // that led to it, or nil
}

func (f *fault) Error() string { return f.msg }
func (f *fault) Hint() string  { return f.hint }
func (f *fault) Unwrap() error { return f.err }

// byPath is what to do about a component that no URL may name.
const byPath = "fetch the file by other means, put it under the root and load it by its path:  load_component(path)"

// checkURL returns what keeps a URL from being fetched and pinned.
func checkURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return &fault{msg: "it is no URL: want https://, http:// or gs://"}
	case u.Scheme == "" || u.Scheme == "file":
		return &fault{msg: shown(address) + ": want https://, http:// or gs://", hint: "a file under the root is loaded by its path:  load_component(path)"}
	case u.Scheme != "https" && u.Scheme != "http":
		return &fault{msg: shown(address) + ": want https://, http:// or gs://", hint: byPath}
	case u.Hostname() == "":
		return &fault{msg: shown(address) + " names no host"}
	case u.User != nil:
		return &fault{msg: shown(address) + " holds a password or the name of a user, which kfs.lock and manifests would show", hint: byPath}
	}
	var name string
	hide := func(secret string) { name = cmp.Or(name, secret) }
	hidden(u.RawQuery, hide)
	hidden(u.EscapedFragment(), hide)
	if name != "" {
		return &fault{msg: shown(address) + " holds a secret, " + name + ", which kfs.lock and manifests would show", hint: byPath}
	}
	return nil
}

// secret reports whether a parameter of a query is named like one that gives
// access.
func secret(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"token", "signature", "secret", "passw", "passphrase", "credential", "api_key", "apikey", "api-key", "access_key", "accesskey", "private"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return slices.Contains([]string{"sig", "auth", "key", "pwd", "pass"}, name)
}

// hidden returns a query without the values of its secrets, and calls f with
// the name of each. It reads what url.ParseQuery drops too: a server may read
// it as it likes.
func hidden(query string, f func(name string)) string {
	var b strings.Builder
	for query != "" {
		end := strings.IndexAny(query, "&;") + 1
		if end == 0 {
			end = len(query)
		}
		part, rest := query[:end], query[end:]
		query = rest
		escaped, value, ok := strings.Cut(strings.TrimRight(part, "&;"), "=")
		name, err := url.QueryUnescape(escaped)
		if err != nil {
			name = escaped
		}
		if ok && secret(name) {
			f(terminal.Plain(name))
			part = escaped + "=..." + part[len(escaped)+1+len(value):]
		}
		b.WriteString(part)
	}
	return b.String()
}

// shown returns a URL for messages: without what gives access, and as text that
// a terminal shows and does not follow.
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "a URL that cannot be read"
	}
	if u.User != nil {
		u.User = url.User("...")
	}
	none := func(string) {}
	u.RawQuery = hidden(u.RawQuery, none)
	fragment := hidden(u.EscapedFragment(), none)
	u.Fragment, u.RawFragment = "", ""
	text := u.String()
	if fragment != "" {
		text += "#" + fragment
	}
	return terminal.Plain(text)
}

// rawURL returns the URL of the file that a page of a code host shows, or "".
func rawURL(u *url.URL) string {
	raw := *u
	raw.RawQuery, raw.Fragment, raw.RawPath = "", "", ""
	names := strings.Split(strings.Trim(u.Path, "/"), "/")
	switch {
	case u.Host == "github.com" && len(names) > 4 && names[2] == "blob":
		raw.Host = "raw.githubusercontent.com"
		raw.Path = "/" + strings.Join(append(names[:2:2], names[3:]...), "/")
	case u.Host == "gist.github.com" && len(names) == 2:
		raw.Path = "/" + strings.Join(names, "/") + "/raw"
	case u.Host == "bitbucket.org" && len(names) > 4 && names[2] == "src":
		raw.Path = "/" + strings.Join(append(append(names[:2:2], "raw"), names[3:]...), "/")
	case strings.Contains(u.Path, "/-/blob/"): // GitLab, at any host
		raw.Path = strings.Replace(u.Path, "/-/blob/", "/-/raw/", 1)
	default:
		return ""
	}
	return raw.String()
}
