//go:build linux

package plant

import (
	"slices"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestEveryThingHasAName(t *testing.T) {
	seen := map[string]bool{}
	for _, thing := range append(Things(), Later()) {
		if thing.Name == "" || thing.Role == "" || seen[thing.Name] {
			t.Errorf("thing %q of role %q: the name is missing or not its own", thing.Name, thing.Role)
		}
		seen[thing.Name] = true
	}
}

func TestEveryKindAndOperationIsPlanted(t *testing.T) {
	kinds, operations := map[behavior.Kind]bool{}, map[behavior.Operation]bool{}
	for _, thing := range Things() {
		for _, f := range thing.Facts {
			kinds[f.Kind], operations[f.Operation] = true, true
		}
	}
	for _, kind := range behavior.Kinds() {
		// Requests are told by Hubble, not by the collector.
		if !kinds[kind] && kind != behavior.HTTP && kind != behavior.Kafka {
			t.Errorf("nothing of kind %s is planted", kind)
		}
	}
	for _, o := range behavior.Operations() {
		if !operations[o] {
			t.Errorf("no %s is planted", o)
		}
	}
}

func TestAFactIsFoundOnlyIfItIsTheOneAskedFor(t *testing.T) {
	want := behavior.Fact{Kind: behavior.File, Exe: Program, Path: "/plant/a", Operation: behavior.OpRename}
	got := want
	got.Access = behavior.Write
	if !Found(want, got) {
		t.Error("a fact that says more is not found")
	}
	for name, change := range map[string]func(*behavior.Fact){
		"another path":      func(f *behavior.Fact) { f.Path = "/plant/b" },
		"another operation": func(f *behavior.Fact) { f.Operation = "" },
		"another program":   func(f *behavior.Fact) { f.Exe = Child },
		"who entered":       func(f *behavior.Fact) { f.Origin = behavior.OriginExec },
		"the runtime":       func(f *behavior.Fact) { f.Runtime = true },
		"a deleted file":    func(f *behavior.Fact) { f.Deleted = true },
		"another kind":      func(f *behavior.Fact) { f.Kind = behavior.Process },
	} {
		other := got
		change(&other)
		if Found(want, other) {
			t.Errorf("%s is taken for it", name)
		}
	}
}

func TestThingsOfARoleAreThoseThatTheArchitectureHas(t *testing.T) {
	names := func(role, arch string) (list []string) {
		for _, thing := range Of(role, arch) {
			list = append(list, thing.Name)
		}
		return list
	}
	if !slices.Contains(names(RoleMain, "amd64"), "32-bit program") || slices.Contains(names(RoleMain, "arm64"), "32-bit program") {
		t.Error("the 32-bit program is not amd64's alone")
	}
	if len(names(RoleCompat, "386")) == 0 || len(names(RoleCompat, "arm64")) > 0 {
		t.Error("what the 32-bit program does is not its own alone")
	}
}
