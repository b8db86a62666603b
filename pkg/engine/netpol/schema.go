package netpol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// The types below are those of the API, in its JSON.

type document struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec spec `json:"spec"`
}

type spec struct {
	PodSelector engine.Selector `json:"podSelector"`
	PolicyTypes []string        `json:"policyTypes,omitempty"`
	Ingress     []ingressRule   `json:"ingress,omitempty"`
	Egress      []egressRule    `json:"egress,omitempty"`
}

type ingressRule struct {
	From  []peer `json:"from,omitempty"`
	Ports []port `json:"ports,omitempty"`
}

type egressRule struct {
	To    []peer `json:"to,omitempty"`
	Ports []port `json:"ports,omitempty"`
}

type peer struct {
	PodSelector       *engine.Selector `json:"podSelector,omitempty"`
	NamespaceSelector *engine.Selector `json:"namespaceSelector,omitempty"`
	IPBlock           *ipBlock         `json:"ipBlock,omitempty"`
}

type ipBlock struct {
	CIDR   string   `json:"cidr"`
	Except []string `json:"except,omitempty"`
}

type port struct {
	Protocol string       `json:"protocol,omitempty"`
	Port     nameOrNumber `json:"port,omitzero"` // none: every port
	EndPort  *int32       `json:"endPort,omitempty"`
}

type nameOrNumber struct {
	name   string
	number uint16
}

func (p *nameOrNumber) UnmarshalJSON(data []byte) error {
	*p = nameOrNumber{}
	if string(data) == "null" {
		return nil
	}
	if data[0] == '"' {
		if err := json.Unmarshal(data, &p.name); err != nil {
			return err
		}
		if !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`).MatchString(p.name) || len(p.name) > 15 || !regexp.MustCompile(`[a-z]`).MatchString(p.name) {
			return fmt.Errorf("port name %q", p.name)
		}
		return nil
	}
	if err := json.Unmarshal(data, &p.number); err != nil {
		return err
	}
	if p.number == 0 {
		return errors.New("port 0")
	}
	return nil
}

func (p nameOrNumber) MarshalJSON() ([]byte, error) {
	if p.name != "" {
		return json.Marshal(p.name)
	}
	return strconv.AppendUint(nil, uint64(p.number), 10), nil
}

// decodeSpec refuses what the API server refuses, and fields that it would drop.
func decodeSpec(raw []byte) (spec, error) {
	var s spec
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("decode spec: %w", err)
	}
	if err := validSelector(&s.PodSelector); err != nil {
		return s, err
	}
	for _, t := range s.PolicyTypes {
		if t != "Ingress" && t != "Egress" {
			return s, fmt.Errorf("policy type %q", t)
		}
	}
	if len(s.PolicyTypes) > 2 {
		return s, errors.New("more than two policy types")
	}
	for _, r := range slices.Concat(s.rules(true), s.rules(false)) {
		if err := r.validate(); err != nil {
			return s, err
		}
	}
	return s, nil
}

// rules lists the rules of one direction.
func (s spec) rules(ingress bool) []rules {
	var list []rules
	if ingress {
		for _, r := range s.Ingress {
			list = append(list, rules{r.From, r.Ports})
		}
		return list
	}
	for _, r := range s.Egress {
		list = append(list, rules{r.To, r.Ports})
	}
	return list
}

// isolates tells whether the policy makes its pods refuse what no rule allows in
// that direction.
func (s spec) isolates(ingress bool) bool {
	switch {
	case len(s.PolicyTypes) == 0:
		return ingress || len(s.Egress) > 0
	case ingress:
		return slices.Contains(s.PolicyTypes, "Ingress")
	}
	return slices.Contains(s.PolicyTypes, "Egress")
}

func (r rules) validate() error {
	for _, p := range r.peers {
		if err := p.validate(); err != nil {
			return err
		}
	}
	for _, p := range r.ports {
		if !slices.Contains([]string{"", "TCP", "UDP", "SCTP"}, p.Protocol) {
			return fmt.Errorf("protocol %q", p.Protocol)
		}
		if e := p.EndPort; e != nil && (p.Port.number == 0 || *e < int32(p.Port.number) || *e > 65535) {
			return fmt.Errorf("endPort %d without a port number that is at most that", *e)
		}
	}
	return nil
}

func (p peer) validate() error {
	if p.IPBlock == nil && p.PodSelector == nil && p.NamespaceSelector == nil {
		return errors.New("peer without podSelector, namespaceSelector or ipBlock")
	}
	if p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil) {
		return errors.New("peer with both ipBlock and a selector")
	}
	for _, s := range []*engine.Selector{p.PodSelector, p.NamespaceSelector} {
		if err := validSelector(s); err != nil {
			return err
		}
	}
	if p.IPBlock == nil {
		return nil
	}
	block, err := netip.ParsePrefix(p.IPBlock.CIDR)
	if err != nil {
		return fmt.Errorf("CIDR %q: %w", p.IPBlock.CIDR, err)
	}
	for _, e := range p.IPBlock.Except {
		except, err := netip.ParsePrefix(e)
		if err != nil {
			return fmt.Errorf("CIDR %q: %w", e, err)
		}
		if !block.Contains(except.Addr()) || except.Bits() <= block.Bits() {
			return fmt.Errorf("CIDR %s is not strictly larger than its exception %s", p.IPBlock.CIDR, e)
		}
	}
	return nil
}

func validSelector(s *engine.Selector) error {
	if s == nil {
		return nil
	}
	for _, k := range s.Keys() {
		if !engine.ValidLabels(map[string]string{k: ""}) {
			return fmt.Errorf("label key %q", k)
		}
	}
	return s.Validate()
}
