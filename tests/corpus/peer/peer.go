// Package peer learns as the best-known open implementation does, to be shown
// beside ours on the same facts: a folder in which more than three names were used
// becomes the whole folder, bottom up, whatever the names are, who used them and
// to what end. It is written anew from that rule; it is no part of the product.
package peer

import (
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// most is the number of names in a folder that still stay names.
const most = 3

// Policy is what one container may run and open.
type Policy struct {
	process, file rules
}

// rules are paths and folders; a folder ends in a slash and stands for everything
// below it.
type rules struct{ paths, folders []string }

// Learn makes the policy of one container from what it did itself.
func Learn(p behavior.Profile) Policy {
	var run, open []string
	for _, o := range p.Observed() {
		switch f := o.Fact; {
		case !f.Own() || !strings.HasPrefix(f.Path, "/") || f.Path == "/":
		case f.Kind == behavior.Process:
			run = append(run, f.Path)
		case f.Kind == behavior.File:
			open = append(open, f.Path)
		}
	}
	return Policy{aggregate(run), aggregate(open)}
}

// Governs tells whether the policy has a word about facts of a kind.
func (p Policy) Governs(k behavior.Kind) bool {
	return k == behavior.Process && p.process.len() > 0 || k == behavior.File && p.file.len() > 0
}

// Allows tells whether a fact that it governs is allowed.
func (p Policy) Allows(f behavior.Fact) bool {
	if f.Kind == behavior.Process {
		return p.process.cover(f.Path)
	}
	return p.file.cover(f.Path)
}

// Len is the number of rules.
func (p Policy) Len() int { return p.process.len() + p.file.len() }

// List gives the rules for running and for opening, in order.
func (p Policy) List() (process, file []string) {
	return slices.Sorted(slices.Values(slices.Concat(p.process.paths, p.process.folders))),
		slices.Sorted(slices.Values(slices.Concat(p.file.paths, p.file.folders)))
}

func (r rules) len() int { return len(r.paths) + len(r.folders) }

func (r rules) cover(path string) bool {
	return slices.Contains(r.paths, path) ||
		slices.ContainsFunc(r.folders, func(folder string) bool { return strings.HasPrefix(path, folder) })
}

// node is a part of a path.
type node map[string]node

// aggregate makes the rules. What is directly below / is never joined, and a path
// that is also a folder of others counts as the folder only.
func aggregate(paths []string) rules {
	root := node{}
	for _, path := range paths {
		at := root
		for part := range strings.SplitSeq(path[1:], "/") {
			if at[part] == nil {
				at[part] = node{}
			}
			at = at[part]
		}
	}
	var r rules
	for part, n := range root {
		n.collect(&r, "/"+part)
	}
	slices.Sort(r.paths)
	slices.Sort(r.folders)
	return r
}

func (n node) collect(r *rules, path string) {
	switch {
	case len(n) == 0:
		r.paths = append(r.paths, path)
	case len(n) > most:
		r.folders = append(r.folders, path+"/")
	default:
		for part, child := range n {
			child.collect(r, path+"/"+part)
		}
	}
}
