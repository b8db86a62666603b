// Package cilium renders CiliumNetworkPolicies, and judges facts by whatever
// Cilium policies it is given, as Cilium's own policy engine would (tests/oracle
// holds it to that).
//
// It never opens more addresses than the rules that it is given, never allows a
// peer that nobody could name, and never calls denied what it cannot know: the
// labels of pods beside their stable ones, the names of an address that nobody
// asked for, and what is inside a connection of which only the connection was
// seen.
package cilium

import (
	"encoding/json"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Name is the engine's name.
const Name = "cilium"

const (
	apiVersion  = "cilium.io/v2"
	kind        = "CiliumNetworkPolicy"
	clusterKind = "CiliumClusterwideNetworkPolicy"

	namespaceLabel       = "io.kubernetes.pod.namespace"
	namespaceLabelPrefix = "io.cilium.k8s.namespace.labels."
	maxPorts             = 40 // of one toPorts element
)

// Options change what Render makes.
type Options struct {
	// InspectDNS adds to each rule about DNS the rule that makes Cilium's proxy
	// read it, also where no rule by name needs that and no names are known.
	InspectDNS bool
	// MutualAuth asks of pods that they prove who they are, by the SPIFFE identity
	// that Cilium gives each. Without that in the cluster it stops all traffic.
	MutualAuth bool
}

// Engine is the Cilium engine.
type Engine struct{ options Options }

// New returns the engine.
func New(o Options) *Engine { return &Engine{o} }

// Name implements engine.Engine.
func (*Engine) Name() string { return Name }

// Render implements engine.Engine. The policy has rules for both directions, so
// that both are refused by default: a direction in which nothing was seen gets
// the one empty rule with which Cilium allows nothing, and a note says so.
func (e *Engine) Render(s policy.Set) (engine.Rendered, error) {
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
	if len(s.Labels) == 0 || !engine.ValidLabels(s.Labels) {
		note("no policy for %s: its pods have no lasting labels to select them by", behavior.Escape(s.Workload.String()))
		return finish(), nil
	}
	r := rule{
		Description:      "Learned from what " + behavior.Escape(s.Workload.String()) + " was seen to do.",
		EndpointSelector: &engine.Selector{MatchLabels: prefixed(s.Labels)},
	}
	for _, g := range e.group(withoutNames(flows, note)) {
		switch g.direction {
		case behavior.Ingress:
			r.Ingress = append(r.Ingress, g.ingress()...)
		default:
			r.Egress = append(r.Egress, g.egress()...)
		}
		g.explain(note)
	}
	for _, d := range []behavior.Direction{behavior.Ingress, behavior.Egress} {
		some := len(r.Ingress) > 0
		if d == behavior.Egress {
			some = len(r.Egress) > 0
		}
		switch {
		case some:
		case engine.Talked(s, d):
			note("%s is not restricted: nothing of what was seen can be expressed", d)
		case d == behavior.Ingress:
			r.Ingress = []ingressRule{{}}
			note("no ingress was observed, so all ingress is refused")
		default:
			r.Egress = []egressRule{{}}
			note("no egress was observed, so all egress is refused")
		}
	}
	base, err := marshal(s.Workload, r)
	if err != nil {
		return engine.Rendered{}, err
	}
	out.Base = base
	return finish(), nil
}

// withoutNames turns peers told by a name into the addresses that it led to where
// no DNS server was seen: Cilium learns a name's addresses from what it sees asked.
func withoutNames(flows []engine.Flow, note func(string, ...any)) []engine.Flow {
	if slices.ContainsFunc(flows, func(f engine.Flow) bool { return len(f.DNS) > 0 }) {
		return flows
	}
	var list []engine.Flow
	for _, f := range flows {
		if f.Peer.Name == "" {
			list = append(list, f)
			continue
		}
		note("%s is allowed by the addresses that it had: no DNS server was seen of which Cilium could learn others", f.Peer.Name)
		for _, a := range f.Seen {
			by := f
			by.Peer = engine.Peer{Kind: f.Peer.Kind, Address: a}
			list = append(list, by)
		}
	}
	return list
}

// explain notes what people would not expect of a rule.
func (g group) explain(note func(string, ...any)) {
	if len(g.peers.entities) == 2 {
		note("%s of nodes is allowed for every node of the cluster, since Cilium does not tell them apart by address", g.direction)
	}
	if len(g.echo) > 0 {
		note("of ICMP, echo requests are allowed")
	}
	if len(g.dns) > 0 && len(g.names) == 0 {
		note("names that were asked for are not known, so any may be")
	}
	if len(g.dns) > 0 && len(g.names) > maxNames {
		note("%d names were asked for, more than %d, so any may be", len(g.names), maxNames)
	}
	for _, p := range g.ports {
		out := 0
		for _, r := range g.requests[p] {
			if _, ok := httpOf(r); !ok {
				out++
			}
		}
		switch {
		case out > 0 && out == len(g.requests[p]):
			note("requests on %s/%d are not restricted: no expression can carry them", p.Protocol, p.Number)
		case out > 0:
			note("%d kinds of requests on %s/%d are left out: no expression can carry them", out, p.Protocol, p.Number)
		}
	}
}

func marshal(w behavior.Workload, r rule) ([]byte, error) {
	var doc struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
		Spec rule `json:"spec"`
	}
	doc.APIVersion, doc.Kind, doc.Spec = apiVersion, kind, r
	doc.Metadata.Name, doc.Metadata.Namespace = "autopolicy-"+w.Slug(), w.Namespace
	data, err := yaml.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write %s for %s: %w", kind, w, err)
	}
	return data, nil
}

// Parse implements engine.Engine. It takes cluster-wide policies, too.
func (e *Engine) Parse(objects []engine.Object) (engine.Judge, error) {
	j := &judge{mutual: e.options.MutualAuth}
	for _, o := range objects {
		if o.File != "" || o.APIVersion != apiVersion || o.Kind != kind && o.Kind != clusterKind {
			continue
		}
		p, err := parse(o)
		if err != nil {
			return nil, &engine.InvalidError{Object: behavior.Escape(o.Kind + "/" + o.Name), Reason: behavior.Escape(err.Error())}
		}
		for _, r := range p.rules {
			j.add(p, r)
		}
	}
	return j, nil
}

// parsed is one policy object.
type parsed struct {
	object      string // kind/name, escaped
	namespace   string // of the object; empty: that of whoever is judged
	clusterwide bool
	rules       []rule
}

func parse(o engine.Object) (parsed, error) {
	p := parsed{object: behavior.Escape(o.Kind + "/" + o.Name), namespace: o.Namespace, clusterwide: o.Kind == clusterKind}
	var doc struct {
		Spec  json.RawMessage   `json:"spec"`
		Specs []json.RawMessage `json:"specs"`
	}
	if err := json.Unmarshal(o.JSON, &doc); err != nil {
		return p, fmt.Errorf("decode: %w", err)
	}
	raws := doc.Specs
	if doc.Spec != nil && string(doc.Spec) != "null" {
		raws = append([]json.RawMessage{doc.Spec}, raws...)
	}
	if raws == nil {
		return p, fmt.Errorf("neither spec nor specs")
	}
	for _, raw := range raws {
		r, err := decodeRule(raw)
		if err != nil {
			return p, err
		}
		if err := r.validate(p.clusterwide); err != nil {
			return p, err
		}
		p.rules = append(p.rules, r)
	}
	return p, nil
}
