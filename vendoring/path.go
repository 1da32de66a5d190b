package vendoring

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"path"
	"strings"
)

// This file defines where copies stand.

// Folder holds the copies, under the root.
const Folder = "vendor"

const (
	maxName = 100 // bytes of one name of a path
	maxPath = 200 // bytes of a path: Windows takes 260 with the root
)

// Path returns where the copy of a URL stands under the root:
// vendor/HOST/PATH. No two URLs have one path or one within another, not even
// where file systems fold case, and every name is one that Linux, macOS,
// Windows and git take. A URL that gives such a path by itself (https, small
// letters, no query, a file of YAML) is seen in it as it is. The path of any
// other is made of what is left of the URL and of the hash of all of it, behind
// a ~, which no path of the first kind holds.
func Path(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		u = &url.URL{Path: address}
	}
	names := append([]string{u.Host}, strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")...)
	if whole := path.Join(names...); address == "https://"+whole && len(Folder+"/"+whole) <= maxPath && plain(names) {
		return Folder + "/" + whole
	}

	sum := sha256.Sum256([]byte(address))
	hash := "~" + hex.EncodeToString(sum[:8])
	folders, file := names[:len(names)-1], safe(names[len(names)-1])
	ext := path.Ext(file)
	if !isYAML(file) {
		ext = ".yaml"
	}
	file = cut(strings.TrimSuffix(file, ext), maxName-len(hash)-len(ext)) + hash + ext
	p := Folder
	for _, name := range folders {
		name = cut(safe(name), maxName)
		if isYAML(name) {
			name += "_"
		}
		if name != "" && len(p)+len(name)+len(file)+2 <= maxPath {
			p += "/" + name
		}
	}
	return p + "/" + file
}

// plain reports whether names can stand in a path as they are: folders, and a
// file of YAML, which no folder is named like.
func plain(names []string) bool {
	for i, name := range names {
		if name == "" || safe(name) != name || len(name) > maxName || isYAML(name) != (i == len(names)-1) {
			return false
		}
	}
	return true
}

// isYAML reports whether a name is that of a file of YAML.
func isYAML(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

// safe returns a name of a URL's path in small letters, with an underscore for
// whatever some file system or shell takes amiss.
func safe(name string) string {
	if text, err := url.PathUnescape(name); err == nil {
		name = text
	}
	name = strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', strings.ContainsRune("._-+=@", r):
			return r
		}
		return '_'
	}, name)
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") {
		name = "_" + name[1:] // .git is git's own, and -x looks like an option
	}
	if strings.HasSuffix(name, ".") {
		name = name[:len(name)-1] + "_" // Windows drops the dot
	}
	if stem, _, _ := strings.Cut(name, "."); reserved(stem) {
		name = "_" + name
	}
	return name
}

// reserved reports whether a name without its endings is a device on Windows.
func reserved(stem string) bool {
	switch stem {
	case "con", "prn", "aux", "nul":
		return true
	}
	return len(stem) == 4 && (strings.HasPrefix(stem, "com") || strings.HasPrefix(stem, "lpt")) && '0' <= stem[3] && stem[3] <= '9'
}

// cut returns at most n bytes of a name that safe returned, and never a dot at
// the end.
func cut(name string, n int) string {
	if len(name) <= n {
		return name
	}
	return strings.TrimRight(name[:n], ".")
}
