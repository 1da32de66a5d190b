package vendoring

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
)

func TestPath(t *testing.T) {
	long := strings.Repeat("x", 120)
	for _, tt := range []struct{ url, want string }{
		{"https://raw.githubusercontent.com/kubeflow/pipelines/1.8.22/components/sample/component.yaml",
			"vendor/raw.githubusercontent.com/kubeflow/pipelines/1.8.22/components/sample/component.yaml"},
		{"https://h/a_b+c=d@e-f.yml", "vendor/h/a_b+c=d@e-f.yml"},

		// What cannot stand there as it is has a hash.
		{"http://h/c.yaml", "vendor/h/c~72eecc34371ec29a.yaml"},
		{"https://h:8443/c.yaml", "vendor/h_8443/c~HASH.yaml"},
		{"https://[::1]/c.yaml", "vendor/___1_/c~HASH.yaml"},
		{"https://h/Azure/c.yaml", "vendor/h/azure/c~HASH.yaml"},
		{"https://h/c.yaml?ref=main", "vendor/h/c~HASH.yaml"},
		{"https://h/c.yaml?", "vendor/h/c~HASH.yaml"},
		{"https://h/c.yaml#x", "vendor/h/c~HASH.yaml"},
		{"https://h/c.YAML", "vendor/h/c~HASH.yaml"},
		{"https://h/c", "vendor/h/c~HASH.yaml"},
		{"https://h/c.txt", "vendor/h/c.txt~HASH.yaml"},
		{"https://h/", "vendor/h/~HASH.yaml"},
		{"https://h", "vendor/h/~HASH.yaml"},
		{"https://h/a//c.yaml", "vendor/h/a/c~HASH.yaml"},
		{"https://h/../../c.yaml", "vendor/h/__/__/c~HASH.yaml"},
		{"https://h/%2e%2e%2f%2e%2e/c.yaml", "vendor/h/_._._/c~HASH.yaml"},
		{"https://h/.git/c.yaml", "vendor/h/_git/c~HASH.yaml"},
		{"https://h/-rf/c.yaml", "vendor/h/_rf/c~HASH.yaml"},
		{"https://h/a%20b/%C3%A9.yaml", "vendor/h/a_b/_~HASH.yaml"},
		{"https://h/con/nul.yaml", "vendor/h/_con/_nul~HASH.yaml"},
		{"https://h/com1.x/c.yaml", "vendor/h/_com1.x/c~HASH.yaml"},
		{"https://h/a./c.yaml", "vendor/h/a_/c~HASH.yaml"},
		{"https://h/a.yaml/c.yaml", "vendor/h/a.yaml_/c~HASH.yaml"},
		{"https://h/a~b.yaml", "vendor/h/a_b~HASH.yaml"},
		{"https://h/" + long + ".yaml", "vendor/h/" + long[:78] + "~HASH.yaml"},
		{"https://h/" + long + "/c.yaml", "vendor/h/" + long[:100] + "/c~HASH.yaml"},
		{"https://h/" + long + "/" + long + "/c.yaml", "vendor/h/" + long[:100] + "/c~HASH.yaml"},
	} {
		got := Path(tt.url)
		if strings.Contains(tt.want, "~HASH") {
			got = regexp.MustCompile("~[0-9a-f]{16}").ReplaceAllString(got, "~HASH")
		}
		if got != tt.want {
			t.Errorf("Path(%q) = %q; want %q", tt.url, got, tt.want)
		}
	}
}

// FuzzPath looks for two URLs whose copies cannot stand beside each other, and
// for a path that some file system refuses.
func FuzzPath(f *testing.F) {
	for _, pair := range [][2]string{
		{"https://h/c.yaml", "http://h/c.yaml"},
		{"https://h/c.yaml", "https://H/c.yaml"},
		{"https://h/c.yaml", "https://h/c.yaml/c.yaml"},
		{"https://h/a/c.yaml", "https://h/a"},
		{"https://h/a.yaml", "https://h/a.yaml?x"},
		{"https://h/../x.yaml", "https://h/x.yaml"},
		{"https://h/\x00", "://"},
		{"https://h/" + strings.Repeat("a/", 200) + "c.yaml", "https://h/" + strings.Repeat("b", 300) + "/con.yaml"},
	} {
		f.Add(pair[0], pair[1])
	}
	name := regexp.MustCompile(`^[a-z0-9_+=@~][a-z0-9._+=@~-]*$`)
	f.Fuzz(func(t *testing.T, a, b string) {
		p, q := Path(a), Path(b)
		for _, p := range []string{p, q} {
			if !fs.ValidPath(p) || !strings.HasPrefix(p, Folder+"/") || len(p) > maxPath || !isYAML(p) {
				t.Errorf("path %q", p)
			}
			for _, n := range strings.Split(p, "/") {
				stem, _, _ := strings.Cut(n, ".")
				if !name.MatchString(n) || strings.HasSuffix(n, ".") || len(n) > maxName+1 || reserved(stem) {
					t.Errorf("name %q of %q", n, p)
				}
			}
			for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
				if isYAML(dir) {
					t.Errorf("the folder %q of %q can be a file", dir, p)
				}
			}
		}
		if (p == q) != (a == b) {
			t.Errorf("Path(%q) = %q, Path(%q) = %q", a, p, b, q)
		}
	})
}
