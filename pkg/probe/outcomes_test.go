//go:build linux

package probe

import (
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
)

func TestOutcomesAreKnownByNameAndEachCallHasOne(t *testing.T) {
	of := map[string]bpf.FloorOutcome{}
	for outcome, calls := range outcomeCalls() {
		for name := range strings.FieldsSeq(calls) {
			if other, ok := of[name]; ok {
				t.Errorf("%s has outcomes %d and %d", name, other, outcome)
			}
			of[name] = outcome
			known := false
			for _, arch := range []string{"amd64", "386", "arm64", "arm"} {
				_, ok := syscallNumber(arch, name)
				known = known || ok
			}
			if !known {
				t.Errorf("no architecture has %s", name)
			}
		}
	}
}

func TestOutcomesOfBothTablesShareAnEntry(t *testing.T) {
	spec, err := bpf.LoadFloor()
	if err != nil {
		t.Fatal(err)
	}
	if err := setOutcomes(spec, "amd64"); err != nil {
		t.Fatal(err)
	}
	table := make([]uint16, len(bpf.FloorNamespace{}.Called)/2)
	if err := spec.Variables["outcomes"].Get(&table); err != nil {
		t.Fatal(err)
	}
	open, listen := uint16(bpf.FloorOutcomeOUTCOME_OPEN), uint16(bpf.FloorOutcomeOUTCOME_LISTEN)
	// 5 is fstat on amd64 and open on 386; 437 is openat2 on both; 50 listens on amd64.
	for number, want := range map[int]uint16{5: open << 8, 437: open | open<<8, 50: listen, 186: 0} {
		if table[number] != want {
			t.Errorf("outcome of call %d is %#x, want %#x", number, table[number], want)
		}
	}
}
