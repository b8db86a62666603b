package learn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Addresses is from how many addresses outside in one /24 (IPv6: /64), used by
// one executable on one port, the whole range is allowed. It is 8: a service
// behind fewer is listed without anybody losing sight of it.
const Addresses = 8

// peer is the peer of a rule: what can be told of it tomorrow. A name outside
// stands for whatever address it will lead to, a Service for its endpoints.
func peer(p behavior.Peer) behavior.Peer {
	switch {
	case p.Kind == behavior.PeerOutside && p.Name != "":
		return behavior.Peer{Kind: p.Kind, Name: p.Name}
	case p.Kind == behavior.PeerOutside:
		return behavior.Peer{Kind: p.Kind, Service: p.Service, Address: p.Address.Unmap().WithZone("")}
	}
	p.Service, p.Name = "", ""
	return p
}

// network puts network facts into groups: one for each peer and port, but for
// many addresses in one range outside, of which no name is known.
func network(facts []behavior.Observed, o Options, g groups) {
	special := policy.Reserved()
	found := ranges(facts, special)
	for _, f := range facts {
		r, why := intent(f.Fact), ""
		if k, ok := rangeOf(f.Fact, special); ok && len(found[k]) >= o.Addresses {
			r.Peer, r.Prefix = behavior.Peer{Kind: behavior.PeerOutside}, k.prefix
			why = fmt.Sprintf("%d addresses in %s were used on this port, so any other address in it is newly allowed", len(found[k]), k.prefix)
		}
		g.add(r, f.Fact.Exe, f, why)
	}
}

// span is a range of addresses as one executable used it on one port.
type span struct {
	exe       string
	direction behavior.Direction
	protocol  string
	port      uint16
	prefix    netip.Prefix
}

// ranges gives the addresses that were used in each range.
func ranges(facts []behavior.Observed, special []netip.Prefix) map[span]map[netip.Addr]bool {
	found := map[span]map[netip.Addr]bool{}
	for _, f := range facts {
		k, ok := rangeOf(f.Fact, special)
		if !ok {
			continue
		}
		if found[k] == nil {
			found[k] = map[netip.Addr]bool{}
		}
		found[k][f.Fact.Peer.Address.Unmap()] = true
	}
	return found
}

// rangeOf is the range that a fact counts to. There is none for an address that
// something better tells, nor for one that is not public: the cluster's own nodes
// and whatever else people run have private ones.
func rangeOf(f behavior.Fact, special []netip.Prefix) (span, bool) {
	p := f.Peer
	addr := p.Address.Unmap().WithZone("")
	if p.Kind != behavior.PeerOutside || p.Name != "" || p.Service != "" || !addr.IsValid() {
		return span{}, false
	}
	bits := 24
	if addr.Is6() {
		bits = 64
	}
	prefix := netip.PrefixFrom(addr, bits).Masked()
	if slices.ContainsFunc(special, prefix.Overlaps) {
		return span{}, false
	}
	return span{f.Exe, f.Direction, f.Protocol, f.Port, prefix}, true
}

// questions puts the names that were asked for into groups, as rules about the
// server that was asked. Names that stand for an address differ with every pod
// that connects, so the reverse of any address is one rule.
func questions(facts []behavior.Observed, g groups) {
	for _, f := range facts {
		r, why := intent(f.Fact), ""
		r.Protocol = "" // a question goes over UDP or TCP as its answer is short or long
		if r.Peer.Kind == "" {
			r.Peer = behavior.Peer{}
		}
		if name := reverse(r.Name); name != "" {
			r.Name, r.Match = name, policy.Pattern
			why = "addresses change, so asking for the name of any address is newly allowed"
		}
		g.add(r, f.Fact.Exe, f, why)
	}
}

// reverse is the pattern of the names by which addresses are looked up, for one of
// them; empty for any other name.
func reverse(name string) string {
	for suffix, labels := range map[string]int{".in-addr.arpa": 4, ".ip6.arpa": 32} {
		address, ok := strings.CutSuffix(name, suffix)
		parts := strings.Split(address, ".")
		if !ok || len(parts) != labels {
			continue
		}
		for _, part := range parts {
			if part == "" || len(part) > 3 || strings.Trim(part, hex) != "" {
				return ""
			}
		}
		return strings.Repeat("*.", labels-1) + "*" + suffix
	}
	return ""
}
