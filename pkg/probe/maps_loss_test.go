//go:build linux

package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// lost gives one count of what a probe says that it lost, in all namespaces.
func lost(t testing.TB, p *Probe, reason string) uint64 {
	t.Helper()
	return allLost(t, p)[reason]
}

// nodeLost gives what is lost of nobody known.
func nodeLost(t testing.TB, p *Probe) map[string]uint64 {
	t.Helper()
	l, err := p.Lost()
	if err != nil {
		t.Fatal(err)
	}
	return l.Node
}

// allLost gives everything that is lost, whoever's it is.
func allLost(t testing.TB, p *Probe) map[string]uint64 {
	t.Helper()
	l, err := p.Lost()
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range l.Namespace {
		for reason, n := range of {
			l.Node[reason] += n
		}
	}
	return l.Node
}

// found gives the facts among the records, but those that are the runtime's.
func found(records []Record) map[behavior.Fact]bool {
	facts := map[behavior.Fact]bool{}
	for _, r := range records {
		if !r.Fact.Runtime {
			facts[r.Fact] = true
		}
	}
	return facts
}

func TestEveryMapThatIsFullIsCountedAndHidesNothing(t *testing.T) {
	var programs, ports []string
	for i := range 12 {
		programs = append(programs, fmt.Sprintf("run /bin/program-%d true", i))
		ports = append(ports, fmt.Sprintf("tcp 127.0.0.1:%d", 7000+i))
	}
	for _, c := range []struct {
		name    string
		options Options
		actions []string
		reason  string
		want    []behavior.Fact
	}{
		{"processes", Options{Processes: 4}, programs, "map full: process", []behavior.Fact{
			{Kind: behavior.Process, Path: "/bin/program-0", Parent: "/bin/app"}, {Kind: behavior.Process, Path: "/bin/program-11", Parent: "/bin/app"},
		}},
		{"files", Options{Files: 4}, []string{"read /etc/config", "many /tmp 20", "read /etc/other"}, "map full: file", []behavior.Fact{
			file("/tmp/file-000019", behavior.Read|behavior.Write|behavior.Create), file("/etc/other", behavior.Read),
		}},
		{"sockets", Options{Sockets: 4}, ports, "map full: network", []behavior.Fact{
			socket(behavior.Listen, "tcp", 7011, ""), socket(behavior.Egress, "tcp", 7011, "127.0.0.1"), socket(behavior.Ingress, "tcp", 7011, "127.0.0.1"),
		}},
		{"capabilities", Options{Capabilities: 1}, []string{"bind /etc /mnt", "chroot /"}, "map full: capability", []behavior.Fact{
			{Kind: behavior.Capability, Exe: "/bin/app", Name: "SYS_ADMIN", Syscall: "mount", Arguments: "MS_BIND"},
			{Kind: behavior.Capability, Exe: "/bin/app", Name: "SYS_CHROOT", Syscall: "chroot"},
		}},
		{"namespaces", Options{Namespaces: 1}, []string{"read /etc/config"}, "map full: syscall", []behavior.Fact{file("/etc/config", behavior.Read)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := requireProbe(t, c.options)
			if _, missing := p.Features().Missing["note_capability"]; missing && c.name == "capabilities" {
				t.Skip("SKIPPED: needs a kernel that shows capabilities to a tracepoint (6.14)")
			}
			root := newRoot(t)
			for i := range programs {
				if err := os.Link(filepath.Join(root, "bin/app"), filepath.Join(root, "bin", fmt.Sprintf("program-%d", i))); err != nil {
					t.Fatal(err)
				}
			}
			box := startContainer(t, root, actions(c.actions...)...)
			r := record(t, p, box.mntns)
			box.run(t)
			r.stop()
			facts := found(r.all())
			for _, f := range c.want {
				if !facts[f] {
					t.Errorf("%s was not recorded", f)
				}
			}
			if lost(t, p, c.reason)+lost(t, p, strings.Replace(c.reason, "map full", "share of map used up", 1)) == 0 {
				t.Errorf("nothing is said to be lost for %q", c.reason)
			}
		})
	}
}

// What was started in a container, but fits into no map any more, must not be
// taken for the runtime's, whose acts nobody learns.
func TestAProgramInMemoryStaysTheContainersOwnWhenTheMapOfProgramsIsFull(t *testing.T) {
	p := requireProbe(t, Options{})
	executed := p.collection.Maps["executed"]
	full := false
	for i := range executed.MaxEntries() + 1 {
		if err := executed.Put(bpf.FloorExecutedKey{Mntns: 1, Inode: uint64(i)}, uint8(1)); err != nil {
			full = true
			break
		}
	}
	if !full {
		t.Fatal("the map of programs takes more than it holds: it pushes older ones out")
	}
	_, records := observe(t, p, actions("memfd read /etc/config")...)
	want := behavior.Fact{Kind: behavior.File, Exe: "memfd:payload", Path: "/etc/config", Access: behavior.Read}
	wantFact(t, records, want)
}

// Who spoke first in a conversation over UDP is kept in a map that pushes out the
// oldest. That may make a fact too many, never one too few.
func TestConversationsThatArePushedOutHideNothing(t *testing.T) {
	p := requireProbe(t, Options{})
	lines := []string{"udp 127.0.0.1:5300", "pause", "udp 127.0.0.1:5301"}
	box := newContainer(t, actions(lines...)...)
	r := record(t, p, box.mntns)
	box.resume(t)
	flows := p.collection.Maps["flows"]
	for i := range flows.MaxEntries() + 4096 {
		if err := flows.Put(bpf.FloorFlowKey{Cookie: 1 << 60, Port: i}, bpf.FloorFlow{}); err != nil {
			t.Fatal(err)
		}
	}
	box.run(t)
	r.stop()
	facts := found(r.all())
	for _, port := range []uint16{5300, 5301} {
		for _, f := range []behavior.Fact{socket(behavior.Listen, "udp", port, ""), socket(behavior.Egress, "udp", port, "127.0.0.1")} {
			if !facts[f] {
				t.Errorf("%s was not recorded", f)
			}
		}
	}
}

func TestAPreemptedProgramIsCountedAndItsFactFoundWhenItHappensAgain(t *testing.T) {
	p := requireProbe(t, Options{})
	box := newContainer(t, actions("read /etc/config", "pause", "read /etc/config")...)
	r := record(t, p, box.mntns)
	busy := func(delta uint64) {
		t.Helper()
		slot := uint32(0)
		var all []bpf.FloorScratch
		scratches := p.collection.Maps["scratches"]
		if err := scratches.Lookup(slot, &all); err != nil {
			t.Fatal(err)
		}
		for i := range all {
			all[i].Busy += delta
		}
		if err := scratches.Put(slot, all); err != nil {
			t.Fatal(err)
		}
	}
	busy(1) // as if another program were at work on every CPU
	box.resume(t)
	if lost(t, p, "interrupted: file") == 0 {
		t.Error("nothing is said to be lost")
	}
	if found(r.all())[file("/etc/config", behavior.Read)] {
		t.Error("recorded without room to work in: the test shows nothing")
	}
	busy(^uint64(0))
	box.run(t)
	r.stop()
	wantFact(t, r.all(), file("/etc/config", behavior.Read))
}

func TestAMalformedRecordIsCountedAndDoesNotEndTheReader(t *testing.T) {
	p := requireProbe(t, Options{})
	if len(p.records([]byte("no record"))) > 0 {
		t.Error("it was taken for a record")
	}
	if n := lost(t, p, "malformed record"); n != 1 {
		t.Errorf("%d are said to be malformed, want 1", n)
	}
}

func TestADescriptorThatIsClosedAtOnceIsCounted(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("SKIPPED: needs two processors for a race between two threads")
	}
	p := requireProbe(t, Options{})
	var lines []string
	const rounds = 40 // what is closed after the call has returned is no loss
	for range rounds {
		lines = append(lines, "close-at-once /etc/config 100", "pause")
	}
	box := newContainer(t, actions(lines...)...)
	for range rounds {
		box.resume(t)
		if lost(t, p, "descriptor closed at once: file") > 0 {
			return
		}
	}
	t.Errorf("another thread closed %d files, and no loss is counted", 100*rounds)
}

func TestEveryKindOfLossIsNamed(t *testing.T) {
	p := requireProbe(t, Options{})
	for _, l := range p.links { // what the machine really loses would come between
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p.links = nil
	losses := p.collection.Maps["losses"]
	zero := make([]uint64, ebpf.MustPossibleCPU())
	for i := range losses.MaxEntries() {
		if err := losses.Put(i, zero); err != nil {
			t.Fatal(err)
		}
	}
	one := slices.Clone(zero)
	one[0] = 1
	names := map[string]bool{}
	for i := range losses.MaxEntries() {
		before := nodeLost(t, p)
		if err := losses.Put(i, one); err != nil {
			t.Fatal(err)
		}
		all := nodeLost(t, p)
		// The machine's other containers lose something too.
		if word := lossWord(int(i)); all[word] <= before[word] || names[word] {
			t.Errorf("loss %d is not told as %q, or another one is: %v", i, word, all)
		} else {
			names[word] = true
		}
		if err := losses.Put(i, zero); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASystemCallBeyondAllNumbersIsCounted(t *testing.T) {
	p := requireProbe(t, Options{})
	_, _ = observe(t, p, actions("nonsense 600")...)
	if lost(t, p, "unknown number: syscall") == 0 {
		t.Error("nothing is said to be lost")
	}
}

// Whose a socket is can be forgotten, as the map of it pushes out the oldest.
func TestAPacketOfASocketThatNobodyWasSeenToUseIsCounted(t *testing.T) {
	box := newContainer(t, actions("served-later 127.0.0.1:5305")...)
	box.resume(t)
	p := requireProbe(t, Options{})
	// As if the map had pushed out whose the sockets are.
	owners := p.collection.Maps["owners"]
	var cookies []uint64
	var cookie uint64
	var owner bpf.FloorOwner
	for entries := owners.Iterate(); entries.Next(&cookie, &owner); {
		cookies = append(cookies, cookie)
	}
	for _, cookie := range cookies {
		if err := owners.Delete(cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Fatal(err)
		}
	}
	r := record(t, p, box.mntns)
	box.run(t)
	r.stop()
	for _, r := range r.all() {
		if r.Fact.Kind == behavior.Network && r.Fact.Direction == behavior.Ingress && r.Fact.Port == 5305 {
			t.Errorf("recorded although nobody knows whose it is: %s", r.Fact)
		}
	}
	if lost(t, p, "socket of unknown owner: network") == 0 {
		t.Error("not said to be lost")
	}
}

func TestWhoseASocketIsThatWasThereBeforeIsKnown(t *testing.T) {
	box := newContainer(t, actions("served-later 127.0.0.1:5305")...)
	box.resume(t)
	p := requireProbe(t, Options{})
	if !p.walksDeep {
		t.Skip("SKIPPED: the kernel cannot number a socket that nobody asked about (before 5.13)")
	}
	r := record(t, p, box.mntns)
	box.run(t)
	r.stop()
	if !slices.ContainsFunc(r.all(), func(r Record) bool {
		return r.Fact == socket(behavior.Ingress, "udp", 5305, "127.0.0.1") && r.PID == box.command.Process.Pid
	}) {
		t.Errorf("not recorded, or not as this process's: %+v", r.all())
	}
}

func TestWhoEntersWhenTheMapOfVisitorsIsFullIsCounted(t *testing.T) {
	p := requireProbe(t, Options{})
	box := newContainer(t, actions("pause")...)
	record(t, p, box.mntns)
	box.resume(t)
	visitors := p.collection.Maps["entrants"]
	for i := range visitors.MaxEntries() + 1 {
		if err := visitors.Put(bpf.FloorEntrantKey{Tgid: 1 << 40, Started: uint64(i)}, bpf.FloorEntrant{}); err != nil {
			break
		}
	}
	box.enter(t, "fork", "/bin/tool", "read", "/etc/other")
	if lost(t, p, "who entered unknown: process") == 0 {
		t.Error("nothing is said to be lost")
	}
}

// A packet's record names who it belongs to by a number; user space remembers so
// many of them.
func TestARecordWhoseActorWasForgottenIsCounted(t *testing.T) {
	p := requireProbe(t, Options{})
	raw := encode(bpf.FloorRecord{Kind: uint8(bpf.FloorKindKIND_NETWORK), Direction: 1, Protocol: 17, Port: 53, Actor: 77}, "", "", "", "")
	if len(p.records(raw)) > 0 {
		t.Error("a record of nobody was handed on")
	}
	if n := lost(t, p, "actor forgotten: network"); n != 1 {
		t.Errorf("%d are said to be lost, want 1", n)
	}
}
