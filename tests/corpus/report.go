//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/tests/bench/page"
	"github.com/autopolicy/kubectl-autopolicy/tests/corpus/peer"
)

// outcome is what became of one program.
type outcome struct {
	program program
	facts   int          // distinct, of the evaluation
	own     int          // facts of the training that the policy from it would deny
	after   map[int]hits // by the number of training runs
	peer    hits         // by the peer's rule, after all training runs
	rules   int          // after all training runs
	ofPeer  int
}

// hits are the facts that would be wrongly denied, with the first engine.
type hits map[behavior.Fact]string

// report learns from all that was recorded, judges the rest, and says how it went.
func report(o options, out io.Writer) error {
	var all []outcome
	for _, p := range o.programs {
		r, ok, err := o.outcome(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if ok {
			all = append(all, r)
		}
	}
	text := tables(o, all)
	fmt.Fprintln(out, text)
	if o.verbose {
		details(out, all)
	}
	if o.page != "" {
		if err := page.Write(o.page, "make corpus", text); err != nil {
			return err
		}
	}
	for _, r := range readings(all) {
		fmt.Fprintln(out, r.Line())
	}
	return nil
}

// outcome learns and judges one program; false if it was not recorded.
func (o options) outcome(p program) (outcome, bool, error) {
	r := outcome{program: p, after: map[int]hits{}}
	var trained []behavior.Profile
	for n := range trainings {
		profile, ok, err := o.recorded(p, training(n+1))
		if err != nil || !ok {
			return r, false, err
		}
		trained = append(trained, profile)
	}
	later, ok, err := o.recorded(p, evaluation)
	if err != nil || !ok {
		return r, false, err
	}
	for _, n := range []int{1, trainings} {
		c, err := convene(learner, trained[:n]...)
		if err != nil {
			return r, false, err
		}
		for _, t := range trained[:n] {
			v, err := c.judge(t)
			if err != nil {
				return r, false, err
			}
			r.own += len(denied(v))
		}
		v, err := c.judge(later)
		if err != nil {
			return r, false, err
		}
		r.facts, r.after[n], r.rules = v.Facts, denied(v), c.count()
	}
	theirs := peer.Learn(joined(trained...))
	r.peer, r.ofPeer = hits{}, theirs.Len()
	for f := range later.Facts.Keys() {
		if f.Own() && theirs.Governs(f.Kind) && !theirs.Allows(f) {
			r.peer[f] = "the peer"
		}
	}
	return r, true, nil
}

// joined is everything that was seen of one container.
func joined(profiles ...behavior.Profile) behavior.Profile {
	all := behavior.Profiles{}
	for _, p := range profiles {
		all.Add(p)
	}
	return all[profiles[0].Subject]
}

func tables(o options, all []outcome) string {
	var b strings.Builder
	b.WriteString(page.Table(readings(all)))
	b.WriteString("\n| program | facts of the evaluation | denied after 1 run | after 3 runs | rules | by the peer's rule: denied | rules |\n|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d |\n", r.program.name, r.facts, len(r.after[1]), len(r.after[trainings]), r.rules, len(r.peer), r.ofPeer)
	}
	if o.commit != "" {
		fmt.Fprintf(&b, "\nMeasured at %s.\n", o.commit)
	}
	return b.String()
}

// details name what is denied.
func details(out io.Writer, all []outcome) {
	for _, r := range all {
		for _, n := range []int{1, trainings} {
			for _, f := range slices.SortedFunc(maps.Keys(r.after[n]), behavior.Compare) {
				fmt.Fprintf(out, "%s after %d: %s (%s)\n", r.program.name, n, f, r.after[n][f])
			}
		}
	}
}

func readings(all []outcome) []page.Reading {
	facts, own := 0, 0
	after := map[int]int{}
	var rules, ofPeer []float64
	for _, r := range all {
		facts += r.facts
		own += r.own
		for n, h := range r.after {
			after[n] += len(h)
		}
		rules, ofPeer = append(rules, float64(r.rules)), append(ofPeer, float64(r.ofPeer))
	}
	measured := len(all) > 0
	return []page.Reading{
		{Name: "corpus-programs", Value: float64(len(all)), Unit: "programs", Bound: float64(len(all)), AtLeast: true, Measured: measured},
		{Name: "recorded-facts-denied", Value: float64(own), Unit: "facts", Bound: 0, Measured: measured},
		{Name: "denied-after-1-run", Value: percent(after[1], facts), Unit: "%", Bound: 0.5, Measured: measured},
		{Name: "denied-after-3-runs", Value: float64(after[trainings]), Unit: "facts", Bound: 0, Measured: measured},
		{Name: "rules-per-container", Value: median(rules), Unit: "rules", Bound: 60, Measured: measured},
	}
}

func percent(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole) * 100
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}
