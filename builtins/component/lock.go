package component

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// This file defines kfs.lock, which pins the components that URLs name.

// LockFile is the name of the file, at the root that scripts are loaded from.
const LockFile = "kfs.lock"

// A Lock lists the copies of components, sorted by URL. It is written as
//
//	{"version": 1, "components": [{"url": "https://...", "path": "vendor/x/component.yaml", "sha256": "..."}]}
type Lock struct {
	Version    int      `json:"version"` // 1
	Components []Pinned `json:"components"`
}

// A Pinned is the copy of one component.
type Pinned struct {
	URL    string `json:"url"`
	Path   string `json:"path"`   // under the root, with slashes
	SHA256 string `json:"sha256"` // of the copy, in hexadecimal
}

// ParseLock reads a lock file.
func ParseLock(text []byte) (*Lock, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var l Lock
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("%s: %w", LockFile, err)
	}
	if l.Version != 1 {
		return nil, fmt.Errorf("%s: version %d: want 1", LockFile, l.Version)
	}
	for _, p := range l.Components {
		if p.URL == "" || !fs.ValidPath(p.Path) || len(p.SHA256) != 2*sha256.Size {
			return nil, fmt.Errorf("%s: component %q: want url, a path under the root and sha256", LockFile, p.URL)
		}
	}
	return &l, nil
}

// JSON returns the lock file's text.
func (l *Lock) JSON() ([]byte, error) {
	sorted := Lock{Version: 1, Components: append([]Pinned{}, l.Components...)} // [], not null, if there are none
	slices.SortFunc(sorted.Components, func(a, b Pinned) int { return strings.Compare(a.URL, b.URL) })
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(sorted)
	return b.Bytes(), err
}

// Find returns the copy of the component that a URL names, or nil.
func (l *Lock) Find(url string) *Pinned {
	url = FixURL(url)
	for i := range l.Components {
		if FixURL(l.Components[i].URL) == url {
			return &l.Components[i]
		}
	}
	return nil
}

// Matches reports whether the text is the one that was pinned.
func (p *Pinned) Matches(text []byte) bool { return SHA256(text) == strings.ToLower(p.SHA256) }

// SHA256 returns the hash of a text as a Pinned holds it.
func SHA256(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// FixURL returns the URL under which an object of Google Cloud Storage can be
// read (gs://), and any other URL as it is. KFP does the same.
func FixURL(url string) string {
	if rest, ok := strings.CutPrefix(url, "gs://"); ok {
		return "https://storage.googleapis.com/" + rest
	}
	return url
}
