//go:build linux && amd64

package main

import (
	"cmp"
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

	fates       []fate
	enforced    enforcement
	wasEnforced bool
	under       []tried // attacks under what was enforced
}

// tried are somebody's attacks.
type tried struct {
	who  string
	list []attempt
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
	trained, ok, err := o.trained(p)
	if err != nil || !ok {
		return r, false, err
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
	c, err := convene(learner, trained...)
	if err != nil {
		return r, false, err
	}
	if r.fates, err = o.fates(p, c, trained); err != nil {
		return r, false, err
	}
	for _, who := range assailants() {
		list, _, err := o.attempts(p, enforced+"-"+who)
		if err != nil {
			return r, false, err
		}
		r.under = append(r.under, tried{who, list})
	}
	r.enforced, r.wasEnforced, err = o.enforcement(p)
	return r, true, err
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
	b.WriteString("\n### Learned and judged\n\n| program | facts of the evaluation | denied after 1 run | after 3 runs | rules | by the peer's rule: denied | rules |\n|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d |\n", r.program.name, r.facts, len(r.after[1]), len(r.after[trainings]), r.rules, len(r.peer), r.ofPeer)
	}
	b.WriteString("\n### Attacks\n\n| program | attacks | denied | set aside | refused anyway | missed | under enforcement: service | attacks that worked before | and still do |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		n := r.counts()
		service, before, still := "-", "-", "-"
		if r.wasEnforced {
			service = "passes"
			if r.enforced.Service != "" {
				service = "fails"
			}
			worked, works := r.worked()
			before, still = fmt.Sprint(worked), fmt.Sprint(works)
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %s | %s | %s |\n", r.program.name, len(r.fates), n[fateDenied], n[fateAside], n[fateRefused], n[fateMissed], service, before, still)
	}
	missed(&b, all)
	if o.commit != "" {
		fmt.Fprintf(&b, "\nMeasured at %s.\n", o.commit)
	}
	return b.String()
}

// missed explains every attack that no policy stops.
func missed(b *strings.Builder, all []outcome) {
	programs := map[string][]string{}
	for _, r := range all {
		for _, f := range r.fates {
			if f.how == fateMissed {
				key := fmt.Sprintf("%s, as %s: %s", f.attack, f.who, f.by)
				programs[key] = append(programs[key], r.program.name)
			}
		}
	}
	if len(programs) == 0 {
		return
	}
	b.WriteString("\nMissed:\n\n")
	for _, key := range slices.Sorted(maps.Keys(programs)) {
		fmt.Fprintf(b, "- %s (%s)\n", key, strings.Join(programs[key], ", "))
	}
}

// counts are the fates by how.
func (r outcome) counts() map[string]int {
	n := map[string]int{}
	for _, f := range r.fates {
		n[f.how]++
	}
	return n
}

// worked counts the attacks within reach of what is enforced here that worked in the
// container as Kubernetes starts it by default, and those of them that still do.
func (r outcome) worked() (before, still int) {
	for _, t := range r.under {
		for _, a := range t.list {
			known := slices.IndexFunc(attacks(), func(x attack) bool { return x.name == a.Attack })
			if known < 0 || attacks()[known].elsewhere {
				continue
			}
			was := slices.ContainsFunc(r.fates, func(f fate) bool { return f.attack == a.Attack && f.who == t.who && f.worked })
			if !was {
				continue
			}
			before++
			if a.Error == "" {
				still++
			}
		}
	}
	return before, still
}

// details name what is denied, and what becomes of each attack.
func details(out io.Writer, all []outcome) {
	for _, r := range all {
		for _, n := range []int{1, trainings} {
			for _, f := range slices.SortedFunc(maps.Keys(r.after[n]), behavior.Compare) {
				fmt.Fprintf(out, "%s after %d: %s (%s)\n", r.program.name, n, f, r.after[n][f])
			}
		}
		for _, f := range r.fates {
			fmt.Fprintf(out, "%s attack as %s: %s: %s (%s)\n", r.program.name, f.who, f.attack, f.how, f.by)
		}
		for _, t := range r.under {
			for _, a := range t.list {
				fmt.Fprintf(out, "%s enforced, as %s: %s: %s\n", r.program.name, t.who, a.Attack, cmp.Or(a.Error, "works"))
			}
		}
		if r.enforced.Service != "" {
			fmt.Fprintf(out, "%s enforced: %s\n", r.program.name, r.enforced.Service)
		}
	}
}

func readings(all []outcome) []page.Reading {
	facts, own, tries, stopped, hardened, passed := 0, 0, 0, 0, 0, 0
	before, still := 0, 0
	after := map[int]int{}
	var rules []float64
	for _, r := range all {
		facts += r.facts
		own += r.own
		for n, h := range r.after {
			after[n] += len(h)
		}
		rules = append(rules, float64(r.rules))
		n := r.counts()
		tries += len(r.fates)
		stopped += n[fateDenied] + n[fateAside] + n[fateRefused]
		if r.wasEnforced {
			hardened++
			if r.enforced.Service == "" {
				passed++
			}
			worked, works := r.worked()
			before, still = before+worked, still+works
		}
	}
	measured := len(all) > 0
	return []page.Reading{
		{Name: "recorded-facts-denied", Value: float64(own), Unit: "facts", Bound: 0, Measured: measured},
		{Name: "denied-after-1-run", Value: percent(after[1], facts), Unit: "%", Bound: 0.5, Measured: measured},
		{Name: "denied-after-3-runs", Value: float64(after[trainings]), Unit: "facts", Bound: 0, Measured: measured},
		{Name: "attacks-stopped", Value: percent(stopped, tries), Unit: "%", Bound: 98, AtLeast: true, Measured: tries > 0},
		{Name: "rules-per-container", Value: median(rules), Unit: "rules", Bound: 60, Measured: measured},
		{Name: "services-pass-enforced", Value: percent(passed, hardened), Unit: "%", Bound: 100, AtLeast: true, Measured: hardened > 0},
		{Name: "attacks-fail-enforced", Value: percent(before-still, before), Unit: "%", Bound: 100, AtLeast: true, Measured: before > 0},
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
