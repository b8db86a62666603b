//go:build linux

package collector

import (
	"fmt"
	"slices"
	"testing"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestAFloodOfOneContainerTakesNoRoomFromAnother(t *testing.T) {
	s := newStore(Limits{ContainerFacts: 1000, TotalFacts: 100, ReservedFacts: 10, SharedFacts: 50})
	flood, _ := s.container(containerInfo{id: "flood"}, time.Now())
	calm, _ := s.container(containerInfo{id: "calm"}, time.Now())
	at := time.Now()
	for i := range 1000 {
		s.add(flood, sighting{fact: reads(fmt.Sprint("/", i)), at: at})
	}
	if n := len(flood.entries); n != 60 || flood.lost["limit of facts of a node"] != 940 || flood.lostAt["limit of facts of a node"].First.IsZero() {
		t.Errorf("the flood holds %d facts and lost %v at %v; want 60, 940 and a time", n, flood.lost, flood.lostAt)
	}
	for i := range 10 {
		if !s.add(calm, sighting{fact: reads(fmt.Sprint("/calm", i)), at: at}) {
			t.Fatalf("fact %d of the other container found no room", i)
		}
	}
	if len(calm.lost) > 0 {
		t.Errorf("the other container lost %v", calm.lost)
	}
}

func TestAFloodOfRecordsBeforeContainersAreKnownLeavesRoomForOthers(t *testing.T) {
	limits := DefaultLimits()
	limits.PendingRecords, limits.TotalPending, limits.ReservedPending = 100, 20, 3
	b := newBench(t, limits)
	for i := range 100 {
		b.sees(10, 1000, reads(fmt.Sprint("/", i)), idB)
	}
	for i := range 3 {
		b.sees(11, 1001, reads(fmt.Sprint("/", i)), idA)
	}
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.pass(time.Second)
	b.want(idA, reads("/0"), reads("/1"), reads("/2"))
	if lost := b.store.containers[idA].lost; len(lost) > 0 {
		t.Errorf("it lost %v", lost)
	}
}

func TestALiveRecordClearsTheMarkOfASnapshotAndNotTheOtherWayRound(t *testing.T) {
	s := newStore(DefaultLimits())
	k, _ := s.container(containerInfo{id: "a"}, time.Now())
	found, seen := reads("/found"), reads("/seen")
	s.add(k, sighting{fact: found, snapshot: true})
	s.add(k, sighting{fact: seen})
	s.add(k, sighting{fact: seen, snapshot: true})
	if !k.entries[unique.Make(found)].snapshot || k.entries[unique.Make(seen)].snapshot {
		t.Fatal("marks are wrong before")
	}
	before := s.revision
	s.add(k, sighting{fact: found, id: 7})
	e := k.entries[unique.Make(found)]
	if e.snapshot || e.wire().Snapshot || e.news <= before {
		t.Errorf("after the live record the entry is %+v", e)
	}
}

func TestParentsAreSortedOnceEachAndBounded(t *testing.T) {
	s := newStore(DefaultLimits())
	k, _ := s.container(containerInfo{id: "a"}, time.Now())
	for _, parent := range []string{"/c", "/a", "/c", "", "/b", "/z", "/y"} {
		s.add(k, sighting{fact: reads("/x"), parent: parent, hasParent: true})
	}
	s.add(k, sighting{fact: reads("/x"), parent: "/nobody-looked"})
	if got := k.entries[unique.Make(reads("/x"))].wire().Parents; !slices.Equal(got, []string{"", "/a", "/b", "/c"}) || len(got) != behavior.MaxParents {
		t.Errorf("parents are %q", got)
	}
}

func TestReadinessAndSteadyState(t *testing.T) {
	for name, c := range map[string]struct {
		started       time.Duration // after the collector came
		ready         []bool        // what the API server shows, a minute apart
		busy          int           // minutes in which the container does something new
		origin        behavior.Origin
		becomes, calm bool
	}{
		"became ready and did nothing new":                     {time.Second, []bool{false, true, true, true, true, true, true, true}, 0, "", true, true},
		"was ready before":                                     {-time.Hour, []bool{true, true, true, true, true, true, true}, 0, "", false, true},
		"was shown as ready at once, and had begun since":      {time.Second, []bool{true, true}, 0, "", true, false},
		"never became ready":                                   {time.Second, []bool{false, false, false, false, false, false, false}, 0, "", false, false},
		"does something new each minute":                       {time.Second, []bool{false, true, true, true, true, true, true, true}, 8, "", true, false},
		"people in it do something new each minute":            {time.Second, []bool{false, true, true, true, true, true, true, true}, 8, behavior.OriginExec, true, true},
		"a container that stopped being ready begins to count": {time.Second, []bool{false, true, true, true, false, true, true, true}, 0, "", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, DefaultLimits())
			started := b.clock.Add(c.started)
			b.procs.process("100", 77, cgroupOf(uidA, idA))
			for i, ready := range c.ready {
				b.podWith("web-1", uidA, idA, func(p *corev1.Pod) {
					p.Status.ContainerStatuses[0].Ready = ready
					p.Status.ContainerStatuses[0].State.Running.StartedAt.Time = started
				})
				if b.pass(time.Minute); i < c.busy {
					r := Record{MountNS: 77, PID: 100, Time: b.clock, Fact: reads(fmt.Sprint("/", i))}
					if c.origin != "" {
						r.Session, r.Entered = 9, []string{"sh"}
					}
					b.record(r)
				}
			}
			got := b.store.containers[idA].wire(b.clock)
			if got.Ready != c.becomes || got.Steady != c.calm {
				t.Errorf("ready is %t, steady is %t; want %t, %t", got.Ready, got.Steady, c.becomes, c.calm)
			}
		})
	}
}

func TestAContainerThatEndsAndItsSuccessorAreCounted(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, runs("/app"))
	b.pass(3 * time.Second)
	if b.store.containers[idA].wire(b.clock).Terminated {
		t.Error("it has ended while it runs")
	}
	b.procs.exit("100")
	b.pass(3 * time.Second)
	b.pod("web-1", uidA, b.clock, [2]string{"web", idB})
	b.procs.process("200", 78, cgroupOf(uidA, idB))
	b.sees(78, 200, runs("/app"))
	b.pass(time.Second)
	first, second := b.store.containers[idA].wire(b.clock), b.store.containers[idB].wire(b.clock)
	if !first.Terminated || first.Restarts != 0 || second.Terminated || second.Restarts != 1 {
		t.Errorf("first: terminated %t, restarts %d; second: %t, %d", first.Terminated, first.Restarts, second.Terminated, second.Restarts)
	}
}
