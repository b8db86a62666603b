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
	DNS        Kind = "dns"    // a name that was asked for
	Socket     Kind = "socket" // a socket that was made, of whatever family
	Capability Kind = "capability"
	Syscall    Kind = "syscall"
	HTTP       Kind = "http"  // a request, by method and path without its query
	Kafka      Kind = "kafka" // what was done with a topic
)

// Kinds lists every kind, in the order in which people are shown them.
func Kinds() []Kind {
	return []Kind{Process, File, Network, DNS, Socket, Capability, Syscall, HTTP, Kafka}
}

// Origin tells how a process came to run in its container.
type Origin string

// Origins. The empty one is the container's own: its entrypoint and what that
// started. A policy is learned from that and from Probe; Exec is what people did.
const (
	OriginProbe Origin = "probe" // a probe or lifecycle hook that the pod's specification names
	OriginExec  Origin = "exec"  // entered from outside: kubectl exec, an ephemeral container, nsenter
)

// Operation says what was done with a file, where that is more than to open it.
// Access then says what it comes to for a policy.
type Operation string

// Operations. The empty one opened the file.
const (
	OpRename   Operation = "rename" // Path is the old name (Access w) or the new one (wc)
	OpLink     Operation = "link"   // Path is the file that got another name (r), or that name (wc)
	OpSymlink  Operation = "symlink"
	OpUnlink   Operation = "unlink"
	OpMkdir    Operation = "mkdir"
	OpRmdir    Operation = "rmdir"
	OpMknod    Operation = "mknod"
	OpTruncate Operation = "truncate"
	OpChmod    Operation = "chmod"
	OpChown    Operation = "chown"
	OpXattr    Operation = "xattr"    // set or removed an extended attribute
	OpExecMap  Operation = "exec-map" // mapped it with the right to execute it
	OpConnect  Operation = "connect"  // to a Unix socket with this path
	OpBind     Operation = "bind"     // made a Unix socket with this path
)

// Operations lists every operation.
func Operations() []Operation {
	return []Operation{OpRename, OpLink, OpSymlink, OpUnlink, OpMkdir, OpRmdir, OpMknod, OpTruncate, OpChmod, OpChown, OpXattr, OpExecMap, OpConnect, OpBind}
}

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
	// PeerLinkLocal is an address that means something else on every link or in
	// every cloud: a metadata service, a name server on the node.
	PeerLinkLocal PeerKind = "link-local"
)

// Peer is the other end of a network fact. It is comparable.
type Peer struct {
	Kind      PeerKind `json:"kind,omitempty"`
	Namespace string   `json:"namespace,omitempty"` // workload
	Workload  string   `json:"workload,omitempty"`  // workload: Workload.Slug, such as deployment-web
	// Labels are the stable labels of a workload's pods in the form of
	// FormatLabels; those that change with every rollout are left out.
	Labels  string `json:"labels,omitempty"`
	Service string `json:"service,omitempty"` // Service that it was reached through, such as api:80
	// Name is what the container had asked DNS for when it was given the
	// address, in lower case and without the last dot.
	Name    string     `json:"name,omitempty"`
	Address netip.Addr `json:"address,omitzero"` // node, API server, link-local, outside, or not yet resolved
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
	case PeerLinkLocal:
		return p.Address.String() + " (link-local or metadata)"
	case PeerOutside:
		if p.Name != "" && !p.Address.IsValid() {
			return p.Name + " (outside)"
		}
		if p.Name != "" {
			return p.Name + " (outside, " + p.Address.String() + ")"
		}
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
	// Empty for syscalls, for what the container's runtime did before the
	// container's own first program ran (Runtime is true then), and where the
	// source sees no programs (Anonymous).
	Exe string `json:"exe,omitempty"`
	// Runtime marks what the container runtime did inside the container's
	// namespaces, before its entrypoint or to enter it.
	Runtime bool `json:"runtime,omitempty"`

	// Origin tells the container's own processes from those that entered it.
	Origin Origin `json:"origin,omitempty"`

	// Parent of a process: the parent's executable at the time of exec, empty
	// when the parent is outside the container (its entrypoint, or an exec
	// session). Of other facts, the parent's executable is in the Evidence.
	Parent string `json:"parent,omitempty"`
	// Path of a process (the executable that was run) or of a file, resolved by
	// the kernel: no symlinks, absolute in the container's mount namespace.
	Path   string `json:"path,omitempty"`
	Access Access `json:"access,omitempty"` // of a file
	// Operation on a file; empty for an open.
	Operation Operation `json:"operation,omitempty"`
	// Interpreter of a script, which is the process's Path.
	Interpreter string `json:"interpreter,omitempty"`
	// Deleted: the executable or the file had no name any more when it was used;
	// Path is where it was.
	Deleted bool `json:"deleted,omitempty"`
	// Arguments of a process, only where a person asked for them; of a capability
	// those of its system call, in words: AF_INET, SOCK_RAW, IPPROTO_ICMP.
	Arguments string `json:"arguments,omitempty"`

	Direction Direction `json:"direction,omitempty"` // of a network fact
	Protocol  string    `json:"protocol,omitempty"`  // tcp, udp, sctp, icmp, icmpv6, or a number
	// Port is the one that a policy names: the peer's for egress, the
	// container's own for ingress and listen; after Service translation.
	Port uint16 `json:"port,omitempty"`
	Peer Peer   `json:"peer,omitzero"`
	// Via is the address and port that the container asked for, where Service
	// translation made another one of it.
	Via netip.AddrPort `json:"via,omitzero"`

	Family string `json:"family,omitempty"` // of a socket: inet, inet6, unix, netlink, packet, or a number
	Type   string `json:"type,omitempty"`   // of a socket: stream, dgram, raw, ...; of a DNS question: A, AAAA, ...
	// Target of a DNS fact is the name that the answer leads to (CNAME, SRV), of an
	// HTTP request its host, of a Kafka request the client id.
	Target string `json:"target,omitempty"`

	// Name of a capability (NET_RAW), a syscall (openat), a name asked for, the
	// method of an HTTP request or the topic of a Kafka request. HTTP and Kafka facts
	// carry their connection's Direction, Protocol, Port and Peer; Path is the
	// request's path, Type is http or grpc, for Kafka the API in words (produce,
	// fetch) and Arguments the consumer group.
	Name    string `json:"name,omitempty"`
	Syscall string `json:"syscall,omitempty"` // capability: the system call in which it was checked
	Refused bool   `json:"refused,omitempty"` // capability: it was asked for and not granted
	Arch    string `json:"arch,omitempty"`    // syscall: amd64, 386, arm64, arm
}

// Own tells whether the container itself did it, by its own tree of processes or
// for a probe that its specification names: not its runtime, and nobody who
// entered it from outside.
func (f Fact) Own() bool { return !f.Runtime && f.Origin != OriginExec }

// Anonymous tells whether it is something that some program of the container did,
// seen by a source that does not see which: Hubble sees a pod's traffic only.
func (f Fact) Anonymous() bool {
	return f.Exe == "" && !f.Runtime && (f.Kind == Network || f.Kind == DNS || f.Kind == HTTP || f.Kind == Kafka)
}

// Validate tells whether the fact is one that a collector may state. A fact from
// a file or from the wire is validated before it is believed.
func (f Fact) Validate() error {
	for _, s := range []string{f.Exe, f.Parent, f.Path, f.Name, f.Syscall, f.Arch, f.Protocol, f.Peer.Workload, f.Peer.Namespace, f.Peer.Labels,
		f.Peer.Service, f.Peer.Name, f.Interpreter, f.Arguments, f.Family, f.Type, f.Target} {
		if !IsEscaped(s) {
			return fmt.Errorf("%s fact: %s is not escaped text", Escape(string(f.Kind)), Escape(s))
		}
	}
	switch f.Origin {
	case "", OriginProbe, OriginExec:
	default:
		return fmt.Errorf("%s fact of unknown origin %s", Escape(string(f.Kind)), Escape(string(f.Origin)))
	}
	if f.Operation != "" && (f.Kind != File || !slices.Contains(Operations(), f.Operation)) {
		return fmt.Errorf("%s fact with operation %s", Escape(string(f.Kind)), Escape(string(f.Operation)))
	}
	switch f.Kind {
	case Process, File:
		if f.Path == "" {
			return fmt.Errorf("%s fact without a path", f.Kind)
		}
		if f.Kind == File && f.Access == 0 {
			return fmt.Errorf("file fact for %s without access", f.Path)
		}
	case Network, HTTP, Kafka:
		if f.Direction != Egress && f.Direction != Ingress && f.Direction != Listen {
			return fmt.Errorf("%s fact with direction %s", f.Kind, Escape(string(f.Direction)))
		}
		if f.Protocol == "" {
			return fmt.Errorf("%s fact without a protocol", f.Kind)
		}
		if f.Kind == HTTP && (f.Name == "" || f.Path == "") || f.Kind == Kafka && f.Type == "" {
			return fmt.Errorf("%s fact without what was asked for", f.Kind)
		}
	case Socket:
		if f.Family == "" || f.Type == "" {
			return fmt.Errorf("socket fact without family or type")
		}
	case DNS, Capability, Syscall:
		if f.Name == "" {
			return fmt.Errorf("%s fact without a name", f.Kind)
		}
	default:
		return fmt.Errorf("fact of unknown kind %s", Escape(string(f.Kind)))
	}
	return nil
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
		cmp.Compare(a.Origin, b.Origin),
		cmp.Compare(a.Operation, b.Operation),
		cmp.Compare(a.Interpreter, b.Interpreter),
		compareBool(a.Deleted, b.Deleted),
		cmp.Compare(a.Arguments, b.Arguments),
		a.Via.Compare(b.Via),
		cmp.Compare(a.Family, b.Family),
		cmp.Compare(a.Type, b.Type),
		cmp.Compare(a.Target, b.Target),
		cmp.Compare(a.Peer.Name, b.Peer.Name),
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
