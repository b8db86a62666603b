package engine

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Port is a port of one transport protocol.
type Port struct {
	Protocol string // tcp, udp, sctp
	Number   uint16
}

// Flow is what a workload may exchange with one peer in one direction, whichever
// of its containers and executables did it.
type Flow struct {
	Direction behavior.Direction
	Peer      Peer
	Ports     []Port // sorted by number, then protocol; never empty
}

// Peer is the other end of a Flow: what a network policy can name of it.
type Peer struct {
	Kind      behavior.PeerKind // workload, node, API server or outside
	Namespace string            // workload
	Labels    string            // workload: in the form of behavior.FormatLabels, never empty
	Address   netip.Addr        // all others; never a mapped one
}

// dnsPort is the port of DNS, which falls back from UDP to TCP on the same port.
const dnsPort = 53

// Flows gathers the network rules of a set by peer, sorted, and notes the rules
// that no network policy can be made of. Whoever may ask a DNS server over one
// of UDP and TCP may do so over both. What a workload does within its own pod
// meets no policy, and is passed over.
func Flows(s policy.Set) ([]Flow, []policy.Note) {
	type key struct {
		direction behavior.Direction
		peer      Peer
	}
	found := map[key]map[Port]bool{}
	notes := map[policy.Note]bool{}
	for _, r := range s.Of("", behavior.Network) {
		if r.Direction != behavior.Ingress && r.Direction != behavior.Egress || r.Peer.Kind == behavior.PeerSelf {
			continue
		}
		peer, why := peerOf(r)
		if why != "" {
			notes[policy.Note{Container: r.Container, Text: fmt.Sprintf("left out: %s; %s", r, why)}] = true
			continue
		}
		k := key{r.Direction, peer}
		if found[k] == nil {
			found[k] = map[Port]bool{}
		}
		found[k][Port{r.Protocol, r.Port}] = true
		if isDNS(r) {
			found[k][Port{"udp", r.Port}] = true
			found[k][Port{"tcp", r.Port}] = true
		}
	}
	flows := make([]Flow, 0, len(found))
	for k, ports := range found {
		flows = append(flows, Flow{k.direction, k.peer, slices.SortedFunc(maps.Keys(ports), ComparePorts)})
	}
	slices.SortFunc(flows, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(rank(a.Peer.Kind), rank(b.Peer.Kind)),
			cmp.Compare(a.Peer.Namespace, b.Peer.Namespace), cmp.Compare(a.Peer.Labels, b.Peer.Labels), a.Peer.Address.Compare(b.Peer.Address))
	})
	return flows, slices.SortedFunc(maps.Keys(notes), CompareNotes)
}

// CompareNotes orders notes by container and text.
func CompareNotes(a, b policy.Note) int {
	return cmp.Or(cmp.Compare(a.Engine, b.Engine), cmp.Compare(a.Container, b.Container), cmp.Compare(a.Text, b.Text))
}

// ComparePorts orders ports by number, then protocol.
func ComparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol))
}

func rank(k behavior.PeerKind) int {
	return slices.Index([]behavior.PeerKind{behavior.PeerWorkload, behavior.PeerAPIServer, behavior.PeerOwnNode, behavior.PeerNode, behavior.PeerOutside}, k)
}

func peerOf(r policy.Rule) (Peer, string) {
	switch {
	case !slices.Contains([]string{"tcp", "udp", "sctp"}, r.Protocol):
		return Peer{}, "network policies know TCP, UDP and SCTP only"
	case r.Port == 0:
		return Peer{}, "its port is not known"
	}
	p := Peer{Kind: r.Peer.Kind, Address: r.Peer.Address.Unmap().WithZone("")}
	switch r.Peer.Kind {
	case behavior.PeerWorkload:
		labels, err := behavior.ParseLabels(r.Peer.Labels)
		if err != nil || len(labels) == 0 || !ValidLabels(labels) {
			return Peer{}, "the peer's pods have no lasting labels to select them by"
		}
		if !plainNamespace(r.Peer.Namespace) {
			return Peer{}, "the peer's namespace is not known"
		}
		return Peer{Kind: p.Kind, Namespace: r.Peer.Namespace, Labels: behavior.FormatLabels(labels)}, ""
	case behavior.PeerOwnNode:
		return p, ""
	case behavior.PeerNode, behavior.PeerAPIServer, behavior.PeerOutside:
		if !p.Address.IsValid() {
			return Peer{}, "the peer's address is not known"
		}
		return p, ""
	}
	return Peer{}, "who the peer is was not known"
}

// plainNamespace tells whether s is a name that a namespace can have.
func plainNamespace(s string) bool {
	return s != "" && validLabelValue(s) && !strings.ContainsAny(s, "._") && strings.ToLower(s) == s
}

// isDNS tells whether a rule is about asking a DNS server, by the port of the
// Service that it was reached through or else its own.
func isDNS(r policy.Rule) bool {
	return r.Direction == behavior.Egress && (r.Protocol == "udp" || r.Protocol == "tcp") &&
		(r.Port == dnsPort || strings.HasSuffix(r.Peer.Service, fmt.Sprintf(":%d", dnsPort)))
}
