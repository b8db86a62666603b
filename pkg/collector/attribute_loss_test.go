//go:build linux

package collector

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

const (
	idC = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	idD = "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
)

// seesOf lets a record of one generation of a mount namespace come.
func (b *bench) seesOf(generation, ns uint32, pid int, f behavior.Fact) {
	b.id++
	b.record(Record{MountNS: ns, Generation: generation, PID: pid, ID: b.id, Time: b.clock, Fact: f})
}

// lostOf gives what a container is said to have lost, by reason.
func (b *bench) lostOf(id string) map[string]uint64 {
	b.t.Helper()
	k := b.store.containers[id]
	if k == nil {
		b.t.Fatalf("no container %.4s", id)
	}
	return k.wire(b.clock).Lost
}

func calls(names string) behavior.Fact {
	return behavior.Fact{Kind: behavior.Syscall, Name: names, Arch: "amd64"}
}

// The kernel gives the number of a mount namespace out again at once, so the next
// container of the number may act before any scan has noticed.
func TestTheLastSystemCallsOfAContainerWhoseNumberIsReusedAreItsOwn(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.pod("b", uidB, b.clock, [2]string{"api", idB})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.seesOf(1, 77, 100, runs("/a"))
	b.procs.exit("100")
	b.procs.process("200", 77, cgroupOf(uidB, idB))
	b.kern.calls[77] = []SyscallSet{
		{Generation: 1, Arch: "amd64", Names: []string{"chroot"}}, {Generation: 2, Arch: "amd64", Names: []string{"setns"}},
	}
	b.seesOf(2, 77, 200, runs("/b"))
	b.kern.calls[77] = []SyscallSet{{Generation: 2, Arch: "amd64", Names: []string{"setns"}}}
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	b.want(idA, runs("/a"), calls("chroot"))
	b.want(idB, runs("/b"), calls("setns"))
}

// Records of two processors come out of order, and on 6.18 a later namespace may
// have the lower generation.
func TestALateRecordOfThePredecessorTakesNothingFromAContainer(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.pod("b", uidB, b.clock, [2]string{"api", idB})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.seesOf(9, 77, 100, runs("/a"))
	b.procs.exit("100")
	b.procs.process("200", 77, cgroupOf(uidB, idB))
	b.kern.calls[77] = []SyscallSet{
		{Generation: 9, Arch: "amd64", Names: []string{"chroot"}}, {Generation: 4, Arch: "amd64", Names: []string{"setns"}},
	}
	b.seesOf(4, 77, 200, runs("/b"))
	b.seesOf(9, 77, 100, reads("/late"))
	b.seesOf(4, 77, 200, reads("/mine"))
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	b.want(idA, runs("/a"), reads("/late"), calls("chroot"))
	b.want(idB, runs("/b"), reads("/mine"), calls("setns"))
	if lost := b.lostOf(idB); len(lost) > 0 {
		t.Errorf("lost: %v", lost)
	}
}

// A container whose number another one has got is told to be gone more than once: by
// the other's first record, by the next scan and by what is left of its calls. None
// of that may take the other's, which nobody would miss.
func TestWhoIsForgottenTakesNothingFromTheNextOfItsNumber(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.pod("b", uidB, b.clock, [2]string{"api", idB})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	before, after := SyscallSet{Generation: 1, Arch: "amd64", Names: []string{"chroot"}}, SyscallSet{Generation: 2, Arch: "amd64", Names: []string{"setns"}}
	b.seesOf(1, 77, 100, runs("/a"))
	b.kern.calls[77] = []SyscallSet{before}
	if err := b.scan(); err != nil {
		t.Fatal(err)
	}
	b.procs.exit("100")
	// The next one calls before it does anything else that is recorded.
	b.procs.process("200", 77, cgroupOf(uidB, idB))
	b.kern.calls[77] = []SyscallSet{before, after}
	for range 2 {
		b.pass(scanEvery)
		if err := errors.Join(b.scan(), b.refresh()); err != nil {
			t.Fatal(err)
		}
	}
	b.seesOf(2, 77, 200, runs("/b"))
	for range 6 {
		b.pass(scanEvery)
		if err := errors.Join(b.scan(), b.refresh()); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.kern.calls[77]; len(got) != 1 || got[0].Generation != 2 {
		t.Errorf("the kernel keeps %v, want the second one's only", got)
	}
	b.want(idA, runs("/a"), calls("chroot"))
	b.want(idB, runs("/b"), calls("setns"))
}

func TestARecordOfAnotherGenerationIsNeverTakenForTheContainersBefore(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.pod("b", uidB, b.clock, [2]string{"api", idB})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.seesOf(1, 77, 100, runs("/a"))
	b.procs.exit("100")
	b.procs.process("200", 77, cgroupOf(uidB, idB))
	b.seesOf(2, 77, 200, reads("/not-where-a-container-begins"))
	b.want(idA, runs("/a"))
	b.want(idB, reads("/not-where-a-container-begins"))
}

func TestSystemCallsThatNobodyCanBeToldOfAreCounted(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.kern.calls[78] = []SyscallSet{{Generation: 5, Arch: "amd64", Names: []string{"unshare", "exit"}}}
	for range 2 {
		if err := b.refresh(); err != nil {
			t.Fatal(err)
		}
		if lost := b.Status().Lost; len(lost) != 0 {
			t.Errorf("lost at once: %v", lost)
		}
	}
	b.pass(10 * time.Second)
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	if got := b.Status().Lost["system calls of a mount namespace that was gone at once"]; got != 2 {
		t.Errorf("%d system calls are said to be lost, want 2", got)
	}
	if b.kern.forgot[78] != 1 {
		t.Error("the kernel side keeps it, and would count it again")
	}
}

func TestWhatTheKernelCannotGiveIsNotForgotten(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, runs("/a"))
	b.pass(time.Second)
	b.procs.exit("100")
	b.kern.calls[77] = []SyscallSet{{Arch: "amd64", Names: []string{"chroot"}}}
	b.kern.err = errors.New("interrupted")
	b.clock = b.clock.Add(time.Second)
	if err := b.scan(); err == nil || b.kern.forgot[77] != 0 {
		t.Fatalf("%v, forgot %d times before its last calls were read", err, b.kern.forgot[77])
	}
	b.kern.err = nil
	b.pass(time.Second)
	b.want(idA, runs("/a"), calls("chroot"))
}

// A container that is restarted while the API server, or the kubelet, is away.
func TestAContainerThatIsNamedTooLateSaysWhatItLost(t *testing.T) {
	for name, c := range map[string]struct {
		gone bool // by the time that it is named
	}{
		"while it runs":     {false},
		"after it was gone": {true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, DefaultLimits())
			b.pod("a", uidA, b.clock, [2]string{"web", idA})
			b.procs.process("1000", 90, cgroupOf(uidA, idD)) // its sandbox
			b.pass(time.Second)
			b.pass(time.Second)
			b.procs.process("100", 77, cgroupOf(uidA, idB))
			b.sees(77, 100, runs("/b"))
			if got := b.Status().Unattributed; got != 1 {
				t.Errorf("%d records unattributed while it may still be named, want 1", got)
			}
			b.pass(podGrace)
			b.sees(77, 100, reads("/given-up"))
			if got := b.Status().Unattributed; got != 2 {
				t.Errorf("%d records unattributed once they are given up, want 2", got)
			}
			if c.gone {
				b.procs.exit("100")
				b.pass(time.Second)
			}
			b.pod("a", uidA, b.clock, [2]string{"web", idB})
			b.pass(time.Second)
			if got := b.lostOf(idB)[strangerReason]; got != 2 {
				t.Errorf("lost %v, want 2", b.lostOf(idB))
			}
			if got := b.Status().Unattributed; got != 0 {
				t.Errorf("%d records unattributed in the end", got)
			}
			if !c.gone {
				b.sees(77, 100, reads("/later"))
				b.want(idB, reads("/later"))
			}
		})
	}
}

func TestAContainerThatDiedUnnamedIsCountedAndASandboxIsNot(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("1000", 90, cgroupOf(uidA, idD))
	b.sees(90, 1000, runs("/pause"))
	b.pass(podGrace + time.Second)
	if got := b.Status().Unattributed; got != 0 {
		t.Fatalf("%d records of a sandbox are unattributed", got)
	}
	b.procs.process("100", 77, cgroupOf(uidA, idC)) // crashes before the kubelet tells of it
	b.sees(77, 100, runs("/c"), idC, "pod"+uidA)
	b.procs.exit("100")
	b.pass(3 * time.Second)
	b.pass(3 * podGrace)
	if got := b.Status().Unattributed; got != 1 {
		t.Errorf("%d records unattributed, want that of the container", got)
	}
	// The pod ends, and its sandbox with it.
	b.pods.end(uidA)
	b.procs.exit("1000")
	b.pass(3 * time.Second)
	b.pass(3 * podGrace)
	if got := b.Status().Unattributed; got != 1 {
		t.Errorf("%d records unattributed after the sandbox ended, want 1", got)
	}
}

func TestNothingIsGivenUpWhileTheAPIServerIsAway(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idB))
	b.sees(77, 100, runs("/b"))
	b.pods.listed(errors.New("connection refused"))
	b.pass(time.Hour)
	s := b.Status()
	if len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "connection refused") {
		t.Errorf("problems are %q", s.Problems)
	}
	b.pods.listed(nil)
	b.pod("a", uidA, b.clock, [2]string{"web", idB})
	b.pass(time.Second)
	b.want(idB, runs("/b"))
	if lost := b.lostOf(idB); len(lost) != 0 {
		t.Errorf("lost %v", lost)
	}
}

// Somebody sets the node's clock.
func TestASteppedClockLosesNothingAndIsSaid(t *testing.T) {
	for name, step := range map[string]time.Duration{"forward": 48 * time.Hour, "back": -48 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, DefaultLimits())
			began := b.clock
			steady := began
			b.steady = func() time.Time { return steady }
			tick := func(d time.Duration) {
				steady = steady.Add(d)
				b.pass(d)
			}
			b.pod("a", uidA, began, [2]string{"web", ""})
			b.procs.process("100", 77, cgroupOf(uidA, idA))
			b.sees(77, 100, runs("/a"))
			b.procs.process("101", 78, "/") // on its way into its group
			b.sees(78, 101, runs("/b"))
			tick(time.Second)
			b.clock = b.clock.Add(step)
			tick(time.Second / 2)
			b.pod("a", uidA, began, [2]string{"web", idA})
			b.procs.process("101", 78, cgroupOf(uidB, idB))
			b.pod("b", uidB, began, [2]string{"api", idB})
			tick(time.Second / 4)
			b.want(idA, runs("/a"))
			b.want(idB, runs("/b"))
			if got := b.Status().Lost["the node's clock was set"]; got != 1 {
				t.Errorf("lost is %v", b.Status().Lost)
			}
		})
	}
}

func TestMorePodsThanAreRememberedAreSaid(t *testing.T) {
	b := newBench(t, DefaultLimits())
	for i := range maxPods {
		b.pods.complete[fmt.Sprint(i)] = true
	}
	b.pods.set(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "one-too-many", UID: types.UID(uidA)}})
	if got := b.Status().Lost["more pods than are remembered"]; got != 1 {
		t.Errorf("lost is %v", b.Status().Lost)
	}
}

// What only waits is not ignored in the kernel by a number that another one gets.
func TestAnIdleServiceOfTheHostDoesNotHideTheNextOfItsNumber(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.procs.process("100", 77, "/system.slice/idle.service")
	b.pass(time.Second)
	b.pass(time.Minute)
	if b.kern.ignored[77] {
		t.Error("ignored by its number alone")
	}
	b.procs.exit("100")
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("200", 77, cgroupOf(uidA, idA))
	b.seesOf(3, 77, 200, runs("/a"))
	b.want(idA, runs("/a"))
}

// A kernel that tells generations: the runtime moves the process after it has made
// the namespace, and the process is gone before any scan.
func TestAProcessThatIsMovedAndGoneBeforeAScanIsItsContainers(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	see := func(f behavior.Fact, names ...string) {
		b.id++
		b.record(Record{MountNS: 77, Generation: 4, PID: 100, ID: b.id, Time: b.clock, Fact: f, CgroupNames: names})
	}
	early := reads("/early")
	early.Runtime = true
	see(early, "system.slice")
	see(runs("/a"), idA, "pod"+uidA)
	b.want(idA, early, runs("/a"))
}

func TestAProcessOfTheHostThatWasGoneAtOnceIsNobodysLoss(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.id++
	b.record(Record{MountNS: 77, Generation: 4, PID: 100, ID: b.id, Time: b.clock, Fact: runs("/usr/bin/tool"), CgroupNames: []string{"cron.service", "system.slice"}})
	for range 5 {
		b.pass(time.Minute)
		if got := b.Status().Unattributed; got != 0 {
			t.Fatalf("%d records unattributed", got)
		}
	}
}

// A thread may be alone in a mount namespace, where no scan finds it.
func TestWhatAThreadCallsAfterItsNamespaceWasTakenForGoneIsItsContainers(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.seesOf(3, 77, 100, runs("/a"))
	b.pass(time.Second)
	b.procs.exit("100")
	b.pass(time.Second)
	b.kern.calls[77] = []SyscallSet{{Generation: 3, Arch: "amd64", Names: []string{"chroot"}}}
	for range 2 {
		if err := b.refresh(); err != nil {
			t.Fatal(err)
		}
		b.pass(10 * time.Second)
	}
	b.want(idA, runs("/a"), calls("chroot"))
	if lost := b.Status().Lost; len(lost) > 0 {
		t.Errorf("lost %v", lost)
	}
}
