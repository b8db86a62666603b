package policy

import (
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Covers tells whether the rule's Path and Match cover path.
func (r Rule) Covers(path string) bool {
	switch r.Match {
	case Directory:
		name, ok := strings.CutPrefix(path, r.Path)
		return ok && name != "" && !strings.Contains(name, "/")
	case Recursive:
		return len(path) > len(r.Path) && strings.HasPrefix(path, r.Path)
	case Pattern:
		want, have := strings.Split(r.Path, "/"), strings.Split(path, "/")
		return slices.EqualFunc(want, have, func(w, h string) bool { return w == h || w == "*" && h != "" })
	}
	return path == r.Path
}

// Allows tells whether the rule, which belongs to the container of the fact,
// allows it. The address of a peer counts only where nothing better names it.
func (r Rule) Allows(f behavior.Fact) bool {
	if r.Kind != f.Kind || f.Runtime {
		return false
	}
	switch f.Kind {
	case behavior.Process:
		return slices.Contains(r.Exes, f.Parent) && r.Covers(f.Path)
	case behavior.File:
		return slices.Contains(r.Exes, f.Exe) && r.Access.Has(f.Access) && r.Covers(f.Path)
	case behavior.Network:
		peer := f.Peer
		peer.Service, peer.Name = "", ""
		return slices.Contains(r.Exes, f.Exe) && r.Direction == f.Direction && r.Protocol == f.Protocol && r.Port == f.Port && r.Peer == peer
	case behavior.Capability:
		return slices.Contains(r.Exes, f.Exe) && r.Name == f.Name && !f.Refused
	case behavior.Syscall:
		return r.Name == f.Name && r.Arch == f.Arch
	}
	return false
}

// Allows tells whether a rule of the container allows the fact.
func (s Set) Allows(container string, f behavior.Fact) bool {
	return slices.ContainsFunc(s.Rules, func(r Rule) bool { return r.Container == container && r.Allows(f) })
}
