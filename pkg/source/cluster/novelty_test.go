package cluster

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
)

func TestNothingNewIsWhatNoPodOfTheWorkloadHadNotDone(t *testing.T) {
	web := behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: "web"}
	read := func(path string, change func(*behavior.Fact)) behavior.Fact {
		f := behavior.Fact{Kind: behavior.File, Exe: "/app", Path: path, Access: behavior.Read}
		if change != nil {
			change(&f)
		}
		return f
	}
	entered := func(f *behavior.Fact) { f.Origin = behavior.OriginExec }
	for name, c := range map[string]struct {
		entered bool
		fact    behavior.Fact
		isNew   bool
	}{
		"the same again":                      {false, read("/a", nil), false},
		"something else":                      {false, read("/b", nil), true},
		"a probe does something else":         {false, read("/b", func(f *behavior.Fact) { f.Origin = behavior.OriginProbe }), true},
		"its runtime does something":          {false, read("/b", func(f *behavior.Fact) { f.Runtime = true }), false},
		"somebody who entered does something": {false, read("/b", entered), false},
		"the same, which was asked for":       {true, read("/b", entered), true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNovelty(at(), c.entered)
			n.add(web, read("/a", nil), at().Add(time.Second))
			later := at().Add(30 * time.Second)
			n.add(web, c.fact, later)
			if n.last.Equal(later) != c.isNew || n.since.Equal(later) != c.isNew || n.rate(later) != map[bool]int{false: 1, true: 2}[c.isNew] {
				t.Errorf("last %s, %d a minute", n.last, n.rate(later))
			}
			if got := n.rate(later.Add(time.Minute)); got != 0 {
				t.Errorf("%d a minute, a minute later", got)
			}
		})
	}
}

func TestSilenceCountsOnlyWhileAllIsObserved(t *testing.T) {
	n := newNovelty(at(), false)
	n.complete(at().Add(time.Minute), false)
	n.complete(at().Add(2*time.Minute), true)
	if got := at().Add(2 * time.Minute).Sub(n.since); got != time.Minute {
		t.Errorf("silent for %s, want since the last time that something was not observed", got)
	}
}

func TestAReplicaThatDoesTheSameIsNothingNew(t *testing.T) {
	s := planted(t)
	call := func(address string) behavior.Fact {
		return behavior.Fact{Kind: behavior.Network, Exe: "/app", Direction: behavior.Ingress, Protocol: "tcp", Port: 80, Peer: behavior.Peer{Address: netip.MustParseAddr(address)}}
	}
	news := newNovelty(at(), false)
	tell := func(node, pod, container string, f behavior.Fact) {
		n := s.nodes[node]
		if n == nil {
			n = s.plant(node, "", "", nil)
			n.most = limits{weight: 1 << 20}
		}
		c := wire.Container{Namespace: "shop", Pod: pod, Name: container, ID: pod, Facts: []wire.Observation{{Fact: f, Count: 1, First: at(), Last: at()}}}
		if err := n.take(wire.Batch{Epoch: "e", Containers: []wire.Container{c}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.unseen(); !reflect.DeepEqual(got, []string{"api-1", "web-1", "web-2"}) {
		t.Errorf("unseen before anything was told: %q", got)
	}
	tell("node-1", "api-1", "api", call("10.0.1.1"))
	s.novel(news, at().Add(time.Second))
	// Another pod of web calls: the same workload.
	tell("node-1", "api-1", "api", call("10.0.1.2"))
	s.novel(news, at().Add(2*time.Second))
	if !news.last.Equal(at().Add(time.Second)) || news.who.Workload.Name != "api" {
		t.Errorf("something new at %s by %+v", news.last, news.who)
	}
	tell("node-1", "web-1", "web", behavior.Fact{Kind: behavior.Process, Path: "/app"})
	s.novel(news, at().Add(3*time.Second))
	tell("node-2", "web-2", "web", behavior.Fact{Kind: behavior.Process, Path: "/app"})
	s.novel(news, at().Add(4*time.Second))
	if !news.last.Equal(at().Add(3 * time.Second)) {
		t.Errorf("a second replica did something new at %s", news.last)
	}
	if got := s.unseen(); len(got) != 0 {
		t.Errorf("unseen after all was told: %q", got)
	}
}
