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
	// Requests are the HTTP requests that were seen on a port, sorted; a port that
	// is not in it may carry anything.
	Requests map[Port][]Request
	// DNS are the ports on which a server is asked for names, Names what it was
	// asked for, sorted; without Names nobody knows that.
	DNS   []Port
	Names []Name
	// Seen are the addresses that a peer's name led to, sorted.
	Seen []netip.Addr
}

// Peer is the other end of a Flow: what a network policy can name of it. It is
// told by its Prefix, its Name, its Service and its Address, the first that is
// there.
type Peer struct {
	Kind      behavior.PeerKind
	Namespace string       // workload
	Labels    string       // workload: in the form of behavior.FormatLabels, never empty
	Prefix    netip.Prefix // outside
	Name      string       // outside: a name that DNS may be asked for
	Service   string       // outside: namespace/name of the Service whose endpoint it is
	Address   netip.Addr   // all others, and beside a Service; never a mapped one
}

// Request is a kind of HTTP requests.
type Request struct {
	Method string // empty: any
	Host   string // without a port; empty: any
	Path   string // as Match says: exact, a template, or recursive for any
	Match  policy.Match
}

// Name is a name that DNS is asked for, or with asterisks for labels a pattern.
type Name struct {
	Text    string
	Pattern bool
}

// dnsPort is the port of DNS, which falls back from UDP to TCP on the same port.
const dnsPort = 53

// Flows gathers the network rules of a set by peer, sorted, and notes the rules
// that no network policy can be made of. Whoever may ask a DNS server over one
// of UDP and TCP may do so over both. What a workload does within its own pod
// meets no policy, and is passed over.
func Flows(s policy.Set) ([]Flow, []policy.Note) {
	g := gathered{workload: s.Workload, flows: map[flowKey]*flow{}, notes: map[policy.Note]bool{}}
	for _, r := range s.Rules {
		switch {
		case r.Peer.Kind == behavior.PeerSelf:
		case r.Kind == behavior.Network:
			g.connection(r)
		case r.Kind == behavior.DNS:
			g.question(r)
		case r.Kind == behavior.HTTP:
			g.request(r)
		}
	}
	return g.list(), slices.SortedFunc(maps.Keys(g.notes), CompareNotes)
}

type flowKey struct {
	direction behavior.Direction
	peer      Peer
}

// flow is a Flow in the making.
type flow struct {
	ports    map[Port]bool
	dns      map[Port]bool
	names    map[Name]bool
	requests map[Port]map[Request]bool
	seen     map[netip.Addr]bool
}

type gathered struct {
	workload behavior.Workload
	flows    map[flowKey]*flow
	names    map[Name]bool // asked of a server that is not known
	notes    map[policy.Note]bool
}

func (g *gathered) leaveOut(r policy.Rule, why string) {
	g.notes[policy.Note{Container: r.Container, Text: fmt.Sprintf("left out: %s; %s", r, why)}] = true
}

// at is the flow of a rule, nil where the rule is left out.
func (g *gathered) at(r policy.Rule) *flow {
	peer, why := g.peerOf(r)
	if why != "" {
		g.leaveOut(r, why)
		return nil
	}
	k := flowKey{r.Direction, peer}
	if g.flows[k] == nil {
		g.flows[k] = &flow{map[Port]bool{}, map[Port]bool{}, map[Name]bool{}, map[Port]map[Request]bool{}, map[netip.Addr]bool{}}
	}
	return g.flows[k]
}

func (g *gathered) connection(r policy.Rule) {
	if r.Direction != behavior.Ingress && r.Direction != behavior.Egress {
		return
	}
	f := g.at(r)
	if f == nil {
		return
	}
	port := Port{r.Protocol, r.Port}
	if IsICMP(r.Protocol) {
		port.Number = 0
	}
	f.ports[port] = true
	if isDNS(r) {
		f.ask(r.Port)
	}
	for o := range r.Facts.All() {
		if a := o.Fact.Peer.Address.Unmap(); r.Peer.Name != "" && a.IsValid() {
			f.seen[a] = true
		}
	}
}

func (f *flow) ask(port uint16) {
	for _, protocol := range []string{"udp", "tcp"} {
		f.ports[Port{protocol, port}], f.dns[Port{protocol, port}] = true, true
	}
}

func (g *gathered) question(r policy.Rule) {
	name := Name{r.Name, r.Match == policy.Pattern}
	if !ValidName(strings.ReplaceAll(r.Name, "*", "x")) || !name.Pattern && strings.Contains(r.Name, "*") {
		g.leaveOut(r, "no policy can carry that name")
		return
	}
	if r.Peer.Kind == "" || r.Port == 0 {
		if g.names == nil {
			g.names = map[Name]bool{}
		}
		g.names[name] = true
		return
	}
	r.Direction, r.Protocol = behavior.Egress, "udp"
	if f := g.at(r); f != nil {
		f.ask(r.Port)
		f.names[name] = true
	}
}

// request notes a request where a policy may look at requests: not those of
// nodes, whose probes no policy may stop, nor those to the API server, which
// nobody can read.
func (g *gathered) request(r policy.Rule) {
	if r.Protocol != "tcp" || r.Peer.Kind != behavior.PeerWorkload && r.Peer.Kind != behavior.PeerOutside && r.Peer.Kind != behavior.PeerLinkLocal {
		return
	}
	f := g.at(r)
	if f == nil {
		return
	}
	port := Port{r.Protocol, r.Port}
	f.ports[port] = true
	if f.requests[port] == nil {
		f.requests[port] = map[Request]bool{}
	}
	f.requests[port][Request{r.Name, r.Host, r.Path, r.Match}] = true
}

// list finishes the flows. A server of which it is not known what it was asked
// for may be asked for what any was.
func (g *gathered) list() []Flow {
	all := maps.Clone(g.names)
	if all == nil {
		all = map[Name]bool{}
	}
	for _, f := range g.flows {
		maps.Copy(all, f.names)
	}
	flows := make([]Flow, 0, len(g.flows))
	for k, f := range g.flows {
		x := Flow{Direction: k.direction, Peer: k.peer, Ports: slices.SortedFunc(maps.Keys(f.ports), ComparePorts),
			DNS: slices.SortedFunc(maps.Keys(f.dns), ComparePorts), Seen: slices.SortedFunc(maps.Keys(f.seen), netip.Addr.Compare)}
		if len(f.dns) > 0 {
			names := all
			if len(f.names) > 0 {
				names = maps.Clone(f.names)
				maps.Copy(names, g.names)
			}
			x.Names = slices.SortedFunc(maps.Keys(names), func(a, b Name) int { return cmp.Compare(a.Text, b.Text) })
		}
		for port, requests := range f.requests {
			if x.Requests == nil {
				x.Requests = map[Port][]Request{}
			}
			x.Requests[port] = slices.SortedFunc(maps.Keys(requests), func(a, b Request) int {
				return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Match, b.Match))
			})
		}
		flows = append(flows, x)
	}
	slices.SortFunc(flows, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(rank(a.Peer.Kind), rank(b.Peer.Kind)),
			cmp.Compare(a.Peer.Namespace, b.Peer.Namespace), cmp.Compare(a.Peer.Labels, b.Peer.Labels), a.Peer.Address.Compare(b.Peer.Address),
			cmp.Compare(a.Peer.Name, b.Peer.Name), cmp.Compare(a.Peer.Service, b.Peer.Service), a.Peer.Prefix.Compare(b.Peer.Prefix))
	})
	return flows
}

// IsICMP tells whether a protocol is ICMP of either family. What a container sends
// of it are echo requests: replies and errors are the kernel's.
func IsICMP(protocol string) bool { return protocol == "icmp" || protocol == "icmpv6" }

// ValidName tells whether a policy can carry a name that DNS is asked for.
func ValidName(name string) bool {
	if name == "" || len(name) > 253 || strings.HasPrefix(name, ".") || strings.Contains(name, "..") {
		return false
	}
	for i := range len(name) {
		c := name[i] | 0x20
		if (c < 'a' || c > 'z') && (name[i] < '0' || name[i] > '9') && name[i] != '-' && name[i] != '_' && name[i] != '.' {
			return false
		}
	}
	return true
}

// Talked tells whether the set has rules about peers in a direction.
func Talked(s policy.Set, d behavior.Direction) bool {
	return slices.ContainsFunc(s.Rules, func(r policy.Rule) bool {
		return r.Kind == behavior.Network && r.Direction == d && r.Peer.Kind != behavior.PeerSelf
	})
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
	return slices.Index([]behavior.PeerKind{behavior.PeerWorkload, behavior.PeerAPIServer, behavior.PeerOwnNode, behavior.PeerNode,
		behavior.PeerLinkLocal, behavior.PeerOutside}, k)
}

// peerOf is the peer of a rule, or why no policy can name it.
func (g *gathered) peerOf(r policy.Rule) (Peer, string) {
	switch {
	case IsICMP(r.Protocol):
	case !slices.Contains([]string{"tcp", "udp", "sctp"}, r.Protocol):
		return Peer{}, "network policies know TCP, UDP, SCTP and ICMP only"
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
	case behavior.PeerOutside:
		switch {
		case r.Prefix.IsValid():
			return Peer{Kind: p.Kind, Prefix: r.Prefix}, ""
		case r.Peer.Name != "" && !ValidName(r.Peer.Name):
			return Peer{}, "no policy can carry that name"
		case r.Peer.Name != "":
			return Peer{Kind: p.Kind, Name: r.Peer.Name}, ""
		}
		p.Service = g.serviceOf(r.Peer.Service)
		fallthrough
	case behavior.PeerNode, behavior.PeerAPIServer, behavior.PeerLinkLocal:
		if !p.Address.IsValid() {
			return Peer{}, "the peer's address is not known"
		}
		return p, ""
	}
	return Peer{}, "who the peer is was not known"
}

// serviceOf is namespace/name of the Service that a label such as api:80 or
// shop/api:80 is about.
func (g *gathered) serviceOf(label string) string {
	name, _, _ := strings.Cut(label, ":")
	namespace, rest, ok := strings.Cut(name, "/")
	if !ok {
		namespace, rest = g.workload.Namespace, name
	}
	if !plainNamespace(namespace) || !plainNamespace(rest) {
		return ""
	}
	return namespace + "/" + rest
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
