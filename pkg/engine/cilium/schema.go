package cilium

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// The types below are Cilium's own in the parts that matter here, in its JSON.
// An empty list is not the same as none: it selects nothing.

type rule struct {
	Description       string           `json:"description,omitempty"`
	EndpointSelector  *engine.Selector `json:"endpointSelector,omitempty"`
	NodeSelector      *engine.Selector `json:"nodeSelector,omitempty"`
	Ingress           []ingressRule    `json:"ingress,omitempty"`
	IngressDeny       []ingressRule    `json:"ingressDeny,omitempty"`
	Egress            []egressRule     `json:"egress,omitempty"`
	EgressDeny        []egressRule     `json:"egressDeny,omitempty"`
	EnableDefaultDeny struct {
		Ingress *bool `json:"ingress,omitempty"`
		Egress  *bool `json:"egress,omitempty"`
	} `json:"enableDefaultDeny,omitzero"`
	Labels json.RawMessage `json:"labels,omitempty"`
	Log    json.RawMessage `json:"log,omitempty"`
}

type ingressRule struct {
	FromEndpoints []engine.Selector `json:"fromEndpoints,omitempty"`
	FromRequires  []json.RawMessage `json:"fromRequires,omitempty"`
	FromCIDR      []string          `json:"fromCIDR,omitempty"`
	FromCIDRSet   []cidrRule        `json:"fromCIDRSet,omitempty"`
	FromEntities  []string          `json:"fromEntities,omitempty"`
	FromGroups    []json.RawMessage `json:"fromGroups,omitempty"`
	FromNodes     []engine.Selector `json:"fromNodes,omitempty"`
	common
}

type egressRule struct {
	ToEndpoints []engine.Selector `json:"toEndpoints,omitempty"`
	ToRequires  []json.RawMessage `json:"toRequires,omitempty"`
	ToCIDR      []string          `json:"toCIDR,omitempty"`
	ToCIDRSet   []cidrRule        `json:"toCIDRSet,omitempty"`
	ToEntities  []string          `json:"toEntities,omitempty"`
	ToServices  []serviceRule     `json:"toServices,omitempty"`
	ToGroups    []json.RawMessage `json:"toGroups,omitempty"`
	ToNodes     []engine.Selector `json:"toNodes,omitempty"`
	ToFQDNs     []fqdn            `json:"toFQDNs,omitempty"`
	common
}

// common is what rules of both directions have.
type common struct {
	ToPorts        []portRule      `json:"toPorts,omitempty"`
	ICMPs          []icmpRule      `json:"icmps,omitempty"`
	Authentication *authentication `json:"authentication,omitempty"`
}

type authentication struct {
	Mode string `json:"mode"`
}

type cidrRule struct {
	CIDR          string           `json:"cidr,omitempty"`
	GroupRef      string           `json:"cidrGroupRef,omitempty"`
	GroupSelector *engine.Selector `json:"cidrGroupSelector,omitempty"`
	Except        []string         `json:"except,omitempty"`
}

type serviceRule struct {
	Service  *k8sService `json:"k8sService,omitempty"`
	Selector *struct {
		Selector  engine.Selector `json:"selector"`
		Namespace string          `json:"namespace,omitempty"`
	} `json:"k8sServiceSelector,omitempty"`
}

type k8sService struct {
	Name      string `json:"serviceName,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

type portRule struct {
	Ports          []port          `json:"ports,omitempty"`
	Rules          *layer7         `json:"rules,omitempty"`
	ServerNames    []string        `json:"serverNames,omitempty"`
	TerminatingTLS json.RawMessage `json:"terminatingTLS,omitempty"`
	OriginatingTLS json.RawMessage `json:"originatingTLS,omitempty"`
	Listener       json.RawMessage `json:"listener,omitempty"`
}

type port struct {
	Port     string `json:"port,omitempty"` // a number, where 0 is every port, or a name
	EndPort  int32  `json:"endPort,omitempty"`
	Protocol string `json:"protocol,omitempty"` // empty: ANY
}

type icmpRule struct {
	Fields []icmpField `json:"fields,omitempty"`
}

type icmpField struct {
	Family string          `json:"family,omitempty"` // empty: IPv4
	Type   json.RawMessage `json:"type"`             // a number, as such or as text, or a name
}

// peers are the peers of a rule of either direction.
type peers struct {
	endpoints, nodes []engine.Selector
	cidrs            []string
	cidrSets         []cidrRule
	entities         []string
	services         []serviceRule
	fqdns            []fqdn
	groups, requires []json.RawMessage
}

func (r ingressRule) peers() peers {
	return peers{endpoints: r.FromEndpoints, nodes: r.FromNodes, cidrs: r.FromCIDR, cidrSets: r.FromCIDRSet,
		entities: r.FromEntities, groups: r.FromGroups, requires: r.FromRequires}
}

func (r egressRule) peers() peers {
	return peers{endpoints: r.ToEndpoints, nodes: r.ToNodes, cidrs: r.ToCIDR, cidrSets: r.ToCIDRSet,
		entities: r.ToEntities, services: r.ToServices, fqdns: r.ToFQDNs, groups: r.ToGroups, requires: r.ToRequires}
}

// entry is one rule of one direction.
type entry struct {
	peers
	common
	deny bool
}

// entries lists the rules of one direction.
func (r rule) entries(ingress bool) []entry {
	var list []entry
	if ingress {
		for _, i := range r.Ingress {
			list = append(list, entry{i.peers(), i.common, false})
		}
		for _, i := range r.IngressDeny {
			list = append(list, entry{i.peers(), i.common, true})
		}
		return list
	}
	for _, e := range r.Egress {
		list = append(list, entry{e.peers(), e.common, false})
	}
	for _, e := range r.EgressDeny {
		list = append(list, entry{e.peers(), e.common, true})
	}
	return list
}

// isolates tells whether the rule makes its pods refuse what no rule allows in
// that direction. It does nothing where it has no entries.
func (r rule) isolates(ingress bool) bool {
	set := r.EnableDefaultDeny.Egress
	if ingress {
		set = r.EnableDefaultDeny.Ingress
	}
	return len(r.entries(ingress)) > 0 && (set == nil || *set)
}

// decodeRule refuses fields that Cilium does not know: the API server would drop
// them and so, as a rule, allow more than was meant.
func decodeRule(raw []byte) (rule, error) {
	var r rule
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("decode rule: %w", err)
	}
	return r, nil
}
