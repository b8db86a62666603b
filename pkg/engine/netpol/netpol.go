// Package netpol renders Kubernetes NetworkPolicies, and judges facts by
// whatever NetworkPolicies it is given, as the API defines them.
//
// It never opens more addresses than the rules that it is given, never allows a peer
// that nobody could name, and never calls denied what it cannot know: labels of
// namespaces, the numbers of named ports, and whether a network plugin counts
// pods among addresses. What the API cannot say it notes.
package netpol

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Name is the engine's name.
const Name = "networkpolicy"

const (
	apiVersion    = "networking.k8s.io/v1"
	kind          = "NetworkPolicy"
	namespaceName = "kubernetes.io/metadata.name" // the label that every namespace has
)

// Engine is the NetworkPolicy engine.
type Engine struct{}

// New returns the engine.
func New() *Engine { return &Engine{} }

// Name implements engine.Engine.
func (*Engine) Name() string { return Name }

// Render implements engine.Engine. The policy is of both types, so that a
// direction in which nothing was seen is refused; a note says so.
func (*Engine) Render(s policy.Set) (engine.Rendered, error) {
	flows, notes := engine.Flows(s)
	var out engine.Rendered
	note := func(format string, args ...any) {
		notes = append(notes, policy.Note{Text: fmt.Sprintf(format, args...)})
	}
	finish := func() engine.Rendered {
		for _, n := range notes {
			n.Engine = Name
			out.Notes = append(out.Notes, n)
		}
		return out
	}
	if len(flows) == 0 {
		return finish(), engine.ErrNoEvidence
	}
	flows = sayable(flows, note)
	if len(s.Labels) == 0 || !engine.ValidLabels(s.Labels) {
		note("no policy for %s: its pods have no lasting labels to select them by", behavior.Escape(s.Workload.String()))
		return finish(), nil
	}
	doc := document{APIVersion: apiVersion, Kind: kind}
	doc.Metadata.Name, doc.Metadata.Namespace = "autopolicy-"+s.Workload.Slug(), s.Workload.Namespace
	doc.Spec = spec{
		PodSelector: engine.Selector{MatchLabels: s.Labels},
		PolicyTypes: []string{"Ingress", "Egress"},
	}
	for _, g := range group(flows, behavior.Ingress) {
		doc.Spec.Ingress = append(doc.Spec.Ingress, ingressRule{From: g.peers, Ports: g.ports})
	}
	for _, g := range group(flows, behavior.Egress) {
		doc.Spec.Egress = append(doc.Spec.Egress, egressRule{To: g.peers, Ports: g.ports})
	}
	own := func(d behavior.Direction) bool {
		return slices.ContainsFunc(flows, func(f engine.Flow) bool { return f.Direction == d && f.Peer.Kind == behavior.PeerOwnNode })
	}
	for i, d := range []behavior.Direction{behavior.Ingress, behavior.Egress} {
		some := doc.Spec.Ingress != nil
		if d == behavior.Egress {
			some = doc.Spec.Egress != nil
		}
		switch {
		case some || own(d):
		case engine.Talked(s, d):
			note("%s is not restricted: nothing of what was seen can be expressed", d)
			doc.Spec.PolicyTypes = slices.DeleteFunc(doc.Spec.PolicyTypes, func(t string) bool { return t == []string{"Ingress", "Egress"}[i] })
		default:
			note("no %s was observed, so all %s is refused", d, d)
		}
	}
	if len(doc.Spec.PolicyTypes) == 0 {
		return finish(), nil
	}
	if own(behavior.Egress) {
		note("egress to the pod's own node has no rule: Kubernetes says that it is always allowed, but some network plugins refuse it")
	}
	has := func(k behavior.PeerKind) bool {
		return slices.ContainsFunc(flows, func(f engine.Flow) bool { return f.Peer.Kind == k })
	}
	if has(behavior.PeerNode) {
		note("nodes are allowed by the addresses that were seen: a node that joins later is not, and a network plugin may not count nodes to ipBlocks")
	}
	if has(behavior.PeerAPIServer) {
		note("the API server is allowed by its addresses of now: it is refused when they change, and a network plugin may not count nodes to ipBlocks")
	}
	data, err := yaml.Marshal(doc)
	if err != nil {
		return engine.Rendered{}, fmt.Errorf("write %s for %s: %w", kind, s.Workload, err)
	}
	out.Base = data
	return finish(), nil
}

// sayable leaves out what a NetworkPolicy cannot say, and says so.
func sayable(flows []engine.Flow, note func(string, ...any)) []engine.Flow {
	var list []engine.Flow
	requests := false
	for _, f := range flows {
		requests = requests || len(f.Requests) > 0
		if f.Peer.Name != "" {
			note("a NetworkPolicy knows no names, and the addresses of %s may be another's tomorrow: every public address is allowed on its ports", f.Peer.Name)
			if private := slices.DeleteFunc(slices.Clone(f.Seen), public); len(private) > 0 {
				note("%s led to %v, which is no public address and is allowed as it is now", f.Peer.Name, private)
			}
		}
		ports := slices.DeleteFunc(slices.Clone(f.Ports), func(p engine.Port) bool { return engine.IsICMP(p.Protocol) })
		if len(ports) < len(f.Ports) {
			note("left out: ICMP, %s; what a NetworkPolicy does to it hangs on the network plugin", f.Direction)
		}
		if f.Ports = ports; len(ports) > 0 {
			list = append(list, f)
		}
	}
	if requests {
		note("HTTP requests are not restricted: a NetworkPolicy ends at ports")
	}
	if slices.ContainsFunc(flows, func(f engine.Flow) bool { return len(f.Names) > 0 }) {
		note("names that are asked for are not restricted: a NetworkPolicy ends at ports")
	}
	return list
}

// rules is one rule to be.
type rules struct {
	peers []peer
	ports []port
}

// group makes a rule of each workload, and one of all addresses with the same
// ports. Flows come in order.
func group(flows []engine.Flow, d behavior.Direction) []rules {
	var groups []rules
	byPorts := map[string]int{}
	for _, f := range flows {
		if f.Direction != d || f.Peer.Kind == behavior.PeerOwnNode {
			continue // the pod's own node needs no rule: it is always allowed
		}
		var ports []port
		var key strings.Builder
		for _, p := range f.Ports {
			ports = append(ports, port{Protocol: strings.ToUpper(p.Protocol), Port: nameOrNumber{number: p.Number}})
			fmt.Fprintf(&key, ",%s%d", p.Protocol, p.Number)
		}
		if f.Peer.Kind == behavior.PeerWorkload {
			labels, _ := behavior.ParseLabels(f.Peer.Labels) // engine.Flows passes no others
			groups = append(groups, rules{ports: ports, peers: []peer{{
				NamespaceSelector: &engine.Selector{MatchLabels: map[string]string{namespaceName: f.Peer.Namespace}},
				PodSelector:       &engine.Selector{MatchLabels: labels},
			}}})
			continue
		}
		i, ok := byPorts[key.String()]
		if !ok {
			i = len(groups)
			byPorts[key.String()] = i
			groups = append(groups, rules{ports: ports})
		}
		for _, block := range blocks(f) {
			if !slices.ContainsFunc(groups[i].peers, func(p peer) bool { return p.IPBlock.CIDR == block.CIDR }) {
				groups[i].peers = append(groups[i].peers, peer{IPBlock: &block})
			}
		}
	}
	return groups
}

// blocks are the addresses of a peer. For a name they are all public ones of the
// families that it led to, since the next answer may be any.
func blocks(f engine.Flow) []ipBlock {
	if f.Peer.Name == "" {
		return []ipBlock{{CIDR: cidr(f.Peer)}}
	}
	var list []ipBlock
	for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		if len(f.Seen) > 0 && !slices.ContainsFunc(f.Seen, func(a netip.Addr) bool { return public(a) && all.Contains(a) }) {
			continue
		}
		block := ipBlock{CIDR: all.String()}
		for _, p := range policy.Reserved() {
			if all.Contains(p.Addr()) {
				block.Except = append(block.Except, p.String())
			}
		}
		list = append(list, block)
	}
	for _, a := range f.Seen {
		if !public(a) {
			list = append(list, ipBlock{CIDR: netip.PrefixFrom(a, a.BitLen()).String()})
		}
	}
	return list
}

func public(a netip.Addr) bool {
	return !slices.ContainsFunc(policy.Reserved(), func(p netip.Prefix) bool { return p.Contains(a) })
}

func cidr(p engine.Peer) string {
	if p.Prefix.IsValid() {
		return p.Prefix.String()
	}
	return netip.PrefixFrom(p.Address, p.Address.BitLen()).String()
}

// Parse implements engine.Engine.
func (*Engine) Parse(objects []engine.Object) (engine.Judge, error) {
	j := &judge{}
	for _, o := range objects {
		if o.File != "" || o.APIVersion != apiVersion || o.Kind != kind {
			continue
		}
		name := behavior.Escape(o.Kind + "/" + o.Name)
		s, err := parse(o)
		if err != nil {
			return nil, &engine.InvalidError{Object: name, Reason: behavior.Escape(err.Error())}
		}
		j.index.Add(len(j.policies), s.PodSelector)
		j.policies = append(j.policies, parsed{name, o.Namespace, s, s.rules(true), s.rules(false)})
	}
	return j, nil
}

func parse(o engine.Object) (spec, error) {
	var doc struct {
		Spec json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(o.JSON, &doc); err != nil {
		return spec{}, fmt.Errorf("decode: %w", err)
	}
	if doc.Spec == nil {
		return spec{}, fmt.Errorf("no spec")
	}
	return decodeSpec(doc.Spec)
}
