// Package behavior is the noun of the house: what a container of a workload was
// seen doing (Fact), how often and where (Evidence), everything of one container
// together (Profile), and how much of the truth that can claim to be (Coverage).
//
// It is pure: it reads no clock, no file and no network, and judges nothing.
// Every Merge is commutative, associative and idempotent, so that facts may
// arrive twice, late and in any order.
package behavior

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Kind tells what sort of thing a Fact is about.
type Kind string

// The kinds of facts, in the order in which people are shown them.
const (
	Process    Kind = "process"
	File       Kind = "file"
	Network    Kind = "network"
	Capability Kind = "capability"
	Syscall    Kind = "syscall"
)

// Kinds lists every kind, in the order in which people are shown them.
func Kinds() []Kind { return []Kind{Process, File, Network, Capability, Syscall} }

// Access says what a file was opened for: bits that add up.
type Access uint8

// What a file was opened for.
const (
	Read Access = 1 << iota
	Write
	Create
)

// Has tells whether every bit of b is set.
func (a Access) Has(b Access) bool { return a&b == b }

// String gives the set bits as letters: r, w, c.
func (a Access) String() string {
	var b strings.Builder
	for _, x := range []struct {
		bit    Access
		letter byte
	}{{Read, 'r'}, {Write, 'w'}, {Create, 'c'}} {
		if a.Has(x.bit) {
			b.WriteByte(x.letter)
		}
	}
	return b.String()
}

// MarshalText implements encoding.TextMarshaler.
func (a Access) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Access) UnmarshalText(text []byte) error {
	*a = 0
	for _, c := range text {
		i := strings.IndexByte("rwc", c)
		if i < 0 {
			return fmt.Errorf("access %q: letters are r, w, c", text)
		}
		*a |= 1 << i
	}
	return nil
}

// Direction of a network fact, as the container sees it.
type Direction string

// Directions. Listen is a socket that waits for peers; it has no peer.
const (
	Egress  Direction = "egress"
	Ingress Direction = "ingress"
	Listen  Direction = "listen"
)

// PeerKind tells who is at the other end of a network fact.
type PeerKind string

// Kinds of peers. The empty kind is an address that nobody resolved yet.
const (
	PeerWorkload  PeerKind = "workload"  // pods of a workload, told by their labels
	PeerOwnNode   PeerKind = "own-node"  // the node that the pod runs on: the kubelet and its probes
	PeerNode      PeerKind = "node"      // another node of the cluster, or a pod on a node's network
	PeerAPIServer PeerKind = "apiserver" // the cluster's API server
	PeerOutside   PeerKind = "outside"   // an address outside the cluster
	PeerSelf      PeerKind = "self"      // the pod itself, over loopback or its own address
)

// Peer is the other end of a network fact. It is comparable.
type Peer struct {
	Kind      PeerKind `json:"kind,omitempty"`
	Namespace string   `json:"namespace,omitempty"` // workload
	Workload  string   `json:"workload,omitempty"`  // workload: Workload.Slug, such as deployment-web
	// Labels are the stable labels of a workload's pods in the form of
	// FormatLabels; those that change with every rollout are left out.
	Labels  string     `json:"labels,omitempty"`
	Service string     `json:"service,omitempty"` // Service that it was reached through, such as api:80
	Address netip.Addr `json:"address,omitzero"`  // node, API server, outside, or not yet resolved
}

// String names the peer for people.
func (p Peer) String() string {
	switch p.Kind {
	case PeerWorkload:
		return p.Namespace + "/" + p.Workload
	case PeerAPIServer:
		return "the API server"
	case PeerOwnNode:
		return "its own node"
	case PeerNode:
		return "node " + p.Address.String()
	case PeerSelf:
		return "itself"
	case PeerOutside:
		return p.Address.String() + " (outside)"
	}
	if p.Address.IsValid() {
		return p.Address.String()
	}
	return "anyone"
}

// Fact is one thing that a container did. It is comparable, and so its own key:
// doing the same twice is the same Fact. Every string that a pod controls is in
// the form of Escape.
type Fact struct {
	Kind Kind `json:"kind"`
	// Exe is the executable that did it: its resolved path inside the container.
	// Empty for syscalls, and for what the container's runtime did before the
	// container's own first program ran (Runtime is true then).
	Exe string `json:"exe,omitempty"`
	// Runtime marks what the container runtime did inside the container's
	// namespaces, before its entrypoint or to enter it.
	Runtime bool `json:"runtime,omitempty"`

	// Parent of a process: the parent's executable at the time of exec, empty
	// when the parent is outside the container (its entrypoint, or an exec
	// session).
	Parent string `json:"parent,omitempty"`
	// Path of a process (the executable that was run) or of a file, resolved by
	// the kernel: no symlinks, absolute in the container's mount namespace.
	Path   string `json:"path,omitempty"`
	Access Access `json:"access,omitempty"` // of a file

	Direction Direction `json:"direction,omitempty"` // of a network fact
	Protocol  string    `json:"protocol,omitempty"`  // tcp, udp
	// Port is the one that a policy names: the peer's for egress, the
	// container's own for ingress and listen; after Service translation.
	Port uint16 `json:"port,omitempty"`
	Peer Peer   `json:"peer,omitzero"`

	Name    string `json:"name,omitempty"`    // capability (NET_RAW) or syscall (openat)
	Syscall string `json:"syscall,omitempty"` // capability: the system call in which it was checked
	Refused bool   `json:"refused,omitempty"` // capability: it was asked for and not granted
	Arch    string `json:"arch,omitempty"`    // syscall: amd64, 386, arm64, arm
}

// Validate tells whether the fact is one that a collector may state. A fact from
// a file or from the wire is validated before it is believed.
func (f Fact) Validate() error {
	for _, s := range []string{f.Exe, f.Parent, f.Path, f.Name, f.Syscall, f.Arch, f.Protocol, f.Peer.Workload, f.Peer.Namespace, f.Peer.Labels, f.Peer.Service} {
		if !IsEscaped(s) {
			return fmt.Errorf("%s fact: %s is not escaped text", Escape(string(f.Kind)), Escape(s))
		}
	}
	switch f.Kind {
	case Process, File:
		if f.Path == "" {
			return fmt.Errorf("%s fact without a path", f.Kind)
		}
		if f.Kind == File && f.Access == 0 {
			return fmt.Errorf("file fact for %s without access", f.Path)
		}
	case Network:
		if f.Direction != Egress && f.Direction != Ingress && f.Direction != Listen {
			return fmt.Errorf("network fact with direction %q", Escape(string(f.Direction)))
		}
		if f.Protocol == "" {
			return fmt.Errorf("network fact without a protocol")
		}
	case Capability, Syscall:
		if f.Name == "" {
			return fmt.Errorf("%s fact without a name", f.Kind)
		}
	default:
		return fmt.Errorf("fact of unknown kind %q", Escape(string(f.Kind)))
	}
	return nil
}

// String says the fact in words, for people.
func (f Fact) String() string {
	exe := f.Exe
	if exe == "" {
		exe = "(runtime)"
	}
	switch f.Kind {
	case Process:
		parent := f.Parent
		if parent == "" {
			parent = "(outside the container)"
		}
		return fmt.Sprintf("%s runs %s", parent, f.Path)
	case File:
		var verbs []string
		for _, v := range []struct {
			bit  Access
			word string
		}{{Read, "reads"}, {Write, "writes"}, {Create, "creates"}} {
			if f.Access.Has(v.bit) {
				verbs = append(verbs, v.word)
			}
		}
		return fmt.Sprintf("%s %s %s", exe, strings.Join(verbs, " and "), f.Path)
	case Network:
		via := ""
		if f.Peer.Service != "" {
			via = " (service " + f.Peer.Service + ")"
		}
		switch f.Direction {
		case Listen:
			return fmt.Sprintf("%s listens on %s/%d", exe, f.Protocol, f.Port)
		case Ingress:
			return fmt.Sprintf("%s is reached on %s/%d by %s", exe, f.Protocol, f.Port, f.Peer)
		default:
			return fmt.Sprintf("%s connects to %s on %s/%d%s", exe, f.Peer, f.Protocol, f.Port, via)
		}
	case Capability:
		verb := "uses"
		if f.Refused {
			verb = "is refused"
		}
		return fmt.Sprintf("%s %s capability %s in %s", exe, verb, f.Name, f.Syscall)
	case Syscall:
		return fmt.Sprintf("calls %s (%s)", f.Name, f.Arch)
	}
	return string(f.Kind)
}

// Compare orders facts totally: by kind as people are shown them, then field by
// field. It is the order of every list and every file.
func Compare(a, b Fact) int {
	return cmp.Or(
		cmp.Compare(slices.Index(Kinds(), a.Kind), slices.Index(Kinds(), b.Kind)),
		compareBool(a.Runtime, b.Runtime),
		cmp.Compare(a.Path, b.Path),
		cmp.Compare(a.Direction, b.Direction),
		cmp.Compare(a.Protocol, b.Protocol),
		cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Peer.Kind, b.Peer.Kind),
		cmp.Compare(a.Peer.Namespace, b.Peer.Namespace),
		cmp.Compare(a.Peer.Workload, b.Peer.Workload),
		cmp.Compare(a.Peer.Labels, b.Peer.Labels),
		cmp.Compare(a.Peer.Service, b.Peer.Service),
		a.Peer.Address.Compare(b.Peer.Address),
		cmp.Compare(a.Name, b.Name),
		cmp.Compare(a.Arch, b.Arch),
		cmp.Compare(a.Exe, b.Exe),
		cmp.Compare(a.Parent, b.Parent),
		cmp.Compare(a.Access, b.Access),
		cmp.Compare(a.Syscall, b.Syscall),
		compareBool(a.Refused, b.Refused),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
