package netpol

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

type judge struct {
	policies []parsed
	index    engine.Index // of their podSelectors
}

// parsed is one policy object.
type parsed struct {
	object          string // kind/name, escaped
	namespace       string // of the object; empty: that of whoever is judged
	spec            spec
	ingress, egress []rules
}

func (p parsed) rules(ingress bool) []rules {
	if ingress {
		return p.ingress
	}
	return p.egress
}

// other is the peer of a fact with the labels of its pods.
type other struct {
	behavior.Peer
	labels map[string]string
}

// Judge implements engine.Judge. A NetworkPolicy does not judge listening, nor
// what stays within the pod. A pod is always open to its own node, which a fact
// does not tell from other nodes.
func (j *judge) Judge(s engine.Subject, f behavior.Fact) engine.Verdict {
	if f.Kind != behavior.Network || f.Peer.Kind == behavior.PeerSelf ||
		f.Direction != behavior.Ingress && f.Direction != behavior.Egress ||
		!slices.Contains([]string{"tcp", "udp", "sctp", "icmp", "icmpv6"}, f.Protocol) {
		return engine.Verdict{}
	}
	var ballot engine.Ballot
	ingress := f.Direction == behavior.Ingress
	peer := other{Peer: f.Peer}
	if labels, err := behavior.ParseLabels(f.Peer.Labels); err == nil {
		peer.labels = labels
	}
	lookup := engine.StableLabels(s.Labels)
	for _, i := range j.index.Candidates(lookup) {
		p := &j.policies[i]
		if !p.spec.isolates(ingress) || p.namespace != "" && p.namespace != s.Workload.Namespace {
			continue
		}
		applies := p.spec.PodSelector.Ask(lookup, "the workload's pods")
		if applies.Truth == engine.No {
			continue
		}
		ballot.Govern(p.object, applies)
		ballot.Isolate(p.object, applies)
		for _, r := range p.rules(ingress) {
			ballot.Allow(p.object, applies.And(r.admits(s.Workload.Namespace, peer)).And(r.passes(f)))
		}
		if f.Peer.Kind == behavior.PeerOwnNode {
			// Traffic to and from the node where a pod is running is always
			// allowed: Kubernetes, concepts, Network Policies.
			ballot.Allow(p.object, applies)
		}
		if ingress && f.Peer.Kind == behavior.PeerNode {
			ballot.Allow(p.object, applies.And(engine.Unsure("whether that is the pod's own node")))
		}
	}
	return ballot.Verdict()
}

// admits tells whether the rule's peers include the fact's. Namespace is the
// policy's.
func (r rules) admits(namespace string, p other) engine.Answer {
	if len(r.peers) == 0 {
		return engine.Certain(true)
	}
	any := engine.Certain(false)
	for _, q := range r.peers {
		any = any.Or(q.includes(namespace, p))
	}
	return any
}

func (q peer) includes(namespace string, p other) engine.Answer {
	switch {
	case p.Kind == "":
		return engine.Unsure("who the peer is")
	case q.IPBlock != nil && p.Kind == behavior.PeerWorkload:
		return engine.Unsure("whether the network plugin counts pods to ipBlocks")
	case q.IPBlock != nil:
		return q.IPBlock.contains(p.Address)
	case p.Kind != behavior.PeerWorkload:
		return engine.Certain(false) // nodes and addresses outside are no pods
	}
	a := engine.Certain(p.Namespace == namespace)
	if q.NamespaceSelector != nil {
		a = q.NamespaceSelector.Ask(func(key string) (string, engine.Truth) {
			if key == namespaceName {
				return p.Namespace, engine.Yes
			}
			return "", engine.Maybe
		}, "namespace "+p.Namespace)
	}
	if q.PodSelector != nil {
		a = a.And(q.PodSelector.Ask(engine.StableLabels(p.labels), "the peer's pods"))
	}
	return a
}

func (b *ipBlock) contains(addr netip.Addr) engine.Answer {
	in := func(cidr string) bool {
		p, err := netip.ParsePrefix(cidr)
		return err == nil && p.Contains(addr.Unmap())
	}
	return engine.Certain(in(b.CIDR) && !slices.ContainsFunc(b.Except, in))
}

// passes tells whether the rule's ports include the fact's.
func (r rules) passes(f behavior.Fact) engine.Answer {
	if strings.HasPrefix(f.Protocol, "icmp") {
		return engine.Unsure("what the network plugin makes of ICMP")
	}
	if len(r.ports) == 0 {
		return engine.Certain(true)
	}
	any := engine.Certain(false)
	for _, p := range r.ports {
		any = any.Or(p.includes(f))
	}
	return any
}

func (p port) includes(f behavior.Fact) engine.Answer {
	protocol := strings.ToLower(p.Protocol)
	if protocol == "" {
		protocol = "tcp"
	}
	switch {
	case protocol != f.Protocol:
		return engine.Certain(false)
	case p.Port.name != "":
		return engine.Unsure("the number of port %s", p.Port.name)
	case p.Port.number == 0 || p.Port.number == f.Port:
		return engine.Certain(true)
	}
	return engine.Certain(p.EndPort != nil && f.Port > p.Port.number && int32(f.Port) <= *p.EndPort)
}
