//go:build linux

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestAddedIsTheMedianOfTheRoundsDifferences(t *testing.T) {
	k := costs{"open": {
		nothing:       {100, 200, 300}, // the machine became slower meanwhile
		emptyPrograms: {110, 220, 310},
		ours:          {120, 215, 900},
	}}
	r := result{deeds: k}
	if got := k.added("open", ours); got != 20 {
		t.Errorf("added %v, want 20", got)
	}
	if got := r.ratio("open", emptyPrograms); got != 2 {
		t.Errorf("ratio %v, want 2", got)
	}
}

func TestNothingIsComparedWithWhatAddsNothing(t *testing.T) {
	all := costs{}
	for _, d := range deeds() {
		all[d.name] = map[string][]float64{nothing: {100}, emptyPrograms: {90}, ours: {80}, bpftraceAll: {100}, bpftraceSyscalls: {99}}
	}
	for _, reading := range (&result{deeds: all}).readings() {
		if strings.Contains(reading.Name, "-of-") && reading.Verdict() != "unmeasured" {
			t.Errorf("%s is %s", reading.Name, reading.Verdict())
		}
	}
}

func TestThroughputIsTheMedianOfThePairs(t *testing.T) {
	r := throughputs{"nginx": {nothing: {100, 1000, 10}, ours: {99, 900, 10}}}
	if got := r.ratio("nginx", ours); got != 0.99 {
		t.Errorf("ratio %v, want 0.99", got)
	}
}

// planted is what a collector that misses nothing has of one container.
func planted() []behavior.Fact {
	var facts []behavior.Fact
	for i := range 30 {
		facts = append(facts, behavior.Fact{Kind: behavior.File, Exe: "/load", Path: fmt.Sprintf("/rare/%02d", i)})
	}
	for i := range 10 {
		facts = append(facts, behavior.Fact{Kind: behavior.Network, Exe: "/load", Port: uint16(20000 + i)})
	}
	for _, name := range rareCalls() {
		facts = append(facts, behavior.Fact{Kind: behavior.Syscall, Name: name})
	}
	return facts
}

func TestEveryRareFactThatIsNotThereIsMissed(t *testing.T) {
	all := planted()
	if n, missing := missingOf(all); n != 50 || len(missing) != 0 {
		t.Fatalf("of %d planted, %v are missing", n, missing)
	}
	for i := range all {
		without := append(append([]behavior.Fact{}, all[:i]...), all[i+1:]...)
		if _, missing := missingOf(without); len(missing) != 1 {
			t.Errorf("without %v, %v are missing", all[i], missing)
		}
	}
	theirs := planted()
	theirs[49].Runtime = true
	if _, missing := missingOf(theirs); len(missing) != 1 {
		t.Errorf("a system call of the runtime counts as the container's: %v", missing)
	}
}

func TestRareCallsAreThoseOfTheProgram(t *testing.T) {
	names := map[uint64]string{24: "sched_yield", 99: "sysinfo", 100: "times", 102: "getuid", 104: "getgid", 107: "geteuid", 108: "getegid", 110: "getppid", 111: "getpgrp", 186: "gettid"}
	for _, name := range rareCalls() {
		found := false
		for number := range rareNumbers() {
			found = found || names[number] == name
		}
		if !found {
			t.Errorf("%s has no number", name)
		}
	}
	if len(rareNumbers()) != len(rareCalls()) {
		t.Errorf("%d numbers of %d calls", len(rareNumbers()), len(rareCalls()))
	}
}

func TestPerContainerCountsEntriesInUse(t *testing.T) {
	f := flood{rooms: []mapRoom{
		{name: "namespaces", bytes: 2048 * 2048, max: 2048, used: 200},
		{name: "capabilities", bytes: 200 * 1024, max: 8192, used: 1600, grows: true},
		{name: "files", bytes: 1 << 30, max: 1, used: 1},
	}}
	if got := f.perContainer(); got != 3 {
		t.Errorf("%v KiB, want 3", got)
	}
}

func TestWhatWasNotMeasuredHasNoVerdict(t *testing.T) {
	for _, reading := range (&result{}).readings() {
		if got := reading.Verdict(); got != "unmeasured" {
			t.Errorf("%s is %s", reading.Name, got)
		}
	}
}

func TestSharesAreOfOneDeed(t *testing.T) {
	before := map[string]spent{"a": {1000, time.Millisecond}, "rare": {5, time.Second}}
	after := map[string]spent{"a": {3000, 3 * time.Millisecond}, "rare": {6, 2 * time.Second}}
	got := perDeed(before, after, 1000)
	if len(got) != 1 || got["a"] != (spent{2000, 2 * time.Microsecond}) {
		t.Errorf("shares %v", got)
	}
}
