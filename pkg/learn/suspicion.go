package learn

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Classes of suspicions. People filter and decide by these words, so they never
// change their meaning.
const (
	ClassShell         = "shell"           // a server, or a tool for raw connections, runs a shell
	ClassReverseShell  = "reverse-shell"   // a shell connects to somewhere outside
	ClassListener      = "listener"        // a shell or a tool for raw connections waits for peers
	ClassBinaryWritten = "binary-written"  // a file where programs and libraries lie was written
	ClassWrittenRun    = "written-run"     // a program was run that the container itself had written
	ClassHiddenRun     = "hidden-run"      // a program was run that is in no file: in memory, or deleted
	ClassSecretRead    = "secret-read"     // another's secret was read
	ClassRuntimeSocket = "runtime-socket"  // the container runtime's socket was used
	ClassEscape        = "escape"          // what containers are broken out of with: mount, ptrace, unshare, bpf, modules
	ClassMiner         = "miner"           // names and ports of programs that mine coins
	ClassScan          = "scan"            // many ports or addresses were tried in a short time
	ClassPackages      = "package-manager" // software was installed while it ran
	ClassOther         = "other"           // nothing but that a person set it aside
)

// Classes lists every class.
func Classes() []string {
	return []string{ClassShell, ClassReverseShell, ClassListener, ClassBinaryWritten, ClassWrittenRun, ClassHiddenRun, ClassSecretRead,
		ClassRuntimeSocket, ClassEscape, ClassMiner, ClassScan, ClassPackages, ClassOther}
}

// Suspicions gives those of a set that Rules would make of the profiles, each of
// another container, without making its rules.
func Suspicions(profiles []behavior.Profile, o Options) []policy.Suspicion {
	var all []policy.Suspicion
	for _, p := range profiles {
		list, _ := suspicions(p.Subject.Container, p.Facts, o)
		all = append(all, list...)
	}
	return all
}

// finding is why a fact is suspicious. Facts with equal ones are one suspicion.
type finding struct {
	class, why string
	decision   policy.Decision
}

// suspicions sets aside what no policy of the container should bless without a
// person, and what a person declined or postponed. The second result holds the
// numbers of all facts of the first.
//
// What only suspicious programs did goes with them: the facts of an executable
// that nothing else runs, and of one that others run too where the evidence names
// the parent. System calls, which no fact ties to an executable, cannot.
func suspicions(container string, facts behavior.Facts, o Options) ([]policy.Suspicion, map[int32]bool) {
	s := look(facts, o)
	groups := map[finding][]int32{}
	for i := range int32(facts.Len()) {
		if !s.considers(i) {
			continue
		}
		found := s.find(i)
		if o.Decided != nil {
			found.decision = o.Decided(container, facts.At(i))
		}
		switch {
		case found.decision == policy.Accepted:
			continue
		case found.class == "" && found.decision == "":
			continue
		case found.class == "":
			found.class, found.why = ClassOther, "a person set it aside"
		}
		groups[found] = append(groups[found], i)
	}
	if len(groups) == 0 {
		return nil, nil
	}
	var list []policy.Suspicion
	aside := map[int32]bool{}
	at := map[behavior.Fact]int{} // the programs among them, by the suspicion
	for _, found := range s.sorted(groups) {
		for _, i := range groups[found] {
			aside[i] = true
			if f := facts.At(i); f.Kind == behavior.Process {
				at[f] = len(list)
			}
		}
		list = append(list, policy.Suspicion{Container: container, Class: found.class, Why: found.why, Decision: found.decision,
			Facts: facts.Select(groups[found]).List()})
	}
	for i, with := range s.follow(container, o, aside, at) {
		list[i].With = facts.Select(with).List()
		for _, n := range with {
			aside[n] = true
		}
	}
	return list, aside
}

// sorted orders what was found by class and first fact.
func (s *scene) sorted(groups map[finding][]int32) []finding {
	first := make(map[finding]behavior.Fact, len(groups))
	for found, numbers := range groups {
		for n, i := range numbers {
			if f := s.facts.At(i); n == 0 || behavior.Compare(f, first[found]) < 0 {
				first[found] = f
			}
		}
	}
	return slices.SortedFunc(maps.Keys(groups), func(a, b finding) int {
		return cmp.Or(slices.Index(Classes(), a.class)-slices.Index(Classes(), b.class), behavior.Compare(first[a], first[b]))
	})
}

// scene is what has to be known of a container to judge one fact of it.
type scene struct {
	facts   behavior.Facts
	forms   []behavior.Fact
	learned []bool               // of the forms: those that are learned at all
	serves  map[string]time.Time // executables that accept connections, and since when
	runs    map[step]map[string]uint64
	starts  map[step]time.Time
	busy    map[string]bool // executables that ran another program
	first   map[string]bool // programs that the runtime ran
	written map[string]bool // programs that were run, and written while it was watched
	api     bool            // a program made for it talks to the API server
	scans   map[int32]string
}

// step is that one executable runs another.
type step struct{ parent, program string }

// considers leaves out what is not learned anyway.
func (s *scene) considers(i int32) bool {
	form, _ := s.facts.Form(i)
	return s.learned[form]
}

func look(facts behavior.Facts, o Options) *scene {
	s := &scene{facts: facts, forms: facts.Forms(), serves: map[string]time.Time{}, runs: map[step]map[string]uint64{}, starts: map[step]time.Time{},
		busy: map[string]bool{}, first: map[string]bool{}, written: map[string]bool{}}
	for _, f := range s.forms {
		s.learned = append(s.learned, !f.Runtime && !f.Refused && (o.Entered || f.Origin != behavior.OriginExec))
	}
	ran := map[string]bool{}
	for i := range int32(facts.Len()) {
		form, path := facts.Form(i)
		if !s.learned[form] {
			continue
		}
		switch f := &s.forms[form]; f.Kind {
		case behavior.Process:
			s.lookProcess(facts.Observed(i))
			ran[path] = true
		case behavior.Network:
			if f.Direction == behavior.Ingress || f.Direction == behavior.Listen && f.Protocol != "udp" {
				s.serves[f.Exe] = earliest(s.serves[f.Exe], facts.Observed(i).Evidence.First)
			}
			if f.Direction == behavior.Egress && f.Peer.Kind == behavior.PeerAPIServer && !isTool(f.Exe) {
				s.api = true
			}
		}
	}
	for i := range int32(facts.Len()) {
		form, path := facts.Form(i)
		if f := &s.forms[form]; f.Kind == behavior.File && ran[path] && s.learned[form] && writes(f) && !f.Deleted {
			s.written[path] = true
		}
	}
	s.scans = s.findScans()
	return s
}

func (s *scene) lookProcess(x behavior.Observed) {
	f := x.Fact
	k := step{f.Parent, program(f)}
	if s.runs[k] == nil {
		s.runs[k] = map[string]uint64{}
	}
	for pod, n := range x.Evidence.Pods {
		s.runs[k][pod] += n
	}
	s.starts[k] = earliest(s.starts[k], x.Evidence.First)
	if f.Parent == "" && f.Origin == "" {
		s.first[k.program] = true
	}
	s.busy[f.Parent] = true
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// program is the executable that a process fact makes of a process: of a script,
// its interpreter.
func program(f behavior.Fact) string { return cmp.Or(f.Interpreter, f.Path) }

// base is the name of an executable, without its folder.
func base(exe string) string { return exe[strings.LastIndexByte(exe, '/')+1:] }

// follow finds what was done only by set-aside programs, by the suspicion that they
// are in.
func (s *scene) follow(container string, o Options, aside map[int32]bool, at map[behavior.Fact]int) map[int][]int32 {
	if len(at) == 0 {
		return nil
	}
	origin, next := s.origins(aside, at)
	with := map[int][]int32{}
	for n := range int32(s.facts.Len()) {
		form, _ := s.facts.Form(n)
		f := &s.forms[form]
		if aside[n] || !s.learned[form] || f.Kind == behavior.Syscall {
			continue
		}
		i, ok := origin[by(*f)]
		if !ok && f.Kind != behavior.Process && cutFor(at, f.Exe) {
			i, ok = only(s.facts.Observed(n), next, at)
		}
		if ok && (o.Decided == nil || o.Decided(container, s.facts.At(n)) != policy.Accepted) {
			with[i] = append(with[i], n)
		}
	}
	return with
}

// origins gives the executables that only set-aside steps lead to, by the first
// suspicion of those, and who runs what by other steps.
func (s *scene) origins(aside map[int32]bool, at map[behavior.Fact]int) (map[string]int, map[string][]string) {
	next, all := map[string][]string{}, map[string][]string{}
	named, acts := map[string]bool{}, map[string]bool{}
	for form, f := range s.forms {
		if s.learned[form] && f.Kind != behavior.Process {
			acts[f.Exe] = true
		}
	}
	for i := range int32(s.facts.Len()) {
		form, _ := s.facts.Form(i)
		if !s.learned[form] || s.forms[form].Kind != behavior.Process {
			continue
		}
		f := s.facts.At(i)
		acts[f.Parent], named[program(f)] = true, true
		all[f.Parent] = append(all[f.Parent], program(f))
		if !aside[i] {
			next[f.Parent] = append(next[f.Parent], program(f))
		}
	}
	sound := map[string]bool{}
	reach(sound, next, "")
	for exe := range acts { // it ran before anybody watched
		if !named[exe] {
			reach(sound, next, exe)
		}
	}
	origin := map[string]int{}
	for f, i := range at {
		below := map[string]bool{}
		reach(below, all, program(f))
		for exe := range below {
			if old, known := origin[exe]; !sound[exe] && (!known || i < old) {
				origin[exe] = i
			}
		}
	}
	return origin, next
}

// reach marks whatever steps lead to from a program, and the program.
func reach(seen map[string]bool, steps map[string][]string, from string) {
	for todo := []string{from}; len(todo) > 0; {
		exe := todo[len(todo)-1]
		if todo = todo[:len(todo)-1]; !seen[exe] {
			seen[exe] = true
			todo = append(todo, steps[exe]...)
		}
	}
}

func cutFor(at map[behavior.Fact]int, exe string) bool {
	for f := range at {
		if program(f) == exe {
			return true
		}
	}
	return false
}

// only tells whether a fact of a program that others run too was seen only where
// set-aside steps had started it, and in which suspicion they are.
func only(x behavior.Observed, next map[string][]string, at map[behavior.Fact]int) (int, bool) {
	first := -1
	for _, parent := range x.Evidence.Parents {
		if slices.Contains(next[parent], x.Fact.Exe) {
			return 0, false
		}
		found := -1
		for f, i := range at {
			if f.Parent == parent && program(f) == x.Fact.Exe && (found < 0 || i < found) {
				found = i
			}
		}
		if found < 0 {
			return 0, false
		}
		if first < 0 || found < first {
			first = found
		}
	}
	return first, first >= 0
}
