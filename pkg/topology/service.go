package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// throughService resolves a fact whose address and port are a Service's: the
// facts are about the pods behind it. It returns nil when they are not.
func (c *Cluster) throughService(f behavior.Fact, self name, at time.Time) []behavior.Fact {
	sp, ok := c.serviceAt(f.Peer.Address, f.Protocol, f.Port)
	if !ok {
		return nil
	}
	label := sp.label(self)
	var facts []behavior.Fact
	for _, b := range c.backendsOf(sp) {
		g := f
		g.Port = b.port
		switch {
		case sp.service.isAPIServer():
			g.Peer = behavior.Peer{Kind: behavior.PeerAPIServer, Address: b.addr, Service: label}
		case b.pod != nil && b.pod.Spec.HostNetwork:
			g.Peer = behavior.Peer{Kind: behavior.PeerNode, Address: b.addr, Service: label}
		case b.pod != nil:
			g.Peer = c.workloadPeer(b.pod, label)
		default:
			g.Peer = c.direct(b.addr, name{}, at, label)
		}
		if !slices.Contains(facts, g) {
			facts = append(facts, g)
		}
	}
	if facts == nil {
		f.Peer.Service = behavior.Escape(label)
		facts = []behavior.Fact{f}
	}
	slices.SortFunc(facts, behavior.Compare)
	return facts
}

// externalName labels the Service of type ExternalName that a name is of: what it
// leads to is what the name of somebody outside leads to. It is empty for any
// other name.
func (c *Cluster) externalName(asked string, self name, port uint16) string {
	parts := strings.SplitN(asked, ".", 4)
	if len(parts) < 3 || parts[2] != "svc" {
		return ""
	}
	key := name{parts[1], parts[0]}
	if s, ok := c.services[key]; !ok || s.Spec.Type != "ExternalName" {
		return ""
	}
	return behavior.Escape(servicePort{key, ServicePort{Port: port}}.label(self))
}

// serviceAt finds the Service that is reached at an address and port: its own, or
// a port that every node gives it.
func (c *Cluster) serviceAt(addr netip.Addr, protocol string, port uint16) (servicePort, bool) {
	sp, ok := c.index.frontends[frontend{addr, protocol, port}]
	if _, isNode := c.index.nodes[addr]; !ok && isNode {
		sp, ok = c.index.nodePorts[frontend{netip.Addr{}, protocol, port}]
	}
	return sp, ok
}

// label names the Service's port as a pod would: without its own namespace.
func (sp servicePort) label(self name) string {
	label := fmt.Sprintf("%s:%d", sp.service.name, sp.port.Port)
	if sp.service.namespace != self.namespace {
		label = sp.service.namespace + "/" + label
	}
	return label
}

// service is the Service whose endpoints the slice holds.
func (s EndpointSlice) service() name {
	return name{s.Meta.Namespace, s.Meta.Labels["kubernetes.io/service-name"]}
}

// apiServer lists the endpoints of the API server.
func (c *Cluster) apiServer() []netip.AddrPort {
	var list []netip.AddrPort
	for _, s := range c.slices {
		if !s.service().isAPIServer() {
			continue
		}
		for _, b := range c.endpoints(&s, nil) {
			list = append(list, netip.AddrPortFrom(b.addr, b.port))
		}
	}
	return list
}

// backend is one place that a Service's traffic goes to.
type backend struct {
	addr netip.Addr
	port uint16
	pod  *pod // nil when it is none that is known
}

// backendsOf lists where traffic to a Service's port goes: its endpoints, or,
// when no slice of them was handed in, the pods that it selects.
func (c *Cluster) backendsOf(sp servicePort) []backend {
	if list := c.index.backends[sp.service]; len(list) > 0 {
		var all []backend
		for _, s := range list {
			all = append(all, c.endpoints(s, &sp.port)...)
		}
		if len(all) > 0 {
			return all
		}
	}
	if len(c.services[sp.service].Spec.Selector) == 0 {
		return nil
	}
	var all []backend
	for key, p := range c.pods {
		if key.namespace != sp.service.namespace || p.gone || !covers(p.Meta.Labels, c.services[sp.service].Spec.Selector) {
			continue
		}
		port, ok := p.targetPort(sp.port)
		for _, addr := range p.addresses() {
			if ok {
				all = append(all, backend{addr, port, p})
			}
		}
	}
	return all
}

// endpoints lists the backends in a slice, of one port of the Service, or of all
// ports when that is nil.
func (c *Cluster) endpoints(s *EndpointSlice, want *ServicePort) []backend {
	var all []backend
	for _, port := range s.Ports {
		if want != nil && (port.Name != want.Name || protocol(port.Protocol) != protocol(want.Protocol)) {
			continue
		}
		for _, e := range s.Endpoints {
			var target *pod
			if e.Target != nil && e.Target.Kind == "Pod" {
				target = c.pods[name{e.Target.Namespace, e.Target.Name}]
			}
			for _, text := range e.Addresses {
				if addr, err := netip.ParseAddr(text); err == nil {
					all = append(all, backend{addr.Unmap(), port.Port, target})
				}
			}
		}
	}
	return all
}

// targetPort is the pod's own port behind a Service's.
func (p *pod) targetPort(sp ServicePort) (uint16, bool) {
	switch {
	case sp.TargetPort.Port != 0:
		return sp.TargetPort.Port, true
	case sp.TargetPort.Name == "":
		return sp.Port, true
	}
	for _, ct := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for _, port := range ct.Ports {
			if port.Name == sp.TargetPort.Name && protocol(port.Protocol) == protocol(sp.Protocol) {
				return port.Port, true
			}
		}
	}
	return 0, false
}
