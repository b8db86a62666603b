package learn

import (
	"fmt"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// files puts file facts into groups. A path is allowed exactly, but for names
// that are bound to change:
//   - a part of the path that the system numbers anew with every start (a process
//     below /proc, the timestamped folder of a mounted secret or config map) is
//     allowed whatever it is;
//   - a folder in which one executable used o.Siblings or more generated names of
//     one kind to one end is allowed to it to that end.
//
// Both only look at sets of names that further facts can only make larger, which
// is what makes learning monotone.
func files(facts []behavior.Observed, o Options, g groups) {
	count := siblings(facts)
	for _, f := range facts {
		r := intent(f.Fact)
		if pattern, why := pattern(r.Path); pattern != "" {
			r.Path, r.Match = pattern, policy.Pattern
			g.add(r, f.Fact.Exe, f, why)
			continue
		}
		dir, shape := split(r.Path)
		k := sibling{f.Fact.Exe, dir, shape}
		if n, ok := count.wide(k, f.Fact.Access, o.Siblings); ok {
			r.Path, r.Match = dir, policy.Directory
			g.add(r, f.Fact.Exe, f, fmt.Sprintf("%d files in %s have generated names like %s, so any other file directly in it is newly allowed",
				n, dir, shape))
			continue
		}
		g.add(r, f.Fact.Exe, f, "")
	}
}

// sibling is one kind of generated name in one folder, used by one executable.
type sibling struct{ exe, dir, shape string }

// counts holds, for each kind of names, the names that were used to each end.
type counts map[sibling]map[behavior.Access]map[string]struct{}

func siblings(facts []behavior.Observed) counts {
	c := counts{}
	for _, f := range facts {
		dir, shape := split(f.Fact.Path)
		if shape == "" {
			continue
		}
		k := sibling{f.Fact.Exe, dir, shape}
		if c[k] == nil {
			c[k] = map[behavior.Access]map[string]struct{}{}
		}
		for _, bit := range []behavior.Access{behavior.Read, behavior.Write, behavior.Create} {
			if !f.Fact.Access.Has(bit) {
				continue
			}
			if c[k][bit] == nil {
				c[k][bit] = map[string]struct{}{}
			}
			c[k][bit][f.Fact.Path] = struct{}{}
		}
	}
	return c
}

// wide tells whether the folder may be opened to the access, and how many names
// say so: the fewest among the bits of the access.
func (c counts) wide(k sibling, a behavior.Access, threshold int) (int, bool) {
	if k.shape == "" || policy.Boundary(k.dir, a) != "" {
		return 0, false
	}
	least := 0
	for bit, names := range c[k] {
		if a.Has(bit) && (least == 0 || len(names) < least) {
			least = len(names)
		}
	}
	return least, least >= threshold
}

// split parts a path into its folder, with the slash, and the shape of its name:
// the name with what looks generated replaced. The shape is empty for a name that
// looks given, and for a path that is none.
func split(path string) (dir, shape string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 || path[0] != '/' {
		return "", ""
	}
	shape, ok := shapeOf(path[i+1:])
	if !ok {
		return path[:i+1], ""
	}
	return path[:i+1], shape
}

// shapeOf replaces numbers by #, other generated parts by *, and tells whether
// there were any. It decides by the name alone.
func shapeOf(name string) (string, bool) {
	if strings.ContainsAny(name, `#*\`) {
		return name, false
	}
	var shape strings.Builder
	for rest := name; rest != ""; {
		n := strings.IndexFunc(rest, func(r rune) bool { return !alphanumeric(r) })
		switch {
		case isUUID(rest):
			shape.WriteByte('*')
			rest = rest[uuidLen:]
		case n == 0:
			shape.WriteByte(rest[0])
			rest = rest[1:]
		case n < 0:
			shape.WriteString(wordShape(rest))
			rest = ""
		default:
			shape.WriteString(wordShape(rest[:n]))
			rest = rest[n:]
		}
	}
	return shape.String(), strings.ContainsAny(shape.String(), "#*")
}

func alphanumeric(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

const (
	digits  = "0123456789"
	hex     = digits + "abcdefABCDEF"
	uuidLen = len("00000000-0000-0000-0000-000000000000")
)

// isUUID tells whether s begins with a UUID.
func isUUID(s string) bool {
	if len(s) < uuidLen {
		return false
	}
	for i := range uuidLen {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (s[i] == '-') || !dash && !strings.Contains(hex, s[i:i+1]) {
			return false
		}
	}
	return true
}

// wordShape is the shape of letters and digits without anything between.
func wordShape(word string) string {
	letters := strings.TrimRight(word, digits)
	switch {
	case letters == "":
		return "#"
	case !strings.ContainsAny(word, digits):
		return word
	case len(word) >= 8 && strings.Trim(word, hex) == "":
		return "*"
	}
	for _, prefix := range []string{"tmp", "temp"} {
		if rest, ok := strings.CutPrefix(word, prefix); ok && len(rest) >= 4 {
			return prefix + "*"
		}
	}
	if !strings.ContainsAny(letters, digits) {
		return letters + "#"
	}
	if len(word) >= 6 {
		return "*"
	}
	return word
}

// isVolume tells whether a folder is one into which the kubelet writes one
// version of a mounted secret, config map or token, such as
// ..2026_11_22_08_29_01.4013239584.
func isVolume(name string) bool {
	stamp, ok := strings.CutPrefix(name, "..")
	if !ok {
		return false
	}
	when, serial, ok := strings.Cut(stamp, ".")
	parts := strings.Split(when, "_")
	if !ok || !number(serial) || len(parts) != 6 || len(parts[0]) != 4 {
		return false
	}
	for i, part := range parts {
		if !number(part) || i > 0 && len(part) != 2 {
			return false
		}
	}
	return true
}

// pattern replaces the parts of a path that are numbered anew with every start
// by asterisks, and says why; empty where there are none. Process 1 is the
// container's first program in every start.
func pattern(path string) (pattern, why string) {
	parts := strings.Split(path, "/")
	for _, part := range parts {
		if part == "*" {
			return "", ""
		}
	}
	changed := false
	if len(parts) > 2 && parts[1] == "proc" && number(parts[2]) {
		if parts[2] != "1" {
			parts[2], changed = "*", true
		}
		if len(parts) > 4 && parts[3] == "task" && number(parts[4]) {
			parts[4], changed = "*", true
		}
		if changed {
			return strings.Join(parts, "/"), "process numbers change, so the same file of any process is newly allowed"
		}
		return "", ""
	}
	for i, part := range parts[:len(parts)-1] {
		if isVolume(part) {
			parts[i], changed = "*", true
		}
	}
	if changed {
		return strings.Join(parts, "/"), "the kubelet names the folder anew for each pod and each change, so the same file in any of them is newly allowed"
	}
	return "", ""
}

func number(s string) bool { return s != "" && strings.Trim(s, digits) == "" }
