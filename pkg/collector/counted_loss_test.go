//go:build linux

package collector

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// What stands where a table of a process should be is no table: as with a process
// that may be looked at only in part.
func TestWhatCannotBeReadOfAProcessIsCounted(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	mapping := "400000-401000 r--p 00000000 08:01 77 " + self + "\n"
	for reason, spoil := range map[string]func(p fakeProc){
		"snapshot of a process's parent":       func(p fakeProc) { p.write("100/stat/x", "") },
		"snapshot of a process's capabilities": func(p fakeProc) { p.write("100/status/x", "") },
		"snapshot of open files":               func(p fakeProc) { p.write("100/fd", "") },
		"snapshot of an open file": func(p fakeProc) {
			p.link("100/fd/3", self)
			p.write("100/fdinfo/3", "pos: 0\n")
		},
		"snapshot of mapped files": func(p fakeProc) { p.write("100/maps/x", "") },
		"snapshot of a mapped file": func(p fakeProc) {
			p.write("100/maps", mapping)
			p.write("100/map_files/400000-401000", "no link")
		},
		"snapshot of sockets": func(p fakeProc) {
			p.link("100/fd/3", "socket:[7]")
			p.link("100/ns/net", "net") // a loop
		},
	} {
		t.Run(reason, func(t *testing.T) {
			p := newFakeProc(t)
			p.link("100/root", "/")
			p.link("100/exe", self)
			spoil(p)
			if _, err := os.Lstat(filepath.Join(p.root, "100/stat")); err != nil {
				p.write("100/stat", "100 (app) S 1")
			}
			s := proc{p.root}.snapshot(containerInfo{}, []int{100}, always)
			if s.lost[reason] != 1 || len(s.lost) != 1 {
				t.Errorf("lost %v, want one %q", s.lost, reason)
			}
		})
	}
}

func TestMoreProcessesThanASnapshotReadsAreCounted(t *testing.T) {
	pids := make([]int, maxSnapshotPIDs+3)
	s := proc{t.TempDir()}.snapshot(containerInfo{}, pids, always)
	if got := s.lost["snapshot of processes"]; got != 3 {
		t.Errorf("lost %v, want 3", s.lost)
	}
}

func TestMoreProgramsThanAreLookedUpAreCounted(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, runs("/a"))
	n := b.spaces[77]
	b.mu.Lock()
	for i := range maxPrograms + 2 {
		b.ask(n, nil, program{fact: runs(fmt.Sprint("/program-", i)), at: b.clock})
	}
	b.mu.Unlock()
	if got := b.lostOf(idA)["dynamic linkers of programs not looked up"]; got != 3 {
		t.Errorf("lost %v, want 3", b.lostOf(idA))
	}
}

func TestWhatTheKernelDoesNotGiveOrForgetIsCounted(t *testing.T) {
	for reason, fails := range map[string]func(*fakeProbe){
		"last system calls of a mount namespace":            func(p *fakeProbe) { p.err = errors.New("away") },
		"facts of a mount namespace that was not forgotten": func(p *fakeProbe) { p.forgetErr = errors.New("away") },
	} {
		t.Run(reason, func(t *testing.T) {
			b := newBench(t, DefaultLimits())
			b.pod("a", uidA, b.clock, [2]string{"web", idA})
			b.procs.process("100", 77, cgroupOf(uidA, idA))
			b.seesOf(1, 77, 100, runs("/a"))
			fails(b.kern)
			b.seesOf(2, 77, 100, runs("/b"))
			if got := b.Status().Lost[reason]; got != 1 {
				t.Errorf("lost is %v", b.Status().Lost)
			}
		})
	}
}

func TestMountsThatNobodyShowsAreCounted(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.procs.link("100/root", "/elsewhere") // it changed its root
	b.sees(77, 100, runs("/a"))
	b.pass(time.Second)
	b.pass(mountsSoon)
	if got := b.lostOf(idA)["mounts of a container not read"]; got != 1 {
		t.Errorf("lost is %v", b.lostOf(idA))
	}
}

// The pod was deleted before anybody pulled: what its containers did stays.
func TestAPodThatIsDeletedBeforeItIsDrainedIsToldWhole(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("a", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, runs("/a"))
	b.kern.calls[77] = []SyscallSet{{Arch: "amd64", Names: []string{"chroot"}}}
	b.pass(time.Second)
	b.procs.exit("100")
	b.pods.end(uidA)
	b.pass(time.Second)
	b.pass(time.Hour)
	b.want(idA, runs("/a"), behavior.Fact{Kind: behavior.Syscall, Name: "chroot", Arch: "amd64"})
	if k := b.store.containers[idA].wire(b.clock); !k.Terminated || len(k.Lost) > 0 {
		t.Errorf("its end was seen: %t; lost %v", k.Terminated, k.Lost)
	}
}
