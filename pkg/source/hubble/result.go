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
	seen     map[string]*node  // pods of which there are flows, and where
	profiles map[behavior.Subject]*behavior.Profile
	result   source.Result
}

func (b *Book) maker(t *topology.Cluster) *maker {
	m := &maker{Book: b, topology: t, pods: map[string]topology.PodView{}, siblings: map[behavior.Workload]topology.PodView{},
		replicas: map[behavior.Workload]int{}, strays: map[string]uint64{}, seen: map[string]*node{}, profiles: map[behavior.Subject]*behavior.Profile{},
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
	w, _, _ := m.topology.Workload(self.namespace, self.pod)
	view := m.pods[self.pod]
	if len(view.Containers) == 0 {
		view.Containers, view.Ports = m.siblings[w].Containers, m.siblings[w].Ports
	}
	if len(view.Containers) == 0 {
		m.strays[self.pod] += max(1, n.count)
		return
	}
	f := behavior.Fact{Kind: behavior.Network, Direction: behavior.Egress, Protocol: protocolName(k.protocol), Port: k.port}
	if k.ingress {
		f.Direction = behavior.Ingress
	}
	last := time.Unix(n.last, 0).UTC()
	e := behavior.Evidence{First: time.Unix(n.first, 0).UTC(), Last: last, Pods: map[string]uint64{self.pod: max(1, n.count)}, Witnesses: []string{behavior.ByHubble}}
	subject := behavior.Subject{Workload: w, Container: container(view, f)}
	if k.ingress && m.texts[k.request] != "" && m.texts[k.request][0] == recordDNS {
		return // a question that came in is another's
	}
	for _, f := range m.resolve(f, k, self, peer, last) {
		if k.request != 0 {
			f = apply(f, m.texts[k.request])
		}
		if k.class != passed {
			m.result.Denials = append(m.result.Denials, source.Denial{Subject: subject, Fact: f, Evidence: e,
				Policy: behavior.Escape(m.texts[k.policy]), Audited: k.class == audited})
		}
		if k.class == denied {
			continue
		}
		m.profile(subject).Add(f, e)
	}
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
		} else if p, ok := m.topology.Named(peer.namespace, peer.pod); ok {
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
	for _, where := range []string{"", behavior.Escape(v.Node)} {
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
		if v.Node == "" {
			break
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
