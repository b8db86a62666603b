package cilium

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// identity is what Cilium may take a peer for, as far as a fact tells.
type identity struct {
	words string // who that is, for reasons

	// A pod has a namespace and the labels that are known of it.
	pod       bool
	namespace string
	labels    map[string]string

	reserved []string   // labels of the source reserved
	address  netip.Addr // of what is told by CIDR: the world, and an API server in it
	node     bool       // has the node's own labels where Cilium is set up so
	unknown  bool       // nobody knows who it is
}

// identities lists what a peer can be. Where Cilium's verdict differs between
// them, nobody can tell it from the fact.
func identities(p behavior.Peer) []identity {
	reserved := func(words string, labels ...string) identity {
		return identity{words: words, reserved: labels, node: labels[0] == "remote-node"}
	}
	world := func(words string, labels ...string) []identity {
		addr := p.Address.Unmap()
		family := "world-ipv6"
		if addr.Is4() {
			family = "world-ipv4"
		}
		single := identity{words: words + " in a cluster of one address family", reserved: append(labels, "world"), address: addr}
		dual := identity{words: words + " in a dual-stack cluster", reserved: append(labels, family), address: addr}
		return []identity{single, dual}
	}
	switch p.Kind {
	case behavior.PeerWorkload:
		labels, err := behavior.ParseLabels(p.Labels)
		if err != nil {
			labels = nil
		}
		return []identity{{words: "the peer's pods", pod: true, namespace: p.Namespace, labels: labels}}
	case behavior.PeerOwnNode:
		return []identity{
			reserved("the pod's own node", "host"),
			reserved("the pod's own node with the API server on it", "host", "kube-apiserver"),
		}
	case behavior.PeerNode:
		return []identity{
			reserved("the pod's own node", "host"), reserved("another node", "remote-node"),
			reserved("the pod's own node with the API server on it", "host", "kube-apiserver"),
			reserved("another node with the API server on it", "remote-node", "kube-apiserver"),
		}
	case behavior.PeerAPIServer:
		list := []identity{reserved("an API server on the pod's own node", "host", "kube-apiserver"),
			reserved("an API server on another node", "remote-node", "kube-apiserver")}
		return append(list, world("an API server outside the cluster", "kube-apiserver")...)
	case behavior.PeerOutside, behavior.PeerLinkLocal:
		return world(p.Address.String())
	}
	return []identity{{words: "the peer", unknown: true}}
}

// label looks up a label by its key in a selector: source:key, or just key for
// any source.
func (id identity) label(key string) (string, engine.Truth) {
	source, bare, ok := strings.Cut(key, ":")
	if !ok {
		source, bare = "any", key
	}
	if rest, ok := strings.CutPrefix(key, "$"); ok {
		source, bare = "reserved", rest
	}
	if id.unknown {
		return "", engine.Maybe
	}
	if (source == "reserved" || source == "any") && slices.Contains(id.reserved, bare) {
		return "", engine.Yes
	}
	if id.pod && (source == "k8s" || source == "any") {
		return id.podLabel(bare)
	}
	if id.address.IsValid() && source != "reserved" && source != "k8s" {
		return "", engine.Maybe // labels of CIDRs, groups and names
	}
	return "", engine.No
}

func (id identity) podLabel(key string) (string, engine.Truth) {
	if key == namespaceLabel || key == namespaceLabelPrefix+"kubernetes.io/metadata.name" {
		return id.namespace, engine.Yes
	}
	return engine.StableLabels(id.labels)(key)
}

// entity tells whether the identity is of an entity.
func (id identity) entity(name string) engine.Answer {
	if name == "all" {
		return engine.Certain(true)
	}
	if id.unknown {
		return engine.Unsure("who the peer is")
	}
	var of []string
	switch name {
	case "cluster", "cluster-mesh":
		if id.pod {
			return engine.Certain(true)
		}
		of = []string{"host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"}
	case "world":
		of = []string{"world", "world-ipv4", "world-ipv6"}
	default:
		of = []string{name}
	}
	return engine.Certain(slices.ContainsFunc(of, func(label string) bool { return slices.Contains(id.reserved, label) }))
}

// within tells whether the identity is in a range of addresses. Pods and nodes
// never are, whatever their address.
func (id identity) within(cidr string) engine.Answer {
	if id.unknown {
		return engine.Unsure("who the peer is")
	}
	prefix, err := parseCIDR(cidr)
	return engine.Certain(err == nil && id.address.IsValid() && prefix.Contains(id.address))
}
