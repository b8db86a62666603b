// Package verdict is what one run of the planted workload came to: the guest states
// it on its console, the tool that started the guest judges it. It must never count
// a fact as found that was not, nor leave out one that was planted.
package verdict

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Run is one kernel under one family of hooks, or one refusal.
type Run struct {
	Kernel string `json:"kernel"` // release
	Arch   string `json:"arch"`   // as Go names it
	// Family that was asked for; empty for the best that there is.
	Family string `json:"family"`
	// Without says why the kernel has no such family; then nothing was run.
	Without string                     `json:"without,omitempty"`
	Hooks   map[behavior.Kind][]string `json:"hooks,omitempty"`
	Words   []string                   `json:"words,omitempty"` // what the collector says it cannot see
	Things  []Thing                    `json:"things,omitempty"`
	Never   []string                   `json:"never,omitempty"` // facts that must not be there, and why
	Lost    map[string]uint64          `json:"lost,omitempty"`
	Refusal *Refusal                   `json:"refusal,omitempty"`
	Error   string                     `json:"error,omitempty"` // why the run itself failed
}

// Thing is one planted thing.
type Thing struct {
	Name   string          `json:"name"`
	Absent string          `json:"absent,omitempty"` // why the kernel cannot do it
	Failed string          `json:"failed,omitempty"` // why the program could not
	Found  []behavior.Fact `json:"found,omitempty"`
	Lack   []Lack          `json:"lack,omitempty"`
}

// Lack is a planted fact that was not found.
type Lack struct {
	Fact string `json:"fact"`           // in words
	Said string `json:"said,omitempty"` // the collector's sentence for it; empty if it said nothing
}

// Refusal is what happened where the programs must not load.
type Refusal struct {
	Why    string `json:"why"`  // what was taken away
	Want   string `json:"want"` // what the message must say
	Output string `json:"output"`
	Exit   int    `json:"exit"`
}

// Sum counts facts.
type Sum struct{ Planted, Found, Said, Silent, Absent, Failed int }

// Sum of a run: Planted is what the kernel and the program could do.
func (r Run) Sum() Sum {
	var s Sum
	for _, t := range r.Things {
		switch {
		case t.Absent != "":
			s.Absent++
			continue
		case t.Failed != "":
			s.Failed++
			continue
		}
		s.Planted += len(t.Found) + len(t.Lack)
		s.Found += len(t.Found)
		for _, l := range t.Lack {
			if l.Said != "" {
				s.Said++
			} else {
				s.Silent++
			}
		}
	}
	return s
}

// Good tells whether every fact was found or its lack was said, and nothing else
// went wrong.
func (r Run) Good() bool {
	s := r.Sum()
	if r.Refusal != nil {
		return r.Error == "" && r.Refusal.Good()
	}
	if r.Without != "" {
		return r.Error == ""
	}
	return r.Error == "" && s.Planted > 0 && s.Silent == 0 && s.Failed == 0 && len(r.Never) == 0
}

// Good tells whether the message is clear and the exit clean.
func (r Refusal) Good() bool {
	return r.Exit == 1 && strings.Contains(r.Output, r.Want) && strings.Contains(r.Output, "hint: ") &&
		!strings.Contains(r.Output, "panic") && !strings.Contains(r.Output, "RemoveMemlock") // which is the library's hint to programmers
}

// mark starts a line on the console that is a Run.
const mark = "@verdict "

// Write states a run on one line.
func Write(w io.Writer, r Run) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode verdict: %w", err)
	}
	_, err = fmt.Fprintf(w, "\n%s%s\n", mark, line)
	return err
}

// Read finds the runs in what a console showed; kernels write to it as well.
func Read(console io.Reader) ([]Run, error) {
	var runs []Run
	lines := bufio.NewScanner(console)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		_, line, ok := strings.Cut(lines.Text(), mark)
		if !ok {
			continue
		}
		var r Run
		if err := json.Unmarshal([]byte(strings.TrimRight(line, "\r")), &r); err != nil {
			return runs, fmt.Errorf("decode verdict: %w", err)
		}
		runs = append(runs, r)
	}
	return runs, lines.Err()
}

// Differ lists the facts that one of two good runs found and the other could not, by
// its own words, or did not: two kernels must state the same of the same. Facts that
// name an architecture are compared by what is left of them.
func Differ(a, b Run) []string {
	var lines []string
	found := func(r Run) map[string]bool {
		all := map[string]bool{}
		for _, t := range r.Things {
			for _, f := range t.Found {
				f.Arch = ""
				all[t.Name+": "+f.String()] = true
			}
		}
		return all
	}
	open := func(r Run) map[string]bool { // lacks and absences are told of by themselves
		all := map[string]bool{}
		for _, t := range r.Things {
			if t.Absent != "" || t.Failed != "" || len(t.Lack) > 0 {
				all[t.Name] = true
			}
		}
		return all
	}
	fa, fb, oa, ob := found(a), found(b), open(a), open(b)
	for f := range fa {
		if name, _, _ := strings.Cut(f, ": "); !fb[f] && !oa[name] && !ob[name] {
			lines = append(lines, "only there: "+f)
		}
	}
	for f := range fb {
		if name, _, _ := strings.Cut(f, ": "); !fa[f] && !oa[name] && !ob[name] {
			lines = append(lines, "only here: "+f)
		}
	}
	slices.Sort(lines)
	return lines
}
