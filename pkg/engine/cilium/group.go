package cilium

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// group is one rule to be: peers of one sort with the ports that they share.
type group struct {
	direction behavior.Direction
	endpoint  *engine.Selector
	entities  []string
	cidrs     []string
	ports     []engine.Port
	dns       bool // have Cilium's proxy read what is asked
}

// group makes a rule of each workload, one of the API server, one of all nodes,
// and one of all outside addresses with the same ports. Flows come in order.
func (e *Engine) group(flows []engine.Flow) []group {
	var groups []group
	byEntity := map[string]int{}
	byPorts := map[string]int{}
	for _, f := range flows {
		g := group{direction: f.Direction, ports: f.Ports}
		switch f.Peer.Kind {
		case behavior.PeerWorkload:
			labels, _ := behavior.ParseLabels(f.Peer.Labels) // engine.Flows passes no others
			sel := prefixed(labels)
			sel["k8s:"+namespaceLabel] = f.Peer.Namespace
			g.endpoint = &engine.Selector{MatchLabels: sel}
			g.dns = e.options.InspectDNS && f.Direction == behavior.Egress && slices.Contains(f.Ports, engine.Port{Protocol: "udp", Number: 53})
		case behavior.PeerOutside:
			key := string(f.Direction) + portsKey(f.Ports)
			cidr := f.Peer.Address.String() + "/" + strconv.Itoa(f.Peer.Address.BitLen())
			if i, ok := byPorts[key]; ok {
				groups[i].cidrs = append(groups[i].cidrs, cidr)
				continue
			}
			byPorts[key] = len(groups)
			g.cidrs = []string{cidr}
		default:
			key := string(f.Direction) + string(f.Peer.Kind)
			if i, ok := byEntity[key]; ok {
				groups[i].ports = union(groups[i].ports, f.Ports)
				continue
			}
			byEntity[key] = len(groups)
			g.entities = []string{"kube-apiserver"}
			switch f.Peer.Kind {
			case behavior.PeerOwnNode:
				g.entities = []string{"host"}
			case behavior.PeerNode:
				g.entities = []string{"host", "remote-node"}
			}
		}
		groups = append(groups, g)
	}
	return groups
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

func portsKey(ports []engine.Port) string {
	var b strings.Builder
	for _, p := range ports {
		b.WriteString("," + p.Protocol + strconv.Itoa(int(p.Number)))
	}
	return b.String()
}

func (g group) ingress() ingressRule {
	r := ingressRule{FromEntities: g.entities, FromCIDR: g.cidrs, common: common{ToPorts: g.toPorts()}}
	if g.endpoint != nil {
		r.FromEndpoints = []engine.Selector{*g.endpoint}
	}
	return r
}

func (g group) egress() egressRule {
	r := egressRule{ToEntities: g.entities, ToCIDR: g.cidrs, common: common{ToPorts: g.toPorts()}}
	if g.endpoint != nil {
		r.ToEndpoints = []engine.Selector{*g.endpoint}
	}
	return r
}

func (g group) toPorts() []portRule {
	var list []portRule
	var dns portRule
	for _, p := range g.ports {
		q := port{Port: strconv.Itoa(int(p.Number)), Protocol: strings.ToUpper(p.Protocol)}
		if g.dns && p.Number == 53 {
			dns.Ports = append(dns.Ports, q)
			continue
		}
		if len(list) == 0 || len(list[len(list)-1].Ports) == maxPorts {
			list = append(list, portRule{})
		}
		last := &list[len(list)-1]
		last.Ports = append(last.Ports, q)
	}
	if dns.Ports != nil {
		dns.Rules = map[string][]json.RawMessage{"dns": {json.RawMessage(`{"matchPattern":"*"}`)}}
		list = append([]portRule{dns}, list...)
	}
	return list
}
