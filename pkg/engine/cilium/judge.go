package cilium

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

type judge struct {
	rules  []judged
	index  engine.Index // of their selectors
	mutual bool         // pods can prove who they are
}

// judged is one rule about endpoints, ready to be asked about facts.
type judged struct {
	parsed
	rule
	selector engine.Selector // of the pods that it is about
	in, out  []entry
}

func (j *judge) add(p parsed, r rule) {
	if r.EndpointSelector == nil {
		return // about nodes
	}
	x := judged{parsed: p, rule: r, selector: *r.EndpointSelector, in: r.entries(true), out: r.entries(false)}
	if !p.clusterwide {
		// Whatever namespace it asks for, a policy is about its own.
		x.selector.MatchLabels = maps.Clone(r.EndpointSelector.MatchLabels)
		delete(x.selector.MatchLabels, "k8s:"+namespaceLabel)
	}
	j.index.Add(len(j.rules), x.selector)
	j.rules = append(j.rules, x)
}

func (r *judged) entries(ingress bool) []entry {
	if ingress {
		return r.in
	}
	return r.out
}

// Judge implements engine.Judge. Cilium does not judge listening, nor what stays
// within the pod.
func (j *judge) Judge(s engine.Subject, f behavior.Fact) engine.Verdict {
	switch f.Kind {
	case behavior.Network, behavior.HTTP:
	case behavior.DNS:
		f.Direction = behavior.Egress
	default:
		return engine.Verdict{}
	}
	if f.Peer.Kind == behavior.PeerSelf ||
		f.Direction != behavior.Ingress && f.Direction != behavior.Egress ||
		!slices.Contains([]string{"tcp", "udp", "sctp", "icmp", "icmpv6"}, f.Protocol) {
		return engine.Verdict{}
	}
	var first engine.Verdict
	for i, id := range identities(f.Peer) {
		v := j.judge(s, f, id)
		switch {
		case i == 0:
			first = v
		case v.Decision != first.Decision:
			return engine.Verdict{Decision: engine.Unknown, Object: max(first.Object, v.Object),
				Reason: fmt.Sprintf("it is %s for %s, but %s for %s", first.Decision, identities(f.Peer)[0].words, v.Decision, id.words)}
		}
	}
	return first
}

func (j *judge) judge(s engine.Subject, f behavior.Fact, id identity) engine.Verdict {
	var ballot engine.Ballot
	ingress := f.Direction == behavior.Ingress
	own := identity{pod: true, namespace: s.Workload.Namespace, labels: s.Labels}
	for _, i := range j.index.Candidates(own.label) {
		r := &j.rules[i]
		applies := r.selects(own)
		entries := r.entries(ingress)
		if applies.Truth == engine.No || len(entries) == 0 {
			continue
		}
		ballot.Govern(r.object, applies)
		if r.isolates(ingress) {
			ballot.Isolate(r.object, applies)
			if ingress && id.isOwnNode() {
				ballot.Allow(r.object, applies) // Cilium lets kubelet probe whatever policies say
			}
		}
		for _, e := range entries {
			admits := r.admits(e, s, f, id)
			if f.Kind == behavior.DNS && id.unknown {
				// Whom it asked is not known: the connection to the server is
				// judged for itself, and here the name.
				admits = engine.Certain(!e.deny)
			}
			a := applies.And(admits).And(j.passes(e, s, f, id))
			if e.deny {
				ballot.Deny(r.object, a)
			} else {
				ballot.Allow(r.object, a)
			}
		}
	}
	return ballot.Verdict()
}

func (id identity) isOwnNode() bool { return slices.Contains(id.reserved, "host") }

// selects tells whether the rule is about the subject's pods.
func (r *judged) selects(own identity) engine.Answer {
	if !r.clusterwide && r.namespace != "" && r.namespace != own.namespace {
		return engine.Certain(false)
	}
	return r.selector.Ask(own.label, "the workload's pods")
}

// admits tells whether the entry's peers include the identity.
func (p parsed) admits(e entry, s engine.Subject, f behavior.Fact, id identity) engine.Answer {
	if e.none() {
		return engine.Certain(false)
	}
	if e.anyone() {
		return engine.Certain(len(e.ToPorts) > 0 || len(e.ICMPs) > 0) // the empty rule allows nothing
	}
	any := engine.Certain(false)
	for _, sel := range e.endpoints {
		any = any.Or(p.selectsPeer(sel, s, id))
	}
	for range e.nodes {
		if id.node || id.unknown {
			any = any.Or(engine.Unsure("the labels of nodes"))
		}
	}
	for _, name := range e.entities {
		any = any.Or(id.entity(name))
	}
	for _, c := range e.cidrs {
		any = any.Or(id.within(c))
	}
	for _, c := range e.cidrSets {
		any = any.Or(c.contains(id))
	}
	if len(e.groups) > 0 && (id.address.IsValid() || id.unknown) {
		any = any.Or(engine.Unsure("the addresses of a cloud provider's groups"))
	}
	if len(e.fqdns) > 0 {
		any = any.Or(named(e.fqdns, f.Peer, id))
	}
	for _, svc := range e.services {
		any = any.Or(svc.reaches(s, f))
	}
	return any
}

// named tells whether names select the peer: the one that was asked for when the
// address was given. That others led to the same address at other times is not
// counted.
func named(names []fqdn, p behavior.Peer, id identity) engine.Answer {
	switch {
	case !id.address.IsValid() && !id.unknown:
		return engine.Certain(false)
	case p.Name == "" || id.unknown:
		return engine.Unsure("the names of %s", p.Address)
	}
	return engine.Certain(slices.ContainsFunc(names, func(n fqdn) bool { return n.matches(p.Name) }))
}

// none tells whether a list of peers is there and empty, which selects nobody.
func (p peers) none() bool {
	return p.endpoints != nil && len(p.endpoints) == 0 || p.nodes != nil && len(p.nodes) == 0 || p.entities != nil && len(p.entities) == 0 ||
		p.cidrs != nil && len(p.cidrs) == 0 || p.cidrSets != nil && len(p.cidrSets) == 0
}

// anyone tells whether no peers are asked for.
func (p peers) anyone() bool {
	return len(p.endpoints)+len(p.nodes)+len(p.entities)+len(p.cidrs)+len(p.cidrSets)+len(p.services)+len(p.fqdns)+len(p.groups) == 0
}

// selectsPeer matches a selector of endpoints, which is about the policy's own
// namespace unless it speaks of namespaces itself.
func (p parsed) selectsPeer(sel engine.Selector, s engine.Subject, id identity) engine.Answer {
	asked := sel.Ask(id.label, id.words)
	for _, k := range sel.Keys() {
		_, bare, ok := strings.Cut(k, ":")
		switch {
		case strings.HasPrefix(k, "reserved:"), strings.HasPrefix(k, "$"):
			return asked
		case !ok:
			bare = k
		}
		source := strings.TrimSuffix(k, bare)
		if source != "" && source != "k8s:" && source != "any:" {
			continue
		}
		if bare == namespaceLabel || !p.clusterwide && strings.HasPrefix(bare, namespaceLabelPrefix) {
			return asked
		}
	}
	if id.unknown {
		return asked.And(engine.Unsure("who the peer is"))
	}
	if p.clusterwide {
		return asked.And(engine.Certain(id.pod))
	}
	namespace := p.namespace
	if namespace == "" {
		namespace = s.Workload.Namespace
	}
	return asked.And(engine.Certain(id.pod && id.namespace == namespace))
}

func (c cidrRule) contains(id identity) engine.Answer {
	if c.CIDR == "" {
		if id.address.IsValid() || id.unknown {
			return engine.Unsure("the addresses of a CIDR group")
		}
		return engine.Certain(false)
	}
	a := id.within(c.CIDR)
	for _, e := range c.Except {
		except := id.within(e)
		except.Truth = except.Truth.Not()
		a = a.And(except)
	}
	return a
}

// reaches tells whether the fact went through the Service that a rule names.
func (r serviceRule) reaches(s engine.Subject, f behavior.Fact) engine.Answer {
	if r.Service != nil && r.Service.Name != "" && f.Peer.Service != "" {
		namespace, name, ok := strings.Cut(f.Peer.Service, "/")
		if !ok {
			namespace, name = s.Workload.Namespace, f.Peer.Service
		}
		name, _, _ = strings.Cut(name, ":")
		if r.Service.Name == name && (r.Service.Namespace == "" || r.Service.Namespace == namespace) {
			return engine.Certain(true)
		}
	}
	return engine.Unsure("what is behind a Service")
}

// passes tells whether the fact passes the entry's ports and what it asks of
// what is inside a connection, once its peer was admitted. A rule that denies
// asks for nothing but ports.
func (j *judge) passes(e entry, s engine.Subject, f behavior.Fact, id identity) engine.Answer {
	a := e.ports(s, f)
	switch {
	case e.Authentication == nil || e.Authentication.Mode == "disabled":
		return a
	case e.Authentication.Mode == "required" && j.mutual && id.pod:
		return a // every pod of the cluster has an identity to prove
	}
	return a.And(engine.Unsure("whether the peer proves who it is"))
}

func (e entry) ports(s engine.Subject, f behavior.Fact) engine.Answer {
	if len(e.ToPorts) == 0 && len(e.ICMPs) == 0 {
		return engine.Certain(true)
	}
	any := engine.Certain(false)
	for _, r := range e.ICMPs {
		for _, field := range r.Fields {
			any = any.Or(field.matches(f.Protocol))
		}
	}
	for _, r := range e.ToPorts {
		for _, p := range r.Ports {
			any = any.Or(p.matches(f).And(r.unrestricted(s, f)))
		}
	}
	return any
}

// matches tells whether the field lets ICMP of a container pass, which is an echo
// request. Cilium keeps types where it keeps ports, of which 0 is every one: who
// allows IPv4's echo reply, type 0, allows all of ICMP.
func (i icmpField) matches(protocol string) engine.Answer {
	family, types := "icmp", []string{"8", "0", "EchoRequest", "Echo", "EchoReply"}
	if i.Family == "IPv6" {
		family, types = "icmpv6", []string{"128", "0", "EchoRequest"}
	}
	return engine.Certain(protocol == family && slices.Contains(types, strings.Trim(string(i.Type), `"`)))
}

func (p port) matches(f behavior.Fact) engine.Answer {
	protocol := strings.ToLower(p.Protocol)
	transport := slices.Contains([]string{"tcp", "udp", "sctp"}, f.Protocol)
	if !transport || protocol != "" && protocol != "any" && protocol != f.Protocol {
		return engine.Certain(false)
	}
	n, named, err := p.parse()
	switch {
	case err != nil:
		return engine.Certain(false)
	case named:
		return engine.Unsure("the number of port %s", p.Port)
	case n == 0 || f.Port == n:
		return engine.Certain(true)
	}
	return engine.Certain(f.Port > n && int32(f.Port) <= p.EndPort)
}

// unrestricted tells whether all connections to the ports pass, whatever is in
// them.
func (r portRule) unrestricted(s engine.Subject, f behavior.Fact) engine.Answer {
	if len(r.ServerNames) > 0 {
		return engine.Unsure("the server name that TLS is asked for")
	}
	if r.Listener != nil {
		return engine.Unsure("what a listener does")
	}
	return r.Rules.inside(s, f)
}
