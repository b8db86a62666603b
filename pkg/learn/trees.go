package learn

import (
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// treeOf gives the folder of code or shared data that a folder belongs to, and
// whether all of it does or only the files directly in it; empty for none. Where
// such folders may be is known by their names; whether one is opened is for the
// data to say.
func treeOf(dir string) (root string, recursive bool) {
	if !strings.HasPrefix(dir, "/usr/") && !strings.HasPrefix(dir, "/lib") {
		return appTree(dir)
	}
	for _, area := range []string{"/usr/lib/", "/usr/lib32/", "/usr/lib64/", "/usr/libx32/", "/usr/libexec/", "/usr/local/lib/", "/usr/local/share/",
		"/usr/share/", "/lib/", "/lib32/", "/lib64/", "/libx32/"} {
		rest, ok := strings.CutPrefix(dir, area)
		if !ok {
			continue
		}
		part, _, below := strings.Cut(rest, "/")
		if !below {
			return checked(area, false)
		}
		return checked(area+part+"/", true)
	}
	return appTree(dir)
}

// appTree is treeOf outside of what a distribution brings.
func appTree(dir string) (root string, recursive bool) {
	if strings.HasPrefix(dir, "/var/") {
		return "", false // /var/lib is data
	}
	from := 1
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		from += len(part) + 1
		if slices.Contains([]string{"node_modules", "site-packages", "dist-packages", "gems", "perl5", "lib", "libs", "lib64", "jmods"}, part) {
			return checked(dir[:from], true)
		}
	}
	return "", false
}

func checked(root string, recursive bool) (string, bool) {
	if policy.Boundary(root, behavior.Read) != "" {
		return "", false
	}
	return root, recursive
}
