package behavior

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"testing/quick"
)

// traffic makes profiles of one workload's two containers, of which some facts
// name their program and some do not.
func traffic(r *rand.Rand) Profiles {
	ps := Profiles{}
	for range 1 + r.IntN(6) {
		f := Fact{Kind: Network, Direction: Egress, Protocol: "tcp", Port: uint16(80 + r.IntN(2)), Exe: []string{"", "", "/a", "/b"}[r.IntN(4)],
			Peer: Peer{Kind: PeerWorkload, Namespace: "shop", Workload: "deployment-api", Service: []string{"", "api:80"}[r.IntN(2)]}}
		if r.IntN(4) == 0 {
			f = Fact{Kind: DNS, Exe: f.Exe, Name: "api", Type: "A"}
			if f.Exe != "" {
				f.Protocol, f.Port, f.Peer.Address = "udp", 53, netip.AddrFrom4([4]byte{10, 0, 0, 10})
			}
		}
		e := Evidence{Pods: map[string]uint64{"web-1": 1 + r.Uint64N(3)}}
		if f.Exe == "" {
			e.Witnesses = []string{ByHubble}
		}
		p := Profile{Subject: Subject{Workload{"shop", "Deployment", "web"}, []string{"web", "side"}[r.IntN(2)]}}
		p.Add(f, e)
		ps.Add(p)
	}
	return ps
}

func TestCorroboratingLeavesTheSameFactsWheneverItIsDone(t *testing.T) {
	alike := func(a, b Profiles) bool {
		return maps.EqualFunc(a, b, func(p, q Profile) bool {
			return maps.EqualFunc(p.Facts.Map(), q.Facts.Map(), func(Evidence, Evidence) bool { return true })
		})
	}
	law := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 2))
		a, b := traffic(r), traffic(r)
		whole := Corroborate(MergeProfiles(a, b))
		return alike(whole, Corroborate(MergeProfiles(Corroborate(a), b))) &&
			alike(whole, Corroborate(MergeProfiles(b, Corroborate(a)))) && maps.EqualFunc(whole, Corroborate(whole), same)
	}
	if err := quick.Check(law, &quick.Config{MaxCount: 3000}); err != nil {
		t.Error(err)
	}
}

func TestWhatTwoSourcesSawIsOneFactWithTwoWitnesses(t *testing.T) {
	subject := func(container string) Subject { return Subject{Workload{"shop", "Deployment", "web"}, container} }
	flow := Fact{Kind: Network, Direction: Egress, Protocol: "tcp", Port: 80, Peer: Peer{Kind: PeerWorkload, Namespace: "shop", Workload: "deployment-api"}}
	named, other := flow, flow
	named.Exe, named.Peer.Service = "/usr/bin/curl", "api:80"
	other.Port = 81
	ps := Profiles{}
	add := func(container string, f Fact, e Evidence) {
		p := Profile{Subject: subject(container)}
		p.Add(f, e)
		ps.Add(p)
	}
	add("side", named, Evidence{Pods: map[string]uint64{"web-1": 2}})
	add("web", flow, Evidence{Pods: map[string]uint64{"web-1": 9}, Witnesses: []string{ByHubble}})
	add("web", other, Evidence{Pods: map[string]uint64{"web-1": 1}, Witnesses: []string{ByHubble}})
	before := ps[subject("web")].Facts.Map()

	got := Corroborate(ps)
	want := map[Fact]Evidence{named: {Pods: map[string]uint64{"web-1": 2}, Witnesses: []string{ByCollector, ByHubble}}}
	if !reflect.DeepEqual(got[subject("side")].Facts.Map(), want) {
		t.Errorf("the collector's fact is %v, want %v", got[subject("side")].Facts.Map(), want)
	}
	if facts := got[subject("web")].Facts.Map(); len(facts) != 1 || len(facts[other].Pods) != 1 {
		t.Errorf("what Hubble alone saw is %v", facts)
	}
	if !reflect.DeepEqual(ps[subject("web")].Facts.Map(), before) {
		t.Error("the argument was changed")
	}
}

func TestACoverageNamesWhatNobodyWatched(t *testing.T) {
	learned := map[Kind]bool{Process: true, Network: true}
	if got := (Coverage{Hooks: map[Kind][]string{Network: {ByHubble}}}).Unobserved(learned); len(got) != 1 || got[0] != Process {
		t.Errorf("a coverage of traffic alone leaves %v, want process", got)
	}
	if got := (Coverage{}).Unobserved(learned); got != nil {
		t.Errorf("a coverage that makes no claim leaves %v", got)
	}
}
