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
		return (len(path) > len(r.Path) || r.Kind == behavior.HTTP) && strings.HasPrefix(path, r.Path)
	case Template:
		want, have := strings.Split(r.Path, "/"), strings.Split(path, "/")
		return slices.EqualFunc(want, have, func(w, h string) bool { return w == h || Class(w).Matches(h) })
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
		return slices.Contains(r.Exes, f.Exe) && r.Direction == f.Direction && r.Protocol == f.Protocol && r.Port == f.Port && r.IsFor(f.Peer)
	case behavior.DNS:
		return slices.Contains(r.Exes, f.Exe) && r.CoversName(f.Name)
	case behavior.HTTP:
		return slices.Contains(r.Exes, f.Exe) && r.Direction == f.Direction && r.Protocol == f.Protocol && r.Port == f.Port && r.IsFor(f.Peer) &&
			(r.Name == "" || r.Name == f.Name) && (r.Host == "" || r.Host == HostName(f.Target)) && r.Covers(f.Path)
	case behavior.Capability:
		return slices.Contains(r.Exes, f.Exe) && r.Name == f.Name && !f.Refused
	case behavior.Syscall:
		return r.Name == f.Name && r.Arch == f.Arch
	}
	return false
}

// IsFor tells whether the rule's Peer, or Prefix, is or includes the peer of a
// fact.
func (r Rule) IsFor(p behavior.Peer) bool {
	p.Address = p.Address.Unmap()
	switch {
	case r.Prefix.IsValid():
		return p.Kind == behavior.PeerOutside && r.Prefix.Contains(p.Address)
	case r.Peer.Name != "":
		return p.Kind == r.Peer.Kind && p.Name == r.Peer.Name
	}
	own := r.Peer
	own.Address, own.Service, p.Service, p.Name = own.Address.Unmap(), "", "", ""
	return own == p
}

// CoversName tells whether a rule about DNS covers a name.
func (r Rule) CoversName(name string) bool {
	if r.Match != Pattern {
		return r.Name == name
	}
	want, have := strings.Split(r.Name, "."), strings.Split(name, ".")
	return slices.EqualFunc(want, have, func(w, h string) bool { return w == h || w == "*" && h != "" })
}

// HostName is the host of an HTTP request without its port.
func HostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.Contains(host[i:], "]") {
		return host[:i]
	}
	return host
}

// Allows tells whether the rules of the container allow the fact. To read a file
// and to write it may be allowed by two of them.
func (s Set) Allows(container string, f behavior.Fact) bool {
	if f.Kind != behavior.File {
		return slices.ContainsFunc(s.Rules, func(r Rule) bool { return r.Container == container && r.Allows(f) })
	}
	missing := f.Access
	for _, r := range s.Rules {
		part := f
		part.Access = missing & r.Access
		if r.Container == container && part.Access != 0 && r.Allows(part) {
			missing &^= part.Access
		}
	}
	return missing == 0 && f.Access != 0
}
