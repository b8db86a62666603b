//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/verdict"
)

// report is a table of what was found where, and the measures.
type report struct {
	outcomes []outcome
}

func (r *report) add(o outcome) { r.outcomes = append(r.outcomes, o) }

// familyName is how a run's family is shown.
func familyName(run verdict.Run) string {
	if run.Family == "" {
		return "best"
	}
	return run.Family
}

// reference is the run that the others are compared with: the first one that found
// most, which is the host's where that was run.
func (r *report) reference() *verdict.Run {
	var best *verdict.Run
	for _, o := range r.outcomes {
		for i, run := range o.runs {
			if run.Refusal == nil && run.Without == "" && run.Error == "" && (best == nil || run.Sum().Found > best.Sum().Found) {
				best = &o.runs[i]
			}
		}
	}
	return best
}

// write shows everything and tells whether all of it is well.
func (r *report) write(out io.Writer) bool {
	r.table(out)
	r.details(out)
	good := true
	for _, m := range r.measures() {
		fmt.Fprintf(out, "measure\t%s\t%s\t%s\t%s\t%s\n", m.name, m.value, m.unit, m.bound, m.verdict)
		good = good && m.verdict != "short"
	}
	return good
}

func (r *report) table(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nKERNEL\tARCH\tFAMILY\tFOUND\tPLANTED\tSAID TO BE UNSEEN\tSILENTLY MISSING\tNOT IN THE KERNEL\tHOOKS BESIDE TRACEPOINTS")
	for _, o := range r.outcomes {
		if o.err != nil && len(o.runs) == 0 {
			fmt.Fprintf(w, "%s\t\t\tfailed: %v\n", o.name, o.err)
		}
		for _, run := range o.runs {
			switch s := run.Sum(); {
			case run.Refusal != nil:
			case run.Without != "":
				fmt.Fprintf(w, "%s\t%s\t%s\tnot in this kernel\n", run.Kernel, run.Arch, familyName(run))
			case run.Error != "":
				fmt.Fprintf(w, "%s\t%s\t%s\tfailed: %s\n", run.Kernel, run.Arch, familyName(run), run.Error)
			default:
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", run.Kernel, run.Arch, familyName(run), s.Found, s.Planted, s.Said, s.Silent, s.Absent, hooksOf(run))
			}
		}
	}
	_ = w.Flush() // out tells when its write failed
}

func hooksOf(run verdict.Run) string {
	var list []string
	for kind, families := range run.Hooks {
		for _, f := range families {
			if f == "fentry" || f == "kprobe" {
				list = append(list, string(kind)+" by "+f)
			}
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// details names what the table counts.
func (r *report) details(out io.Writer) {
	reference := r.reference()
	for _, o := range r.outcomes {
		for _, run := range o.runs {
			lines := linesOf(run)
			if reference != nil && run.Refusal == nil && run.Without == "" && run.Error == "" {
				lines = append(lines, verdict.Differ(*reference, run)...)
			}
			if len(lines) == 0 {
				continue
			}
			fmt.Fprintf(out, "\n%s %s, %s:\n", run.Kernel, run.Arch, familyName(run))
			for _, line := range lines {
				fmt.Fprintf(out, "  %s\n", line)
			}
		}
		if o.err != nil {
			fmt.Fprintf(out, "\n%s failed: %v\n", o.name, o.err)
		}
	}
	fmt.Fprintln(out)
}

func linesOf(run verdict.Run) []string {
	var lines []string
	if run.Error != "" {
		lines = append(lines, "failed: "+run.Error)
	}
	if run.Without != "" {
		lines = append(lines, "not in this kernel: "+run.Without)
	}
	if f := run.Refusal; f != nil && !f.Good() {
		lines = append(lines, fmt.Sprintf("without %s: exit %d, wanted 1 and %q, said %q", f.Why, f.Exit, f.Want, f.Output))
	}
	for _, t := range run.Things {
		if t.Absent != "" {
			lines = append(lines, t.Name+": not planted: "+t.Absent)
		}
		if t.Failed != "" {
			lines = append(lines, t.Name+": could not be done: "+t.Failed)
		}
		for _, l := range t.Lack {
			if l.Said != "" {
				lines = append(lines, fmt.Sprintf("%s: not found: %s; the collector says: %s", t.Name, l.Fact, l.Said))
			} else {
				lines = append(lines, fmt.Sprintf("%s: MISSING, and nothing says so: %s", t.Name, l.Fact))
			}
		}
	}
	for _, n := range run.Never {
		lines = append(lines, "MUST NOT BE: "+n)
	}
	for reason, n := range run.Lost {
		lines = append(lines, fmt.Sprintf("lost %d: %s", n, reason))
	}
	return lines
}

type measure struct{ name, value, unit, bound, verdict string }

func verdictWord(good bool) string {
	if good {
		return "ok"
	}
	return "short"
}

// measures are one line for each kernel and family, and each refusal.
func (r *report) measures() []measure {
	var list []measure
	reference := r.reference()
	for _, o := range r.outcomes {
		if o.err != nil || len(o.runs) == 0 {
			list = append(list, measure{"kernel " + o.name + " boots and ends", "no", "", "yes", "short"})
		}
		for _, run := range o.runs {
			name := fmt.Sprintf("kernel %s %s %s", run.Kernel, run.Arch, familyName(run))
			s := run.Sum()
			switch {
			case run.Refusal != nil:
				list = append(list, measure{
					fmt.Sprintf("kernel %s %s without %s", run.Kernel, run.Arch, run.Refusal.Why), fmt.Sprint(run.Refusal.Exit), "exit", "1", verdictWord(run.Good()),
				})
			case run.Without != "":
				list = append(list, measure{name + " facts", "none", "facts", "", "unmeasured"})
			case run.Error != "":
				list = append(list, measure{name + " facts", "none", "facts", "", "short"})
			default:
				differ := len(verdict.Differ(*reference, run))
				list = append(list,
					measure{name + " facts found or said to be unseen", fmt.Sprint(s.Found + s.Said), "facts", fmt.Sprint(s.Planted), verdictWord(run.Good())},
					measure{name + " facts that differ from " + reference.Kernel, fmt.Sprint(differ), "facts", "0", verdictWord(differ == 0)})
			}
		}
	}
	return list
}
