//go:build linux

package collector

import (
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// loses lets the kernel side have lost so much in a namespace by now.
func (b *bench) loses(ns uint32, reason string, total uint64) {
	b.t.Helper()
	b.kern.mu.Lock()
	b.kern.spaceLost[ns] = map[string]uint64{reason: total}
	b.kern.mu.Unlock()
	if err := b.takeLosses(); err != nil {
		b.t.Fatal(err)
	}
}

func TestWhatANamespaceLostIsItsContainersWithTheMoment(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, reads("/a"))
	before := b.clock
	b.pass(time.Second)
	b.loses(77, "ring buffer full: file", 3)
	b.pass(time.Second)
	b.loses(77, "ring buffer full: file", 3)
	b.pass(time.Second)
	b.loses(77, "ring buffer full: file", 5)
	k := b.store.containers[idA].wire(b.clock)
	if k.Lost["ring buffer full: file"] != 5 || k.LostAt["ring buffer full: file"] != (behavior.Span{First: before, Last: b.clock}) {
		t.Errorf("lost %v at %v", k.Lost, k.LostAt)
	}
	if s := b.Status(); len(s.Lost) > 0 {
		t.Errorf("the node lost %v too", s.Lost)
	}
	b.loses(77, "ring buffer full: file", 2) // forgotten, and another under the number
	if got := b.store.containers[idA].lost["ring buffer full: file"]; got != 7 {
		t.Errorf("a counter that began anew gives %d, want 7", got)
	}
}

func TestWhatWasLostBeforeTheContainerWasKnownIsItsOwn(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.loses(77, "ring buffer full: process", 4) // not one record came through
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.pass(time.Second)
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.pass(time.Second)
	if k := b.store.containers[idA]; k == nil || k.lost["ring buffer full: process"] != 4 {
		t.Errorf("the container is %+v", k)
	}
}

func TestLossesOfWhatIsNotOurs(t *testing.T) {
	for name, c := range map[string]struct {
		place        string
		unattributed uint64
	}{
		"a service of the host loses nothing of ours":            {"/system.slice/cron.service", 0},
		"a container of another node loses nothing of ours":      {cgroupOf(uidB, idB), 0},
		"of one that was gone at once nobody knows whose it was": {"", 4},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, DefaultLimits())
			if c.place != "" {
				b.procs.process("100", 77, c.place)
				b.pass(time.Second)
			}
			b.loses(77, "ring buffer full: file", 4)
			b.pass(5 * time.Second)
			b.pass(3 * time.Minute)
			s := b.Status()
			if s.Unattributed != c.unattributed || len(s.Lost) > 0 {
				t.Errorf("%d unattributed, lost %v; want %d and none", s.Unattributed, s.Lost, c.unattributed)
			}
		})
	}
}

func TestWhatTheNodeLostHasItsMoment(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pass(time.Second)
	if err := b.takeLosses(); err != nil {
		t.Fatal(err)
	}
	first := b.clock
	b.pass(time.Second)
	b.kern.lost["program re-entered: x"] = 2
	s := b.Status()
	if s.Lost["program re-entered: x"] != 2 || s.LostAt["program re-entered: x"] != (behavior.Span{First: first, Last: b.clock}) {
		t.Errorf("lost %v at %v", s.Lost, s.LostAt)
	}
	if s := b.Status(); s.Lost["program re-entered: x"] != 2 {
		t.Errorf("asked again, it is %v", s.Lost)
	}
}

func TestTheStatusSaysWhichHooksSawAKindAndHowFullTheMapsWere(t *testing.T) {
	s := newBench(t, DefaultLimits()).Status()
	if h := s.Hooks[behavior.File]; len(h) != 2 || h[0] != "snapshot" || h[1] != "tracepoint" {
		t.Errorf("files are seen by %v", h)
	}
	if h := s.Hooks[behavior.DNS]; len(h) != 1 || h[0] != "cgroup" {
		t.Errorf("names are seen by %v", h)
	}
	if s.Maps["files"] != (behavior.MapUse{High: 7, Size: 10}) {
		t.Errorf("maps are %v", s.Maps)
	}
}
