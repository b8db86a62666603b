//go:build linux

package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// peerChildren is how many children a folder may have by the peer's rule before it
// is allowed as a whole.
const peerChildren = 3

// peer makes rules of file facts as KubeArmor's discovery engine does: a folder of
// which more than three children were used is allowed with everything below it, to read and to
// write. All else is learned as ours is, so that only this differs.
func peer(profiles []behavior.Profile) (policy.Set, error) {
	set, err := learner(profiles)
	if err != nil {
		return set, err
	}
	children := map[string]map[string]bool{}
	var rules []policy.Rule
	for _, r := range set.Rules {
		if r.Kind != behavior.File {
			rules = append(rules, r)
			continue
		}
		for _, o := range r.Facts {
			for path := o.Fact.Path; strings.HasPrefix(path, "/") && path != "/"; {
				dir := path[:strings.LastIndexByte(path, '/')]
				if children[dir] == nil {
					children[dir] = map[string]bool{}
				}
				children[dir][path] = true
				path = dir
			}
		}
	}
	type key struct {
		path  string
		match policy.Match
	}
	wide := map[key]policy.Rule{}
	for _, r := range set.Of("", behavior.File) {
		for _, o := range r.Facts {
			k := key{o.Fact.Path, policy.Exact}
			if dir := peerFolder(o.Fact.Path, children); dir != "" {
				k.path, k.match = dir+"/", policy.Recursive
			}
			w, ok := wide[k]
			if !ok {
				w = policy.Rule{Kind: behavior.File, Container: r.Container, Path: k.path, Match: k.match, Access: behavior.Read | behavior.Write | behavior.Create}
			}
			w.Exes, w.Facts = append(w.Exes, o.Fact.Exe), append(w.Facts, o)
			wide[k] = w
		}
	}
	for _, r := range slices.Collect(maps.Values(wide)) {
		slices.Sort(r.Exes)
		r.Exes = slices.Compact(r.Exes)
		slices.SortFunc(r.Facts, func(a, b behavior.Observed) int { return behavior.Compare(a.Fact, b.Fact) })
		rules = append(rules, r)
	}
	slices.SortFunc(rules, policy.Compare)
	set.Rules = rules
	return set, nil
}

// peerFolder is the uppermost folder above a path that has too many children, but
// for the root.
func peerFolder(path string, children map[string]map[string]bool) string {
	for i := 1; i < len(path); i++ {
		if path[i] == '/' && len(children[path[:i]]) > peerChildren {
			return path[:i]
		}
	}
	return ""
}
