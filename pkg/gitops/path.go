package gitops

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// cleanDir returns dir in its one spelling: no leading or trailing slash, ""
// for the whole repository.
func cleanDir(dir string) (string, error) {
	if dir == "" || dir == "." {
		return "", nil
	}
	dir = strings.TrimSuffix(dir, "/")
	return dir, checkPath(dir)
}

// checkPath refuses what a file system, git or a terminal could take for
// something else than a file below the folder.
func checkPath(p string) error {
	parts := strings.Split(p, "/")
	if len(parts) > maxDepth || len(p) > 4096 {
		return &UnsafeError{Path: p, Reason: "is too long"}
	}
	for _, name := range parts {
		if reason := unsafeName(name); reason != "" {
			return &UnsafeError{Path: p, Reason: reason}
		}
	}
	return nil
}

// unsafeName says why a tree entry of that name is refused, or "".
func unsafeName(name string) string {
	switch {
	case name == "":
		return "has an empty component"
	case name == "." || name == "..":
		return "has a component that leaves its folder"
	case len(name) > 255:
		return "has a component longer than 255 bytes"
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	case strings.ContainsAny(name, `/\`):
		return "has a slash or a backslash in a name"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "has a control character"
	case isDotGit(name):
		return "has a component that stands for .git"
	}
	return ""
}

// isDotGit reports the spellings that some file system takes for .git: any
// case, NTFS's short name, trailing dots, spaces and streams, HFS+'s ignored
// code points.
func isDotGit(name string) bool {
	s := strings.Map(func(c rune) rune {
		if unicode.Is(unicode.Cf, c) {
			return -1
		}
		return unicode.ToLower(c)
	}, name)
	s, _, _ = strings.Cut(s, ":")
	s = strings.TrimRight(s, ". ")
	return s == ".git" || s == "git~1"
}

// join puts a path of a Tree below dir.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// parents returns the folders above p, outermost first.
func parents(p string) []string {
	var out []string
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		out = append([]string{d}, out...)
	}
	return out
}
