package behavior

import (
	"maps"
	"net/netip"
	"slices"
)

// Corroborate joins what was seen without its program into what was seen with it:
// an anonymous fact is another witness of the same workload's fact that differs
// only in naming the program, its container and how it was come by. How often it
// was seen is not added, since nobody knows which program's share that was.
//
// Facts without a program that the collector stated stay: it looked for one.
//
// It gives profiles of their own where it changes something, shares the others,
// and leaves the same facts whatever was merged or corroborated before.
func Corroborate(ps Profiles) Profiles {
	type place struct {
		subject Subject
		fact    Fact
	}
	type seen struct {
		workload Workload
		fact     Fact
	}
	var nameless []place
	for s, p := range ps {
		for f, e := range p.Facts.All() {
			if f.Anonymous() && len(e.Witnesses) > 0 {
				nameless = append(nameless, place{s, f})
			}
		}
	}
	if len(nameless) == 0 {
		return ps
	}
	known := map[seen][]place{}
	for s, p := range ps {
		for f := range p.Facts.Keys() {
			if !f.Anonymous() && f.Own() && (f.Kind == Network || f.Kind == DNS || f.Kind == HTTP || f.Kind == Kafka) {
				k := seen{s.Workload, f.bare()}
				known[k] = append(known[k], place{s, f})
			}
		}
	}
	all, copied, joined := maps.Clone(ps), map[Subject]bool{}, map[place]bool{}
	for _, n := range nameless {
		named := known[seen{n.subject.Workload, n.fact.bare()}]
		if len(named) == 0 {
			continue
		}
		by, _ := ps[n.subject].Facts.Get(n.fact)
		for _, k := range named {
			p := all[k.subject]
			if !copied[k.subject] {
				p, copied[k.subject] = Merge(p, p), true
			}
			p.Add(k.fact, Evidence{Witnesses: by.Witnesses, Snapshot: true}) // which changes neither times nor pods
			all[k.subject] = p
		}
		if !slices.Contains(by.Witnesses, ByCollector) {
			joined[n] = true
		}
	}
	for s, p := range all {
		if slices.ContainsFunc(nameless, func(n place) bool { return n.subject == s && joined[n] }) {
			p.Facts = p.Facts.Filter(func(f Fact) bool { return !joined[place{s, f}] })
			all[s] = p
		}
	}
	return all
}

// bare is the fact without what a source may or may not know of it: the program,
// how it entered the container, and the names by which the peer was reached.
func (f Fact) bare() Fact {
	f.Exe, f.Parent, f.Origin = "", "", ""
	f.Peer.Service, f.Peer.Name = "", ""
	f.Via = netip.AddrPort{}
	if f.Kind == DNS {
		// Hubble's proxy sees the question, not whom the pod asked.
		f.Direction, f.Protocol, f.Port, f.Peer, f.Target = "", "", 0, Peer{}, ""
	}
	return f
}

// Unobserved lists the kinds, in their order, of which something was learned and
// that a coverage says nobody watched. A coverage without Hooks makes no claim.
func (c Coverage) Unobserved(learned map[Kind]bool) []Kind {
	if len(c.Hooks) == 0 {
		return nil
	}
	return slices.DeleteFunc(Kinds(), func(k Kind) bool { return !learned[k] || len(c.Hooks[k]) > 0 })
}
