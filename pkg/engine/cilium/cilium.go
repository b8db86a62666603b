// Package cilium renders CiliumNetworkPolicies at layers 3 and 4, and judges
// facts by whatever Cilium policies it is given, as Cilium's own policy engine
// would (tests/oracle holds it to that).
//
// It never opens an address range wider than one address, never allows a peer
// that nobody could name, and never calls denied what it cannot know: the labels
// of pods beside their stable ones, the names of outside addresses and what is
// inside a connection are unknown to it.
package cilium

import (
	"encoding/json"
	"fmt"

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
	// read it, which toFQDNs rules need.
	InspectDNS bool
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
	for _, g := range e.group(flows) {
		switch g.direction {
		case behavior.Ingress:
			r.Ingress = append(r.Ingress, g.ingress())
		default:
			r.Egress = append(r.Egress, g.egress())
		}
		if len(g.entities) == 2 {
			note("%s of nodes is allowed for every node of the cluster, since Cilium does not tell them apart by address", g.direction)
		}
	}
	if r.Ingress == nil {
		r.Ingress = []ingressRule{{}}
		note("no ingress was observed, so all ingress is refused")
	}
	if r.Egress == nil {
		r.Egress = []egressRule{{}}
		note("no egress was observed, so all egress is refused")
	}
	base, err := marshal(s.Workload, r)
	if err != nil {
		return engine.Rendered{}, err
	}
	out.Base = base
	return finish(), nil
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
func (*Engine) Parse(objects []engine.Object) (engine.Judge, error) {
	j := &judge{}
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
