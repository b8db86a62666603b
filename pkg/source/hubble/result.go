package hubble

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// Result makes profiles of what the book holds. Pods that the flows name and the
// topology does not know are added to it, as far as the flows tell. The book can
// take more flows afterwards.
func (b *Book) Result(t *topology.Cluster) source.Result {
	blank := t.Blank()
	b.complete(t)
	t.Seal()
	m := b.maker(t)
	m.blank = blank
	for k, n := range b.tallies {
		m.take(k, n)
	}
	m.cover()
	slices.SortFunc(m.result.Denials, func(x, y source.Denial) int {
		return cmp.Or(behavior.CompareSubjects(x.Subject, y.Subject), behavior.Compare(x.Fact, y.Fact), cmp.Compare(x.Policy, y.Policy))
	})
	return m.result
}

// complete adds the pods to the topology that only the flows know.
func (b *Book) complete(t *topology.Cluster) {
	for i := range b.sides {
		s := &b.sides[i]
		if s.pod == "" || s.namespace == "" || t.Has(s.namespace, s.pod) {
			continue
		}
		p := topology.Pod{Meta: topology.Meta{Namespace: s.namespace, Name: s.pod, Labels: podLabels(s.labels)}}
		if s.kind != "" && s.name != "" && s.kind != "Pod" {
			p.Meta.Owners = []topology.Owner{{Kind: s.kind, Name: s.name, Controller: true}}
		}
		t.AddPod(p, time.Time{})
		t.RemovePod(s.namespace, s.pod, time.Time{}) // it is none of the pods that are there now
	}
}

// podLabels are a pod's own labels among those of its Cilium identity.
func podLabels(labels []string) map[string]string {
	own := map[string]string{}
	for _, text := range labels {
		text, ok := strings.CutPrefix(text, "k8s:")
		k, v, _ := strings.Cut(text, "=")
		if !ok || k == "" || strings.HasPrefix(k, "io.kubernetes.pod.") || strings.HasPrefix(k, "io.cilium.") || !source.PlainLabel(k) || !source.PlainLabel(v) {
			continue
		}
		own[k] = v
	}
	return own
}

// maker makes one result.
type maker struct {
	*Book
	topology *topology.Cluster
	blank    bool                        // it tells nobody's address
	pods     map[string]topology.PodView // of the namespace, by name
	siblings map[behavior.Workload]topology.PodView
	replicas map[behavior.Workload]int
	strays   map[string]uint64 // pods of which no container is known, with their flows
	strange  map[string]bool   // nodes that lost something, and that the cluster does not know
	seen     map[string]*node  // pods of which there are flows, and where
	profiles map[behavior.Subject]*behavior.Profile
	selves   map[uint32]self          // by endpoint
	named    map[uint32]behavior.Peer // pods, by endpoint
	witness  [1]string
	once     map[string]uint64 // what Evidence.Pods is while a fact is added, which keeps none of it
	result   source.Result
}

func (b *Book) maker(t *topology.Cluster) *maker {
	m := &maker{Book: b, topology: t, pods: map[string]topology.PodView{}, siblings: map[behavior.Workload]topology.PodView{},
		replicas: map[behavior.Workload]int{}, strays: map[string]uint64{}, seen: map[string]*node{}, profiles: map[behavior.Subject]*behavior.Profile{},
		selves: map[uint32]self{}, named: map[uint32]behavior.Peer{}, once: map[string]uint64{}, witness: [1]string{behavior.ByHubble},
		result: source.Result{Profiles: behavior.Profiles{}, Topology: t, Passed: b.passed}}
	for i := range b.sides {
		if s := &b.sides[i]; s.node != nil {
			m.seen[s.pod] = s.node
		}
	}
	for _, v := range t.View(b.namespace) {
		if v.Gone && m.seen[v.Name] == nil {
			continue // it was over before
		}
		m.pods[v.Name] = v
		w, _, _ := t.Workload(v.Namespace, v.Name)
		if len(v.Containers) > 0 {
			m.siblings[w] = v
		}
		m.replicas[w]++
	}
	return m
}

// take turns one thing that flows said into facts, or a denial.
func (m *maker) take(k key, n *tally) {
	self, peer := &m.sides[k.self], &m.sides[k.peer]
	own := m.self(k.self)
	w, view := own.workload, own.view
	if len(view.Containers) == 0 {
		m.strays[self.pod] += max(1, n.count)
		return
	}
	f := behavior.Fact{Kind: behavior.Network, Direction: behavior.Egress, Protocol: protocolName(k.protocol), Port: k.port}
	if k.ingress {
		f.Direction = behavior.Ingress
	}
	last := time.Unix(n.last, 0).UTC()
	byHubble := m.witness[:]
	e := behavior.Evidence{First: time.Unix(n.first, 0).UTC(), Last: last, Pods: m.once, Witnesses: byHubble}
	clear(m.once)
	m.once[self.pod] = max(1, n.count)
	subject := behavior.Subject{Workload: w, Container: container(view, f)}
	if k.ingress && m.texts[k.request] != "" && m.texts[k.request][0] == recordDNS {
		return // a question that came in is another's
	}
	for _, f := range m.resolve(f, k, self, peer, last) {
		if k.request != 0 {
			f = apply(f, m.texts[k.request])
		}
		if k.class != passed {
			e := e
			e.Pods, e.Witnesses = maps.Clone(e.Pods), slices.Clone(e.Witnesses)
			m.result.Denials = append(m.result.Denials, source.Denial{Subject: subject, Fact: f, Evidence: e,
				Policy: behavior.Escape(m.texts[k.policy]), Audited: k.class == audited})
		}
		if k.class == denied {
			continue
		}
		m.profile(subject).Add(f, e)
	}
}

// self is the pod that a flow is about.
type self struct {
	workload behavior.Workload
	view     topology.PodView
}

func (m *maker) self(id uint32) self {
	own, ok := m.selves[id]
	if !ok {
		side := &m.sides[id]
		own.workload, _, _ = m.topology.Workload(side.namespace, side.pod)
		own.view = m.pods[side.pod]
		if sibling := m.siblings[own.workload]; len(own.view.Containers) == 0 {
			own.view.Containers, own.view.Ports = sibling.Containers, sibling.Ports
		}
		m.selves[id] = own
	}
	return own
}

func (m *maker) profile(s behavior.Subject) *behavior.Profile {
	p := m.profiles[s]
	if p == nil {
		p = &behavior.Profile{Subject: s}
		m.profiles[s] = p
	}
	return p
}

// container picks the one that a flow is put down to. Hubble sees pods: it is the
// one that names the port, for what comes in, or else the first.
func container(view topology.PodView, f behavior.Fact) string {
	if f.Direction == behavior.Ingress {
		for _, name := range view.Containers {
			for _, p := range view.Ports[name] {
				if p.Port == f.Port && (strings.EqualFold(p.Protocol, f.Protocol) || p.Protocol == "" && f.Protocol == "tcp") {
					return name
				}
			}
		}
	}
	return view.Containers[0]
}

func protocolName(p uint8) string {
	return []string{"", "tcp", "udp", "icmp", "icmpv6", "sctp", "vrrp", "igmp"}[p]
}

// resolve names the peer: a pod by what Hubble calls it, anybody else by what the
// topology knows of the address, and where that knows nothing by the identity that
// Cilium gives it.
func (m *maker) resolve(f behavior.Fact, k key, self, peer *side, last time.Time) []behavior.Fact {
	if peer.pod != "" {
		if peer.pod == self.pod && peer.namespace == self.namespace {
			f.Peer = behavior.Peer{Kind: behavior.PeerSelf}
		} else {
			p, ok := m.named[k.peer]
			if !ok {
				p, _ = m.topology.Named(peer.namespace, peer.pod)
				m.named[k.peer] = p
			}
			f.Peer = p
		}
		return []behavior.Fact{f}
	}
	addr, err := netip.ParseAddr(m.texts[k.addr])
	if err != nil {
		return []behavior.Fact{f}
	}
	f.Peer.Address = addr.Unmap().WithZone("")
	if !k.ingress {
		f.Peer.Name = behavior.Escape(strings.ToLower(strings.TrimSuffix(m.texts[k.name], ".")))
	}
	name, facts := f.Peer.Name, []behavior.Fact{f}
	if !m.blank {
		facts = m.topology.Resolve(f, self.namespace, self.pod, last)
	}
	for i := range facts {
		p := &facts[i].Peer
		if p.Kind != "" && p.Kind != behavior.PeerOutside {
			continue
		}
		switch peer.identity {
		case identityHost:
			*p = behavior.Peer{Kind: behavior.PeerOwnNode}
		case identityRemoteNode:
			*p = behavior.Peer{Kind: behavior.PeerNode, Address: f.Peer.Address}
		case identityAPI:
			*p = behavior.Peer{Kind: behavior.PeerAPIServer, Address: f.Peer.Address}
		case identityWorld, identityWorld4, identityWorld6:
			*p = behavior.Peer{Kind: behavior.PeerOutside, Address: f.Peer.Address, Name: name, Service: p.Service}
		case identityHealth, identityInit, identityUnmanaged:
			*p = behavior.Peer{Address: f.Peer.Address} // it has an owner that nobody names
		}
	}
	return facts
}

// cover says of every container of the namespace what Hubble can claim to have
// seen of it.
func (m *maker) cover() {
	hooks := map[behavior.Kind][]string{behavior.Network: {behavior.ByHubble}}
	for k := range m.kinds {
		hooks[k] = []string{behavior.ByHubble}
	}
	for _, name := range slices.Sorted(maps.Keys(m.nodes)) {
		if n := m.nodes[name]; n.missing != "" {
			m.result.Nodes = append(m.result.Nodes, source.NodeError{Node: name, Reason: n.missing})
		}
	}
	m.strange = map[string]bool{}
	for where := range m.lost {
		m.strange[where] = !m.topology.HasNode(where)
	}
	for _, flows := range m.strays {
		m.result.Unattributed += flows
	}
	for _, v := range m.pods {
		w, labels, ok := m.topology.Workload(v.Namespace, v.Name)
		if !ok {
			continue
		}
		c := m.coverage(v)
		c.Hooks, c.Replicas = hooks, m.replicas[w]
		for _, name := range v.Containers {
			p := m.profile(behavior.Subject{Workload: w, Container: name})
			p.Labels, p.Coverage = max(p.Labels, behavior.FormatLabels(labels)), behavior.MergeCoverage(p.Coverage, c)
		}
	}
	for s, p := range m.profiles {
		m.result.Profiles[s] = *p
	}
}

// coverage is what Hubble can claim of one pod.
func (m *maker) coverage(v topology.PodView) behavior.Coverage {
	var c behavior.Coverage
	n := m.nodes[behavior.Escape(v.Node)]
	if v.Node == "" {
		n = m.seen[v.Name]
	}
	switch {
	case v.HostNetwork:
		c.Gaps = append(c.Gaps, "pod "+v.Name+": it is on its node's network, and Hubble does not tell the two apart")
	case n == nil || !n.connected:
		c.Gaps = append(c.Gaps, "node "+cmp.Or(behavior.Escape(v.Node), "of pod "+v.Name)+": Hubble told nothing of it")
	default:
		first, last := n.first, n.last
		if m.to != 0 { // a stream that stood speaks for the time without flows, too
			first, last = m.watched(n), m.to
		}
		from := time.Unix(first, 0).UTC()
		traffic := !v.Started.IsZero() && !v.Started.Before(from)
		if traffic {
			from = v.Started.UTC()
		}
		c.Pods = map[string]behavior.PodCoverage{v.Name: {Node: n.name, From: behavior.Second(from), To: time.Unix(last, 0).UTC(), Traffic: traffic}}
		if n.missing != "" {
			c.Gaps = append(c.Gaps, "node "+n.name+": "+n.missing)
		}
	}
	for where := range m.lost {
		// What a node lost that the cluster does not know may be anybody's.
		if own := behavior.Escape(v.Node); where != own && where != "" && !m.strange[where] {
			continue
		}
		for reason, l := range m.lost[where] {
			if where != "" {
				reason = where + ": " + reason
			}
			if c.Lost == nil {
				c.Lost, c.LostAt = map[string]uint64{}, map[string]behavior.Span{}
			}
			c.Lost[reason] += l.count
			if l.first != 0 {
				c.LostAt[reason] = behavior.Span{First: time.Unix(l.first, 0).UTC(), Last: time.Unix(l.last, 0).UTC()}
			}
		}
	}
	if m.gap != "" {
		c.Gaps = append(c.Gaps, m.gap)
	}
	if m.result.Unattributed > 0 {
		if c.Lost == nil {
			c.Lost = map[string]uint64{}
		}
		c.Lost["flows of pods whose containers are not known"] = m.result.Unattributed
	}
	return c
}

// watched is since when a node's flows are complete: since the relay said that it
// is connected, or since its first flow where what its ring still had was asked for.
func (m *maker) watched(n *node) int64 { return max(n.first, m.from) }
