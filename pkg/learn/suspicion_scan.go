package learn

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// A client of many servers, or of one with many ports, gets to know them over its
// life; a scan tries them within a minute. Ports that a server hands out for a
// while (passive FTP, RPC) lie above the last fixed one.
const (
	scanTime      = time.Minute
	scanPorts     = 32
	scanAddresses = 64
	lastFixedPort = 32767 // Linux hands out 32768 and up
)

// attempt is a network fact with its number.
type attempt struct {
	number int32
	behavior.Observed
}

// findScans finds facts of somebody who tries many ports of one peer, or one port
// of many addresses that no name led to, and says why, by their numbers.
func (s *scene) findScans() map[int32]string {
	type target struct {
		exe  string
		peer behavior.Peer // without a port: its ports
		port uint16        // without a peer: its addresses
	}
	groups := map[target][]attempt{}
	for i := range int32(s.facts.Len()) {
		form, _ := s.facts.Form(i)
		if f := &s.forms[form]; f.Kind != behavior.Network || f.Direction != behavior.Egress || f.Protocol != "tcp" || !s.learned[form] {
			continue
		}
		x := attempt{i, s.facts.Observed(i)}
		if x.Evidence.Snapshot {
			continue
		}
		f := x.Fact
		if f.Port <= lastFixedPort && f.Peer.Kind != behavior.PeerSelf {
			peer := f.Peer
			peer.Service, peer.Name = "", ""
			groups[target{exe: f.Exe, peer: peer}] = append(groups[target{exe: f.Exe, peer: peer}], x)
		}
		if f.Peer.Name == "" && (f.Peer.Kind == "" || f.Peer.Kind == behavior.PeerOutside) {
			groups[target{exe: f.Exe, port: f.Port}] = append(groups[target{exe: f.Exe, port: f.Port}], x)
		}
	}
	found := map[int32]string{}
	for t, list := range groups {
		least, why := scanPorts, fmt.Sprintf("%s tries many ports of one peer within a minute", t.exe)
		if t.peer == (behavior.Peer{}) {
			least, why = scanAddresses, fmt.Sprintf("%s tries one port of many addresses within a minute", t.exe)
		}
		for _, x := range burst(list, least) {
			found[x.number] = why
		}
	}
	return found
}

// burst gives those of a group that began within scanTime of at least as many
// different others.
func burst(list []attempt, least int) []attempt {
	if len(list) < least {
		return nil
	}
	slices.SortFunc(list, func(a, b attempt) int {
		return cmp.Or(a.Evidence.First.Compare(b.Evidence.First), behavior.Compare(a.Fact, b.Fact))
	})
	type end struct {
		peer behavior.Peer
		port uint16
	}
	of := func(f behavior.Fact) end {
		f.Peer.Service, f.Peer.Name = "", ""
		return end{f.Peer, f.Port}
	}
	in, from, upTo := map[end]int{}, 0, 0
	var found []attempt
	for to, x := range list {
		in[of(x.Fact)]++
		for x.Evidence.First.Sub(list[from].Evidence.First) > scanTime {
			e := of(list[from].Fact)
			if in[e]--; in[e] == 0 {
				delete(in, e)
			}
			from++
		}
		if len(in) >= least {
			found = append(found, list[max(from, upTo):to+1]...)
			upTo = to + 1
		}
	}
	return found
}
