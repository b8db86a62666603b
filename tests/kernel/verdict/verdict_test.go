package verdict

import (
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func reads(path string) behavior.Fact {
	return behavior.Fact{Kind: behavior.File, Exe: "/app", Path: path, Access: behavior.Read}
}

func TestARunIsGoodOnlyIfNothingIsSilentlyMissing(t *testing.T) {
	found := Thing{Name: "a", Found: []behavior.Fact{reads("/a")}}
	for name, c := range map[string]struct {
		run  Run
		good bool
	}{
		"everything was found":                        {Run{Things: []Thing{found}}, true},
		"a lack was said":                             {Run{Things: []Thing{found, {Name: "b", Lack: []Lack{{Fact: "b", Said: "not seen"}}}}}, true},
		"the kernel cannot do a thing":                {Run{Things: []Thing{found, {Name: "b", Absent: "none"}}}, true},
		"a lack was not said":                         {Run{Things: []Thing{found, {Name: "b", Lack: []Lack{{Fact: "b"}}}}}, false},
		"a thing could not be done":                   {Run{Things: []Thing{found, {Name: "b", Failed: "no"}}}, false},
		"nothing was planted":                         {Run{}, false},
		"something is there that must not be":         {Run{Things: []Thing{found}, Never: []string{"x"}}, false},
		"the run failed":                              {Run{Things: []Thing{found}, Error: "no"}, false},
		"the kernel has no such family":               {Run{Without: "none"}, true},
		"a refusal that says what to do":              {Run{Refusal: &Refusal{Want: "locked", Output: "is locked\nhint: unlock", Exit: 1}}, true},
		"a refusal without a hint":                    {Run{Refusal: &Refusal{Want: "locked", Output: "is locked", Exit: 1}}, false},
		"a refusal with advice for programmers":       {Run{Refusal: &Refusal{Want: "locked", Output: "is locked (consider rlimit.RemoveMemlock)\nhint: no", Exit: 1}}, false},
		"a refusal for another reason":                {Run{Refusal: &Refusal{Want: "locked", Output: "hint: no", Exit: 1}}, false},
		"a refusal that ended as if nothing had been": {Run{Refusal: &Refusal{Want: "locked", Output: "is locked\nhint: unlock"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.run.Good() != c.good {
				t.Errorf("good is %t: %+v", c.run.Good(), c.run.Sum())
			}
		})
	}
}

func TestRunsAreFoundAmongWhatAKernelSays(t *testing.T) {
	var console strings.Builder
	console.WriteString("[    0.1] hello\r\n[    0.2] half a line")
	want := Run{Kernel: "6.1", Family: "kprobe", Things: []Thing{{Name: "a", Found: []behavior.Fact{reads("/a")}}}}
	if err := Write(&console, want); err != nil {
		t.Fatal(err)
	}
	console.WriteString("[    9.9] bye\r\n")
	runs, err := Read(strings.NewReader(strings.ReplaceAll(console.String(), "}\n", "}\r\n")))
	if err != nil || len(runs) != 1 || runs[0].Kernel != want.Kernel || runs[0].Things[0].Found[0] != reads("/a") {
		t.Errorf("read %+v, %v", runs, err)
	}
	if _, err := Read(strings.NewReader(mark + `{"kernel": "6.1", "fam` + "\n")); err == nil {
		t.Error("a line that is cut is a run")
	}
}

func TestKernelsThatStateDifferentFactsDiffer(t *testing.T) {
	a := Run{Things: []Thing{{Name: "a", Found: []behavior.Fact{reads("/a")}}, {Name: "b", Absent: "none"}}}
	b := Run{Things: []Thing{{Name: "a", Found: []behavior.Fact{reads("/a")}}, {Name: "b", Found: []behavior.Fact{reads("/b")}}}}
	if d := Differ(a, b); len(d) > 0 {
		t.Errorf("what one kernel has not is a difference: %v", d)
	}
	b.Things[0].Found[0] = reads("/other")
	if d := Differ(a, b); len(d) != 2 {
		t.Errorf("differences are %v, want one each way", d)
	}
}
