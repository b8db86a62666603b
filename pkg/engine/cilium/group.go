package cilium

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

const (
	maxNames = 500 // of one DNS rule that people can be asked to read
	minRange = 4   // ports in a row that are written as a range
)

// group is one rule to be: peers of one sort with the ports that they share.
type group struct {
	direction behavior.Direction
	peers     peers
	ports     []engine.Port
	echo      []string // families of ICMP echo requests
	requests  map[engine.Port][]engine.Request
	dns       []engine.Port // have Cilium's proxy read what is asked there
	names     []engine.Name
	mutual    bool // the peer has to prove who it is
}

// group makes a rule of each workload, one of the API server, one of all nodes,
// and one of all names, and of all outside addresses, with the same ports. What
// is looked into stays apart. Flows come in order.
func (e *Engine) group(flows []engine.Flow) []group {
	dns := e.options.InspectDNS || slices.ContainsFunc(flows, func(f engine.Flow) bool { return f.Peer.Name != "" || len(f.Names) > 0 })
	var groups []group
	joined := map[string]int{}
	for _, f := range flows {
		g := group{direction: f.Direction, peers: peersOf(f), requests: f.Requests, names: f.Names}
		if dns {
			g.dns = f.DNS
		}
		g.mutual = e.options.MutualAuth && f.Peer.Kind == behavior.PeerWorkload && len(f.DNS) == 0
		for _, p := range f.Ports {
			switch p.Protocol {
			case "icmp":
				g.echo = append(g.echo, "IPv4")
			case "icmpv6":
				g.echo = append(g.echo, "IPv6")
			default:
				g.ports = append(g.ports, p)
			}
		}
		key := g.key(f)
		i, ok := joined[key]
		if !ok || key == "" {
			joined[key] = len(groups)
			groups = append(groups, g)
			continue
		}
		groups[i].ports = union(groups[i].ports, g.ports)
		groups[i].echo = slices.Compact(slices.Sorted(slices.Values(slices.Concat(groups[i].echo, g.echo))))
		groups[i].peers.join(g.peers)
	}
	return groups
}

// key is the same for flows that may be one rule; empty for one that stays alone.
func (g group) key(f engine.Flow) string {
	sort := string(f.Direction) + string(f.Peer.Kind)
	switch {
	case f.Peer.Kind == behavior.PeerWorkload || len(g.requests) > 0 || len(g.dns) > 0:
		return ""
	case f.Peer.Kind != behavior.PeerOutside && f.Peer.Kind != behavior.PeerLinkLocal:
		return sort // an entity, whatever the ports
	case len(g.peers.fqdns) > 0:
		sort += "names"
	case len(g.peers.services) > 0:
		sort += "services"
	}
	return sort + fmt.Sprint(g.ports, g.echo)
}

// peersOf is how Cilium names a flow's peer.
func peersOf(f engine.Flow) peers {
	switch p := f.Peer; p.Kind {
	case behavior.PeerWorkload:
		labels, _ := behavior.ParseLabels(p.Labels) // engine.Flows passes no others
		sel := prefixed(labels)
		sel["k8s:"+namespaceLabel] = p.Namespace
		return peers{endpoints: []engine.Selector{{MatchLabels: sel}}}
	case behavior.PeerOwnNode:
		return peers{entities: []string{"host"}}
	case behavior.PeerNode:
		return peers{entities: []string{"host", "remote-node"}}
	case behavior.PeerAPIServer:
		return peers{entities: []string{"kube-apiserver"}}
	default:
		switch {
		case p.Prefix.IsValid():
			return peers{cidrs: []string{p.Prefix.String()}}
		case p.Name != "":
			return peers{fqdns: []fqdn{{MatchName: p.Name}}}
		case p.Service != "" && f.Direction == behavior.Egress:
			namespace, name, _ := strings.Cut(p.Service, "/")
			var s serviceRule
			s.Service = &k8sService{Name: name, Namespace: namespace}
			return peers{services: []serviceRule{s}}
		}
		return peers{cidrs: []string{netip.PrefixFrom(p.Address, p.Address.BitLen()).String()}}
	}
}

// join adds peers of the same sort.
func (p *peers) join(q peers) {
	for _, c := range q.cidrs {
		if !slices.Contains(p.cidrs, c) {
			p.cidrs = append(p.cidrs, c)
		}
	}
	for _, n := range q.fqdns {
		if !slices.Contains(p.fqdns, n) {
			p.fqdns = append(p.fqdns, n)
		}
	}
	for _, s := range q.services {
		if !slices.ContainsFunc(p.services, func(have serviceRule) bool { return *have.Service == *s.Service }) {
			p.services = append(p.services, s)
		}
	}
}

// prefixed gives labels the source that those of pods have, so that no label of
// another source is taken for them.
func prefixed(labels map[string]string) map[string]string {
	p := make(map[string]string, len(labels)+1)
	for k, v := range labels {
		p["k8s:"+k] = v
	}
	return p
}

func union(a, b []engine.Port) []engine.Port {
	all := slices.Concat(a, b)
	slices.SortFunc(all, engine.ComparePorts)
	return slices.Compact(all)
}

// ingress gives the rules of a group: ICMP stands alone.
func (g group) ingress() []ingressRule {
	var list []ingressRule
	for _, c := range g.common() {
		list = append(list, ingressRule{FromEndpoints: g.peers.endpoints, FromEntities: g.peers.entities, FromCIDR: g.peers.cidrs, common: c})
	}
	return list
}

func (g group) egress() []egressRule {
	var list []egressRule
	for _, c := range g.common() {
		list = append(list, egressRule{ToEndpoints: g.peers.endpoints, ToEntities: g.peers.entities, ToCIDR: g.peers.cidrs,
			ToServices: g.peers.services, ToFQDNs: g.peers.fqdns, common: c})
	}
	return list
}

func (g group) common() []common {
	var list []common
	if len(g.ports) > 0 {
		list = append(list, common{ToPorts: g.toPorts()})
	}
	if len(g.echo) > 0 {
		var r icmpRule
		for _, family := range g.echo {
			r.Fields = append(r.Fields, icmpField{Family: family, Type: []byte(`"EchoRequest"`)})
		}
		list = append(list, common{ICMPs: []icmpRule{r}})
	}
	if g.mutual {
		for i := range list {
			list[i].Authentication = &authentication{Mode: "required"}
		}
	}
	return list
}

func (g group) toPorts() []portRule {
	var list []portRule
	if len(g.dns) > 0 {
		dns := portRule{Rules: &layer7{DNS: g.questions()}}
		for _, p := range g.dns {
			dns.Ports = append(dns.Ports, portOf(p))
		}
		list = append(list, dns)
	}
	var open []port
	for _, p := range g.ports {
		switch requests := g.requests[p]; {
		case slices.Contains(g.dns, p):
		case len(requests) > 0:
			http := &layer7{}
			for _, r := range requests {
				if x, ok := httpOf(r); ok {
					http.HTTP = append(http.HTTP, x)
				}
			}
			if len(http.HTTP) == 0 {
				http = nil
			}
			list = append(list, portRule{Ports: []port{portOf(p)}, Rules: http})
		default:
			open = append(open, portOf(p))
		}
	}
	for chunk := range slices.Chunk(inARow(open), maxPorts) {
		list = append(list, portRule{Ports: chunk})
	}
	return list
}

func portOf(p engine.Port) port {
	return port{Port: strconv.Itoa(int(p.Number)), Protocol: strings.ToUpper(p.Protocol)}
}

// inARow writes ports of one protocol that follow each other as ranges, which
// allows the same.
func inARow(ports []port) []port {
	byProtocol := map[string][]port{}
	for _, p := range ports {
		byProtocol[p.Protocol] = append(byProtocol[p.Protocol], p)
	}
	number := func(p port) int {
		n, _ := strconv.Atoi(p.Port) // portOf wrote it
		return n
	}
	var list []port
	for _, all := range byProtocol {
		for i := 0; i < len(all); {
			end := i + 1
			for end < len(all) && number(all[end]) == number(all[end-1])+1 {
				end++
			}
			if end-i >= minRange {
				list = append(list, port{Port: all[i].Port, EndPort: int32(number(all[end-1])), Protocol: all[i].Protocol})
			} else {
				list = append(list, all[i:end]...)
			}
			i = end
		}
	}
	slices.SortFunc(list, func(a, b port) int {
		if d := number(a) - number(b); d != 0 {
			return d
		}
		return strings.Compare(a.Protocol, b.Protocol)
	})
	return list
}

// questions are the names that may be asked for: those that were, and any where
// nobody knows them or they are too many to read.
func (g group) questions() []fqdn {
	if len(g.names) == 0 || len(g.names) > maxNames {
		return []fqdn{{MatchPattern: "*"}}
	}
	var list []fqdn
	for _, n := range g.names {
		if n.Pattern {
			list = append(list, fqdn{MatchPattern: n.Text})
		} else {
			list = append(list, fqdn{MatchName: n.Text})
		}
	}
	return list
}
