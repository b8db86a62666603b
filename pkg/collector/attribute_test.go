//go:build linux

package collector

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

const uidB = "1c7c5c2d-1111-4222-8333-444455556666"

func TestFactsOfAKnownContainerAreItsOwn(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, reads("/etc/a"))
	b.want(idA, reads("/etc/a"))
	c := b.store.containers[idA].wire(b.clock)
	if c.Namespace != "shop" || c.Pod != "web-1" || c.Name != "web" || c.Image != "localhost/web:1@sha256:1234" {
		t.Errorf("container is %+v", c)
	}
}

func TestFactsOfAContainerThatIsNamedLaterAreKept(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", ""})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	id := b.sees(77, 100, reads("/etc/a"))
	b.kern.calls[77] = []SyscallSet{{Arch: "amd64", Names: []string{"openat"}}}
	b.kern.counts[id] = 9
	b.pass(time.Second)
	b.want(idA)
	if got := b.Status().Unattributed; got != 1 {
		t.Errorf("%d records unattributed while the pod's container is not named, want 1", got)
	}
	b.procs.exit("100") // and it is gone before it is named
	b.pass(5 * time.Second)
	b.pass(20 * time.Second)
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.pass(time.Second)
	b.want(idA, reads("/etc/a"), behavior.Fact{Kind: behavior.Syscall, Name: "openat", Arch: "amd64"})
	if got := b.Status().Unattributed; got != 0 {
		t.Errorf("%d records unattributed in the end", got)
	}
	if b.kern.forgot[77] == 0 {
		t.Error("the kernel side keeps the mount namespace that is gone")
	}
}

func TestAContainerThatWasGoneAtOnceIsFoundByItsCgroupName(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.sees(77, 100, runs("/bin/true"), "cri-containerd-"+idA+".scope")
	b.pass(3 * time.Second)
	b.pod("job-1", uidA, b.clock, [2]string{"job", idA})
	b.pass(time.Second)
	b.want(idA, runs("/bin/true"))
}

func TestWhoIsNoContainerOfThisNode(t *testing.T) {
	for name, c := range map[string]struct {
		place            string
		names            []string // when the process is gone
		after            time.Duration
		ignored          bool
		unattributedSoon uint64
		unattributed     uint64
	}{
		"a service of the host is ignored in the kernel":                   {place: "/system.slice/cron.service", after: time.Minute, ignored: true},
		"a container of another node on the same kernel is passed over":    {place: cgroupOf(uidB, idB), after: time.Minute},
		"the sandbox of a pod whose containers are all named is no loss":   {place: cgroupOf(uidA, idB), after: time.Minute},
		"a container that no kubelet made is passed over":                  {place: "/docker/" + idB, after: time.Minute},
		"one of no pod that was gone at once is passed over":               {names: []string{"docker-" + idB + ".scope", "system.slice"}, after: 3 * time.Minute},
		"one that was gone and that nobody ever names is counted":          {names: []string{idB}, after: 3 * time.Minute, unattributedSoon: 1, unattributed: 1},
		"one that was gone and that has no name to look for is counted so": {names: nil, after: 3 * time.Minute, unattributedSoon: 1, unattributed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, DefaultLimits())
			b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
			if c.place != "" {
				b.procs.process("100", 77, c.place)
			}
			b.sees(77, 100, reads("/x"), c.names...)
			b.pass(3 * time.Second)
			if got := b.Status().Unattributed; got != c.unattributedSoon {
				t.Errorf("%d unattributed soon, want %d", got, c.unattributedSoon)
			}
			b.pass(c.after)
			if got := b.Status().Unattributed; got != c.unattributed {
				t.Errorf("%d unattributed in the end, want %d", got, c.unattributed)
			}
			if b.kern.ignored[77] != c.ignored {
				t.Errorf("ignored is %t, want %t", b.kern.ignored[77], c.ignored)
			}
			if b.pending != 0 {
				t.Errorf("%d records are still pending", b.pending)
			}
			if len(b.store.containers) != 0 {
				t.Error("a container was made of it")
			}
		})
	}
}

func TestNothingIsDecidedWhileTheAPIServerHasNotAnswered(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pods.synced = false
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, reads("/x"))
	b.pass(time.Hour)
	if b.kern.ignored[77] || b.spaces[77].foreign {
		t.Fatal("the container was given up")
	}
	b.pods.synced = true
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.pass(time.Second)
	b.want(idA, reads("/x"))
}

func TestAReusedMountNamespaceNumberIsAnotherContainer(t *testing.T) {
	for name, between := range map[string]func(*bench){
		"when a scan came between": func(b *bench) { b.pass(2 * time.Second) },
		"when no scan came between": func(*bench) {
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, DefaultLimits())
			b.pod("a", uidA, b.clock, [2]string{"web", idA})
			b.pod("b", uidB, b.clock, [2]string{"api", idB})
			b.procs.process("100", 77, cgroupOf(uidA, idA))
			b.sees(77, 100, runs("/a"))
			b.pass(time.Second)
			b.procs.exit("100")
			between(b)
			b.procs.process("200", 77, cgroupOf(uidB, idB))
			b.sees(77, 200, runs("/b"))
			b.sees(77, 200, reads("/of-b"))
			b.want(idA, runs("/a"))
			b.want(idB, runs("/b"), reads("/of-b"))
			if b.kern.forgot[77] == 0 {
				t.Error("the kernel side was not told to forget the first")
			}
			if b.store.containers[idA].to.IsZero() {
				t.Error("the first container has no end")
			}
		})
	}
}

func TestANumberThatWasIgnoredIsWatchedAgainForAnotherContainer(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.procs.process("100", 77, "/system.slice/cron.service")
	b.sees(77, 100, reads("/etc/crontab"))
	b.pass(time.Second)
	b.pass(time.Minute)
	if !b.kern.ignored[77] {
		t.Fatal("the host's service is not ignored")
	}
	b.procs.exit("100")
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("200", 77, cgroupOf(uidA, idA))
	b.pass(time.Second)
	if b.kern.ignored[77] {
		t.Error("the container is ignored like the service before it")
	}
	if c := b.store.containers[idA]; c == nil || !c.from.Equal(b.clock) || c.start {
		t.Errorf("the container claims more than was seen: %+v", c)
	}
}

func TestANestedMountNamespaceIsThePodsContainer(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.procs.process("101", 78, cgroupOf(uidA, idA)+"/docker/"+idB)
	b.sees(77, 100, reads("/outer"))
	b.sees(78, 101, reads("/inner"), idB)
	b.want(idA, reads("/outer"), reads("/inner"))
}

func TestPendingRecordsAreBoundedAndCounted(t *testing.T) {
	limits := DefaultLimits()
	limits.PendingRecords, limits.TotalPending, limits.ReservedPending = 3, 5, 0
	b := newBench(t, limits)
	for ns := uint32(10); ns < 12; ns++ {
		for i := range 4 {
			b.sees(ns, 1000, reads(fmt.Sprint("/", i)), idB)
		}
	}
	if b.pending != 5 || b.spaces[10].waiting() != 4 || b.spaces[11].waiting() != 4 {
		t.Errorf("%d pending, %d and %d records are known of; want 5, 4 and 4", b.pending, b.spaces[10].waiting(), b.spaces[11].waiting())
	}
	b.pod("web-1", uidA, b.clock, [2]string{"web", idB})
	b.pass(time.Second)
	k := b.store.containers[idB].wire(b.clock)
	var lost uint64
	for reason, n := range k.Lost {
		lost += n
		if k.LostAt[reason].First.IsZero() {
			t.Errorf("nobody knows when it was: %s", reason)
		}
	}
	if lost != 3 {
		t.Errorf("the container lost %v, want 3", k.Lost)
	}
}

func TestFactsOfAContainerAreBoundedAndCounted(t *testing.T) {
	limits := DefaultLimits()
	limits.ContainerFacts = 2
	b := newBench(t, limits)
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	for i := range 5 {
		b.sees(77, 100, reads(fmt.Sprint("/", i)))
	}
	b.sees(77, 100, reads("/0"))
	c := b.store.containers[idA]
	if len(c.entries) != 2 || c.lost["limit of facts of a container"] != 3 {
		t.Errorf("%d facts, lost %v; want 2 and 3", len(c.entries), c.lost)
	}
}

func TestACutPathIsALossAndNoFact(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.record(Record{MountNS: 77, PID: 100, ID: 1, Time: b.clock, Fact: reads("/cut"), Truncated: true})
	b.want(idA)
	if c := b.store.containers[idA]; len(c.lost) != 1 {
		t.Errorf("lost is %v", c.lost)
	}
}

func TestANameThatWasNotResolvedIsNoFact(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.record(Record{MountNS: 77, PID: 100, ID: 1, Time: b.clock, Fact: reads("unresolved:/tmp/x"), Unresolved: true})
	b.record(Record{MountNS: 77, PID: 100, ID: 2, Time: b.clock, Fact: reads("/tmp/x")})
	b.want(idA, reads("/tmp/x"))
}

func TestTheStartIsClaimedOnlyWhenItWasSeen(t *testing.T) {
	for name, c := range map[string]struct {
		started time.Duration
		fact    behavior.Fact
		want    bool
	}{
		"a program from outside after the collector came":  {time.Minute, runs("/app"), true},
		"an exec session in a container that ran before":   {-time.Minute, runs("/bin/sh"), false},
		"only a program that the container itself started": {time.Minute, behavior.Fact{Kind: behavior.Process, Path: "/b", Parent: "/app"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, DefaultLimits())
			b.pod("web-1", uidA, b.clock.Add(c.started), [2]string{"web", idA})
			b.clock = b.clock.Add(2 * time.Minute)
			b.procs.process("100", 77, cgroupOf(uidA, idA))
			b.sees(77, 100, c.fact)
			if got := b.store.containers[idA].start; got != c.want {
				t.Errorf("start is %t", got)
			}
		})
	}
}

func TestCountsOfSeveralKeysOfOneFactAddUp(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	first, second := b.sees(77, 100, reads("/log")), b.sees(77, 100, reads("/log"))
	b.kern.counts[first], b.kern.counts[second] = 10, 5
	b.kern.lastSeen = b.clock.Add(time.Minute)
	for range 2 {
		if err := b.refresh(); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.facts(idA)[reads("/log").String()]; got != 15 {
		t.Errorf("count is %d, want 15", got)
	}
}

func TestARuntimeThatStartsAContainerDoesNotMakeTheHostOne(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.procs.process("50", 70, "/system.slice/containerd.service")
	b.pass(0) // the collector has just come
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 70, cgroupOf(uidA, idA)) // runc init, before it leaves the host's mount namespace
	init := reads("/run/runc/state.json")
	init.Runtime = true
	b.sees(70, 100, init, idA, "pod"+uidA)
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, runs("/app"), idA, "pod"+uidA)
	b.sees(70, 50, reads("/etc/containerd/config.toml"))
	b.pass(time.Second)
	b.pass(time.Minute)
	b.want(idA, runs("/app"))
	if !b.kern.ignored[70] {
		t.Error("the host's mount namespace is not ignored")
	}
}

func TestAVisitorOfAnotherContainerDoesNotChangeWhoseItIs(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.pod("b", uidB, b.clock, [2]string{"agent", idB})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, runs("/a"))
	b.pass(time.Second)
	b.procs.process("200", 77, cgroupOf(uidB, idB)) // nsenter
	b.sees(77, 200, runs("/bin/sh"), idB, "pod"+uidB)
	b.pass(time.Second)
	b.want(idA, runs("/a"), runs("/bin/sh"))
	b.want(idB)
}

func TestAProcessThatIsMovedIntoItsGroupLaterIsItsContainers(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, "/")
	early := reads("/early")
	early.Runtime = true
	b.sees(77, 100, early)
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, runs("/a"), idA, "pod"+uidA)
	b.want(idA, early, runs("/a"))
}

func TestTheRuntimesOwnProcessNumbersAreNoFacts(t *testing.T) {
	for path, want := range map[string]string{
		"/proc/123/fd": "/proc/self/fd", "/proc/123": "/proc/self", "/proc/sys/x": "/proc/sys/x", "/proc/12a/fd": "/proc/12a/fd", "/data/proc/1/x": "/data/proc/1/x",
	} {
		if got := withoutPID(path); got != want {
			t.Errorf("%s becomes %s, want %s", path, got, want)
		}
	}
}

func TestTheLinkerOfAProgramThatWasGoneComesFromTheSameImage(t *testing.T) {
	b := newBench(t, DefaultLimits())
	p := runs("/app")
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, p)
	l := <-b.lookups
	b.found(l, "", errors.New("gone"))
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	if lost := b.store.containers[idA].wire(b.clock).Lost; len(lost) != 1 {
		t.Errorf("lost is %v", lost)
	}
	b.procs.process("200", 78, cgroupOf(uidB, idB)) // its container is named later
	b.sees(78, 200, p)
	l = <-b.lookups
	b.found(l, "/lib/ld.so", nil)
	b.pod("b", uidB, b.clock, [2]string{"web", idB})
	b.pass(time.Second)
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	linker := behavior.Fact{Kind: behavior.File, Exe: "/app", Path: "/lib/ld.so", Access: behavior.Read}
	for _, id := range []string{idA, idB} {
		b.want(id, p, linker)
		if lost := b.store.containers[id].wire(b.clock).Lost; len(lost) != 0 {
			t.Errorf("container %.4s lost %v", id, lost)
		}
	}
}
