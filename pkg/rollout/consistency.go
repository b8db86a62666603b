package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// members are the workloads of a namespace that have policies, by slug.
type members map[string]engine.Subject

// membersOf gives the workloads with the labels that their pods have now.
func membersOf(groups map[behavior.Workload]behavior.Profiles) members {
	all := members{}
	for w, profiles := range groups {
		labels := ""
		for _, p := range profiles {
			labels = max(labels, p.Labels)
		}
		if parsed, err := behavior.ParseLabels(labels); err == nil && labels != "" {
			all[w.Slug()] = engine.Subject{Subject: behavior.Subject{Workload: w}, Labels: parsed}
		}
	}
	return all
}

// torn is a connection inside the namespace that was seen at one end and that the
// policies of the other end refuse.
type torn struct {
	at, other string // slugs: where it was seen, and whose policies refuse it
	text      string
}

// bothEnds finds what the policies of one end refuse of what was seen at the
// other. Each workload's own policies are asked all at once, whoever wrote them.
func bothEnds(all members, groups map[behavior.Workload]behavior.Profiles, judges map[string]engine.Judge) []torn {
	found := map[torn]bool{}
	for w, profiles := range groups {
		self, known := all[w.Slug()]
		for _, p := range profiles {
			for _, f := range p.Facts.Forms() {
				other, there := all[f.Peer.Workload]
				if !known || !there || f.Kind != behavior.Network || f.Peer.Kind != behavior.PeerWorkload || f.Peer.Namespace != w.Namespace || !judgeable(f) {
					continue
				}
				mirrored, verb := f, "connects to"
				mirrored.Exe, mirrored.Peer = "", behavior.Peer{Kind: behavior.PeerWorkload, Namespace: w.Namespace, Workload: w.Slug(), Labels: behavior.FormatLabels(self.Labels)}
				if f.Direction == behavior.Egress {
					mirrored.Direction = behavior.Ingress
				} else {
					mirrored.Direction, verb = behavior.Egress, "is reached by"
				}
				for _, name := range slices.Sorted(maps.Keys(judges)) {
					v := judges[name].Judge(other, mirrored)
					if v.Decision != engine.Denied || !strings.Contains(v.Object, "NetworkPolicy/") {
						continue
					}
					found[torn{w.Slug(), f.Peer.Workload, fmt.Sprintf("%s %s %s on %s/%d, and %s of %s refuses it: %s",
						w, verb, other.Workload, f.Protocol, f.Port, v.Object, other.Workload, v.Reason)}] = true
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b torn) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.other, b.other), cmp.Compare(a.text, b.text))
	})
}

// tornReasons say which connections of the workloads that are raised would be torn.
// Those between workloads that nobody raises are as they were.
func tornReasons(raised []string, groups map[behavior.Workload]behavior.Profiles, judges map[string]engine.Judge) []string {
	var reasons []string
	for _, t := range bothEnds(membersOf(groups), groups, judges) {
		if slices.Contains(raised, t.at) || slices.Contains(raised, t.other) {
			reasons = append(reasons, t.text)
		}
	}
	return reasons
}

// noteTorn notes which connections the policies would tear once all deny.
func (d *discovery) noteTorn(judges map[string]engine.Judge) {
	groups := map[behavior.Workload]behavior.Profiles{}
	for _, l := range d.learned {
		groups[l.workload] = l.profiles
	}
	for _, t := range bothEnds(membersOf(groups), groups, judges) {
		d.candidate.note(t.at, "%s", t.text)
	}
}

// noteSelectors notes where labels select more, or less, than was meant, and whom
// no policy reaches.
func (d *discovery) noteSelectors() {
	t := d.in.Topology
	if t == nil {
		return
	}
	for _, l := range d.learned {
		if l.change != Added && l.change != Updated {
			continue
		}
		slug := l.workload.Slug()
		labels := behavior.Escape(behavior.FormatLabels(l.set.Labels))
		switch others := t.Overlap(l.workload, l.set.Labels); {
		case len(l.set.Labels) == 0:
		case len(others) > 0:
			d.candidate.note(slug, "its labels %s also select pods of %s, whom its policies reach too", labels, list(others, 3))
		case len(t.Selected(l.workload.Namespace, l.set.Labels)) == 0:
			d.candidate.note(slug, "its labels %s select no pod that is there now", labels)
		}
		if t.OnHostNetwork(l.workload) {
			d.candidate.note(slug, "its pods are on their nodes' network, where no network policy of pods reaches them")
		}
		d.notePeers(slug, l.set)
	}
}

// notePeers notes peers whose labels select others as well, or nobody, and ports at
// which Services let in who comes from outside the cluster.
func (d *discovery) notePeers(slug string, set policy.Set) {
	t := d.in.Topology
	seen := map[behavior.Peer]bool{}
	for _, r := range set.Of("", behavior.Network) {
		if r.Direction == behavior.Ingress && r.Peer.Kind != behavior.PeerWorkload {
			d.noteExposed(slug, set, r)
		}
		if r.Peer.Kind != behavior.PeerWorkload || seen[r.Peer] {
			continue
		}
		seen[r.Peer] = true
		labels, err := behavior.ParseLabels(r.Peer.Labels)
		if err != nil || len(labels) == 0 {
			continue // the engines note that they cannot select it
		}
		matched := t.Matches(r.Peer.Namespace, labels)
		others := slices.DeleteFunc(slices.Clone(matched), func(w behavior.Workload) bool { return w.Slug() == r.Peer.Workload })
		switch {
		case len(matched) == 0:
			d.candidate.note(slug, "the labels %s of its peer %s select no pod that is there now", r.Peer.Labels, r.Peer)
		case len(others) > 0:
			d.candidate.note(slug, "the labels %s of its peer %s also select pods of %s, who are allowed the same", r.Peer.Labels, r.Peer, list(others, 3))
		}
	}
}

// noteExposed notes what becomes of the address of who comes through a Service from
// outside the cluster.
func (d *discovery) noteExposed(slug string, set policy.Set, r policy.Rule) {
	service, kept, ok := d.in.Topology.Exposed(set.Workload, r.Protocol, r.Port)
	switch {
	case !ok:
	case r.Peer.Kind == behavior.PeerOutside && kept:
		d.candidate.note(slug, "Service %s keeps the addresses of its clients: of those outside, only who was seen is let in; write the ranges that you mean into custom/", service)
	case r.Peer.Kind == behavior.PeerNode || r.Peer.Kind == behavior.PeerOwnNode:
		if !kept {
			d.candidate.note(slug, "Service %s shows its clients from outside as nodes: whoever may let nodes in on %s/%d lets them in", service, r.Protocol, r.Port)
		}
	}
}
