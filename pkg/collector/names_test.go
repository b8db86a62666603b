//go:build linux

package collector

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
)

func connects(address, name string) behavior.Fact {
	return behavior.Fact{
		Kind: behavior.Network, Exe: "/app", Direction: behavior.Egress, Protocol: "tcp", Port: 443,
		Peer: behavior.Peer{Address: netip.MustParseAddr(address), Name: name},
	}
}

func asks(name, kind string) behavior.Fact {
	return behavior.Fact{Kind: behavior.DNS, Exe: "/app", Protocol: "udp", Port: 53, Name: name, Type: kind}
}

// hears lets the container be told addresses at a moment.
func (b *bench) hears(at time.Time, question, kind string, answers ...probe.Answer) {
	b.record(Record{MountNS: 77, PID: 100, Time: at, Fact: asks(question, kind), Answers: answers})
}

// dials lets it connect at a moment.
func (b *bench) dials(at time.Time, f behavior.Fact) {
	b.id++
	b.record(Record{MountNS: 77, PID: 100, ID: b.id, Time: at, Fact: f})
}

func leadsTo(name, address string) probe.Answer {
	return probe.Answer{Name: name, Type: "A", Address: netip.MustParseAddr(address)}
}

// named is a bench with one container, some seconds after what it did.
func named(t *testing.T) (*bench, time.Time) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	return b, b.clock.Add(-10 * time.Second)
}

// dialed are the connections of the container by the name of their peer.
func (b *bench) dialed() map[string]string {
	found := map[string]string{}
	for f := range b.store.containers[idA].entries {
		if p := f.Value().Peer; f.Value().Kind == behavior.Network {
			found[p.Address.String()] = p.Name
		}
	}
	return found
}

func TestAConnectionHasTheNameThatWasAskedFor(t *testing.T) {
	at := func(seconds int) time.Duration { return time.Duration(seconds) * time.Second }
	alias := probe.Answer{Name: "www.test", Type: "CNAME", Target: "cdn.test"}
	for name, c := range map[string]struct {
		do   func(b *bench, begin time.Time)
		want string
	}{
		"the name of the question, through aliases": {func(b *bench, begin time.Time) {
			b.hears(begin, "www.test", "A", alias, leadsTo("cdn.test", "192.0.2.1"))
		}, "www.test"},
		"the target of a service": {func(b *bench, begin time.Time) {
			b.hears(begin, "_db._tcp.test", "SRV", probe.Answer{Name: "_db._tcp.test", Type: "SRV", Target: "db-0.test"}, leadsTo("db-0.test", "192.0.2.1"))
		}, "db-0.test"},
		"of two names the one that was asked for last": {func(b *bench, begin time.Time) {
			b.hears(begin, "a.test", "A", leadsTo("a.test", "192.0.2.1"))
			b.hears(begin.Add(at(1)), "b.test", "A", leadsTo("b.test", "192.0.2.1"))
		}, "b.test"},
		"of two names one that was asked for again": {func(b *bench, begin time.Time) {
			b.hears(begin, "a.test", "A", leadsTo("a.test", "192.0.2.1"))
			b.hears(begin.Add(at(1)), "b.test", "A", leadsTo("b.test", "192.0.2.1"))
			b.hears(begin.Add(at(2)), "a.test", "A", leadsTo("a.test", "192.0.2.1"))
		}, "a.test"},
		"not one that was asked for after it": {func(b *bench, begin time.Time) {
			b.hears(begin, "a.test", "A", leadsTo("a.test", "192.0.2.1"))
			b.hears(begin.Add(at(8)), "b.test", "A", leadsTo("b.test", "192.0.2.1"))
		}, "a.test"},
		"none for another address":   {func(b *bench, begin time.Time) { b.hears(begin, "a.test", "A", leadsTo("a.test", "192.0.2.2")) }, ""},
		"none where nobody asked":    {func(*bench, time.Time) {}, ""},
		"none for only the question": {func(b *bench, begin time.Time) { b.hears(begin, "a.test", "A") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, begin := named(t)
			c.do(b, begin)
			b.dials(begin.Add(at(5)), connects("192.0.2.1", ""))
			if got := b.dialed()["192.0.2.1"]; got != c.want {
				t.Errorf("the peer is %q, want %q", got, c.want)
			}
		})
	}
}

func TestTheNameIsThatOfTheAddressThatWasAskedFor(t *testing.T) {
	b, begin := named(t)
	b.hears(begin, "api.shop.svc.cluster.local", "A", leadsTo("api.shop.svc.cluster.local", "10.96.0.7"))
	f := connects("10.1.0.3", "")
	f.Via = netip.MustParseAddrPort("10.96.0.7:80")
	b.dials(begin.Add(time.Second), f)
	if got := b.dialed()["10.1.0.3"]; got != "api.shop.svc.cluster.local" {
		t.Errorf("the peer is %q", got)
	}
}

func TestAnAnswerThatComesLateFromAnotherProcessor(t *testing.T) {
	b, _ := named(t)
	b.dials(b.clock, connects("192.0.2.1", ""))
	b.dials(b.clock, connects("192.0.2.9", ""))
	b.release(false)
	if got := b.dialed(); len(got) != 0 {
		t.Fatalf("stated at once: %v", got)
	}
	b.hears(b.clock.Add(-time.Millisecond), "a.test", "A", leadsTo("a.test", "192.0.2.1"))
	b.release(false)
	if got := b.dialed(); len(got) != 1 || got["192.0.2.1"] != "a.test" {
		t.Errorf("after the answer: %v", got)
	}
	b.clock = b.clock.Add(namelessGrace)
	b.release(false)
	if got := b.dialed(); len(got) != 2 || got["192.0.2.9"] != "" {
		t.Errorf("in the end: %v", got)
	}
}

func TestTheEndOfARunWaitsForNoName(t *testing.T) {
	b, _ := named(t)
	b.dials(b.clock, connects("192.0.2.1", ""))
	b.release(true)
	if got := b.dialed(); len(got) != 1 || len(b.nameless) != 0 {
		t.Errorf("got %v, %d wait", got, len(b.nameless))
	}
}

func TestNamesAreBoundedAndTheOldestGoesFirstAndSaysSo(t *testing.T) {
	b, begin := named(t)
	for i := range maxNamed + 1 {
		name := fmt.Sprintf("n%d.test", i)
		b.hears(begin.Add(time.Duration(i)*time.Millisecond), name, "A", leadsTo(name, netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}).String()))
	}
	if got := b.lostOf(idA)[namesForgotten]; got != 1 {
		t.Errorf("lost %v", b.lostOf(idA))
	}
	b.dials(b.clock.Add(-time.Second), connects("10.9.0.0", ""))
	b.dials(b.clock.Add(-time.Second), connects("10.9.0.1", ""))
	if got := b.dialed(); got["10.9.0.0"] != "" || got["10.9.0.1"] != "n1.test" {
		t.Errorf("peers are %v", got)
	}
	n := names{}
	for i := range maxNamesOfOne + 3 {
		n.learn(netip.MustParseAddr("192.0.2.1"), fmt.Sprint(i), begin.Add(time.Duration(i)))
	}
	if list := n[netip.MustParseAddr("192.0.2.1")]; len(list) != maxNamesOfOne || list[0].name != "3" {
		t.Errorf("of one address %v are remembered", list)
	}
}

func TestNamesOfOneContainerAreNotAnothers(t *testing.T) {
	b, begin := named(t)
	b.hears(begin, "a.test", "A", leadsTo("a.test", "192.0.2.1"))
	b.pod("api-1", uidB, b.clock, [2]string{"api", idB})
	b.procs.process("200", 78, cgroupOf(uidB, idB))
	b.record(Record{MountNS: 78, PID: 200, Time: begin.Add(time.Second), Fact: connects("192.0.2.1", "")})
	b.want(idB, connects("192.0.2.1", ""))
}
