package topology

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// index is what an address may be besides a pod's.
type index struct {
	frontends map[frontend]servicePort
	serviceIP map[netip.Addr]name       // addresses of Services, whatever the port
	nodePorts map[frontend]servicePort  // with the zero address
	nodes     map[netip.Addr]string     // nodes and the bridges of their pods, with the node's name
	api       map[netip.AddrPort]bool   // endpoints of the API server
	apiHost   map[netip.Addr]bool       // their addresses
	podRanges []netip.Prefix            // from which nodes give pods addresses
	backends  map[name][]*EndpointSlice // by Service
	metadata  map[netip.Addr]bool
	narrow    map[behavior.Workload]map[string]string // labels of workloads whose own select others as well
}

type frontend struct {
	addr     netip.Addr
	protocol string
	port     uint16
}

type servicePort struct {
	service name
	port    ServicePort
}

// Seal makes the picture ready for concurrent reading after the last Add. Without
// it the first Resolve does so.
func (c *Cluster) Seal() {
	if c.index == nil {
		c.index = c.build()
	}
}

// Resolve names the peer of a network fact, a question or a request that the pod namespace/podName was
// seen with at that time, and translates a Service's port to its pods'. The fact
// of a Service with several workloads behind it, or of an API server with
// several endpoints, becomes one for each. Facts without an address, and those
// that are resolved already, come back as they are. A zero time means now.
//
// An address that cannot be told comes back with an unresolved Peer: one of a
// Service that has no endpoints, or one of a pod that nobody remembers.
//
// Via, the address before translation, becomes the peer's Service where it is
// one's, and is cleared then. The name that was asked for is kept for a peer
// outside only: inside the cluster a workload says more, and one workload has
// many names.
func (c *Cluster) Resolve(f behavior.Fact, namespace, podName string, at time.Time) []behavior.Fact {
	if f.Direction == behavior.Listen || f.Peer.Kind != "" || !f.Peer.Address.IsValid() {
		return []behavior.Fact{f}
	}
	c.Seal()
	switch f.Kind {
	case behavior.Network, behavior.HTTP, behavior.Kafka:
		return c.named(f, name{namespace, podName}, at)
	case behavior.DNS: // asks a server, and has no direction of its own
		f.Direction = behavior.Egress
		facts := c.resolve(f, name{namespace, podName}, at)
		for i := range facts {
			facts[i].Direction = ""
		}
		return facts
	}
	return []behavior.Fact{f}
}

// named resolves a fact and keeps the name by which a peer outside was found. A
// name leads to what was asked for: where a Service translated that, it is not
// the peer's.
func (c *Cluster) named(f behavior.Fact, self name, at time.Time) []behavior.Fact {
	asked := f.Peer.Name
	facts := c.resolve(f, self, at)
	for i := range facts {
		p := &facts[i].Peer
		if p.Kind == behavior.PeerOutside && f.Direction == behavior.Egress && p.Service == "" {
			p.Name, p.Service = asked, c.externalName(asked, self, f.Port)
		}
	}
	return facts
}

func (c *Cluster) resolve(f behavior.Fact, self name, at time.Time) []behavior.Fact {
	addr := f.Peer.Address.Unmap().WithZone("")
	f.Peer = behavior.Peer{Address: addr}
	service := ""
	if sp, ok := c.serviceAt(f.Via.Addr().Unmap().WithZone(""), f.Protocol, f.Via.Port()); ok && f.Direction == behavior.Egress {
		service, f.Via = sp.label(self), netip.AddrPort{}
	}
	if c.isSelf(addr, self) {
		f.Peer = behavior.Peer{Kind: behavior.PeerSelf}
		return []behavior.Fact{f}
	}
	if f.Direction == behavior.Egress {
		if facts := c.throughService(f, self, at); facts != nil {
			return facts
		}
		if c.index.api[netip.AddrPortFrom(addr, f.Port)] && f.Protocol == "tcp" {
			f.Peer.Kind, f.Peer.Service = behavior.PeerAPIServer, behavior.Escape(service)
			return []behavior.Fact{f}
		}
	}
	f.Peer = c.direct(addr, self, at, service)
	return []behavior.Fact{f}
}

func (c *Cluster) isSelf(addr netip.Addr, self name) bool {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	p := c.pods[self]
	return p != nil && !p.Spec.HostNetwork && slices.Contains(p.addresses(), addr)
}

// direct tells who an address is by itself, whatever the port.
func (c *Cluster) direct(addr netip.Addr, self name, at time.Time, service string) behavior.Peer {
	if key, ok := c.holder(addr, at); ok {
		if key == self {
			return behavior.Peer{Kind: behavior.PeerSelf}
		}
		return c.workloadPeer(c.pods[key], service)
	}
	peer := behavior.Peer{Address: addr, Service: behavior.Escape(service)}
	node, isNode := c.index.nodes[addr]
	switch p := c.pods[self]; {
	case isNode && p != nil && node != "" && p.Spec.NodeName == node:
		// Without its address, so that the fact is the same on every node.
		return behavior.Peer{Kind: behavior.PeerOwnNode, Service: peer.Service}
	case isNode:
		peer.Kind = behavior.PeerNode
	case c.index.apiHost[addr]:
		peer.Kind = behavior.PeerAPIServer
	case slices.ContainsFunc(c.index.podRanges, func(p netip.Prefix) bool { return p.Contains(addr) }):
	case c.index.linkLocal(addr):
		peer.Kind = behavior.PeerLinkLocal
	default:
		if _, ok := c.index.serviceIP[addr]; !ok {
			peer.Kind = behavior.PeerOutside
		}
	}
	return peer
}

// build derives the index from the objects.
func (c *Cluster) build() *index {
	x := &index{
		frontends: map[frontend]servicePort{}, serviceIP: map[netip.Addr]name{}, nodePorts: map[frontend]servicePort{},
		nodes: map[netip.Addr]string{}, api: map[netip.AddrPort]bool{}, apiHost: map[netip.Addr]bool{},
		backends: map[name][]*EndpointSlice{}, metadata: metadata(),
	}
	for _, n := range c.nodes {
		x.addNode(n)
	}
	for _, n := range c.ciliumNodes {
		for _, a := range n.Spec.Addresses {
			if addr, err := netip.ParseAddr(a.IP); err == nil {
				x.nodes[addr.Unmap()] = n.Meta.Name
			}
		}
	}
	for _, p := range c.pods {
		for _, ip := range append([]IP{{p.Status.HostIP}}, p.Status.HostIPs...) {
			if a, err := netip.ParseAddr(ip.IP); err == nil {
				x.nodes[a.Unmap()] = p.Spec.NodeName
			}
		}
	}
	for _, s := range c.slices {
		x.backends[s.service()] = append(x.backends[s.service()], &s)
	}
	for key, s := range c.services {
		x.addService(key, s)
	}
	for _, b := range c.apiServer() {
		x.api[b] = true
		x.apiHost[b.Addr()] = true
	}
	x.narrow = c.narrow()
	return x
}

// nodeAnnotations are those by which networks tell from which addresses a node
// speaks to pods: Calico's tunnels and Cilium's host device, as their sources have
// them.
func nodeAnnotations() []string {
	return []string{
		"projectcalico.org/IPv4IPIPTunnelAddr", "projectcalico.org/IPv4VXLANTunnelAddr", "projectcalico.org/IPv6VXLANTunnelAddr",
		"projectcalico.org/IPv4WireguardInterfaceAddr", "projectcalico.org/IPv6WireguardInterfaceAddr",
		"network.cilium.io/ipv4-cilium-host", "network.cilium.io/ipv6-cilium-host",
	}
}

func (x *index) addNode(n Node) {
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			x.nodes[addr.Unmap()] = n.Meta.Name
		}
	}
	for _, key := range nodeAnnotations() {
		value, _, _ := strings.Cut(n.Meta.Annotations[key], "/") // with or without its prefix's length
		if addr, err := netip.ParseAddr(value); err == nil {
			x.nodes[addr.Unmap()] = n.Meta.Name
		}
	}
	for _, cidr := range append([]string{n.Spec.PodCIDR}, n.Spec.PodCIDRs...) {
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			continue
		}
		p = p.Masked()
		x.podRanges = append(x.podRanges, p)
		// The node speaks to its own pods from its bridge, and to others' from
		// its tunnel: the first two addresses of its range.
		for _, a := range []netip.Addr{p.Addr(), p.Addr().Next()} {
			if p.Contains(a) {
				x.nodes[a] = n.Meta.Name
			}
		}
	}
}

func (x *index) addService(key name, s Service) {
	var addrs []string
	addrs = append(addrs, s.Spec.ClusterIP)
	addrs = append(addrs, s.Spec.ClusterIPs...)
	addrs = append(addrs, s.Spec.ExternalIPs...)
	for _, i := range s.Status.LoadBalancer.Ingress {
		addrs = append(addrs, i.IP)
	}
	for _, text := range addrs {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			continue // "None" of a headless Service, or not given yet
		}
		addr = addr.Unmap()
		x.serviceIP[addr] = key
		for _, p := range s.Spec.Ports {
			x.frontends[frontend{addr, protocol(p.Protocol), p.Port}] = servicePort{key, p}
		}
	}
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			x.nodePorts[frontend{netip.Addr{}, protocol(p.Protocol), p.NodePort}] = servicePort{key, p}
		}
	}
}
