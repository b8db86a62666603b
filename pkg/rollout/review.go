package rollout

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Proposal is behaviour that people can decide about: something suspicious, or a
// rule that the tree does not hold.
type Proposal struct {
	Workload  behavior.Workload
	Stage     policy.Stage
	Container string
	Class     string // of the suspicion; ClassNew for what is only new
	Why       string // why it is suspicious, or why its rule is as wide as it is
	// Allows says in words what would be allowed that is not today.
	Allows []string
	Facts  []behavior.Observed // what is decided about
	With   []behavior.Observed // what comes with it
	// Decision is what was said about it: nothing, or that it is postponed or
	// declined.
	Decision policy.Decision
}

// ClassNew is the class of a proposal that is not suspicious.
const ClassNew = "new"

// ID names the proposal by what it is about, in eight letters.
func (p Proposal) ID() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s\n", p.Workload, p.Container, p.Class)
	for _, m := range p.what() {
		fmt.Fprintln(h, m.line())
	}
	return hex.EncodeToString(h.Sum(nil))[:8]
}

// Decide is what a decision about the proposal has to say, but for who, when and
// why.
func (p Proposal) Decide(d policy.Decision) Decision {
	return Decision{Decision: d, Workload: p.Workload.String(), Container: p.Container, Class: p.Class, What: p.what()}
}

// what are the matchers of the facts, each once.
func (p Proposal) what() []Matcher {
	var all []Matcher
	seen := map[string]bool{}
	for _, o := range p.Facts {
		m := Exactly(o.Fact)
		text := m.line()
		if !seen[text] {
			seen[text] = true
			all = append(all, m)
		}
	}
	return all
}

// Evidence joins that of the facts.
func (p Proposal) Evidence() behavior.Evidence { return behavior.Selected(p.Facts...).Evidence() }

// Proposals lists what people can decide about, of the tree's own workloads: what
// is set aside of their evidence, and what the fresh profiles show that is new. The
// suspicious come first. The notes name workloads that have no policies yet.
func Proposals(in Input) ([]Proposal, []Note, error) {
	if err := in.check(); err != nil {
		return nil, nil, err
	}
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return nil, nil, err
	}
	fresh, err := group(in)
	if err != nil {
		return nil, nil, err
	}
	fresh, _ = withoutEntered(fresh)
	var notes []Note
	for w := range fresh {
		if rec.find(w.Slug()) == nil {
			notes = append(notes, Note{w.Slug(), policy.Note{Text: "was observed and has no policies: run discover"}})
		}
	}
	var suspicious, plain []Proposal
	for _, s := range rec.Workloads {
		w := s.workload(in.Namespace)
		list, err := proposals(in, rec, s, fresh[w])
		if err != nil {
			return nil, nil, fmt.Errorf("review %s: %w", w, err)
		}
		for _, p := range list {
			if p.Class == ClassNew {
				plain = append(plain, p)
			} else {
				suspicious = append(suspicious, p)
			}
		}
	}
	return append(suspicious, plain...), tidy(notes), nil
}

// proposals are those of one workload.
func proposals(in Input, rec record, s state, fresh behavior.Profiles) ([]Proposal, error) {
	w := s.workload(in.Namespace)
	old, err := evidence(in.Tree, w, behavior.DecodeFile)
	if err != nil {
		return nil, err
	}
	all := join(old, fresh)
	if !learnable(all) {
		return nil, nil
	}
	decided := about(rec.decisions, w)
	now, err := in.Learn(sorted(all), decided)
	if err != nil {
		return nil, err
	}
	var before policy.Set
	if learnable(old) {
		if before, err = in.Learn(sorted(old), decided); err != nil {
			return nil, err
		}
	}
	var list []Proposal
	for _, x := range now.Suspicions {
		p := Proposal{Workload: w, Stage: s.Stage, Container: x.Container, Class: x.Class, Why: x.Why, Facts: x.Facts, With: x.With, Decision: x.Decision}
		for _, o := range x.Facts {
			p.Allows = append(p.Allows, o.Fact.String())
		}
		list = append(list, p)
	}
	calls := map[string]int{} // where a container's system calls are
	for _, r := range beyond(now, before) {
		known := old[behavior.Subject{Workload: w, Container: r.Container}].Facts
		facts := slices.DeleteFunc(r.Facts.List(), func(o behavior.Observed) bool {
			_, had := known.Get(o.Fact)
			return had || decided != nil && decided(r.Container, o.Fact) == policy.Accepted
		})
		if len(facts) == 0 {
			continue // it was decided about, and is to be carried out
		}
		p := Proposal{Workload: w, Stage: s.Stage, Container: r.Container, Class: ClassNew, Why: r.Why, Allows: []string{r.String()}, Facts: facts}
		if at, ok := calls[r.Container]; ok && r.Kind == behavior.Syscall {
			list[at].Allows, list[at].Facts = append(list[at].Allows, r.String()), append(list[at].Facts, facts...)
			continue
		}
		if r.Kind == behavior.Syscall {
			calls[r.Container] = len(list)
		}
		list = append(list, p)
	}
	return list, nil
}

// Review plans that decisions are committed and carried out: what was accepted is
// learned, in deny too, and what was declined or postponed stays out. The
// decisions get who and when where they say nothing. Of the fresh profiles nothing
// else is learned.
func Review(in Input, more []Decision) (Plan, error) {
	plan := Plan{Namespace: in.Namespace}
	if err := in.check(); err != nil {
		return plan, err
	}
	more = slices.Clone(more)
	for i := range more {
		if more[i].By == "" {
			more[i].By = in.By
		}
		if more[i].When.IsZero() {
			more[i].When = behavior.Second(in.Now)
		}
	}
	now := in
	if len(more) > 0 {
		data, err := appendDecisions(in.Tree[DecisionsFile], in.Namespace, more)
		if err != nil {
			return plan, err
		}
		now.Tree = in.Tree.With(map[string][]byte{DecisionsFile: data})
	}
	rec, _, err := read(now.Tree, in.Namespace)
	if err != nil {
		return plan, err
	}
	fresh, err := group(in)
	if err != nil {
		return plan, err
	}
	fresh, _ = withoutEntered(fresh)
	d := discovery{in: in, review: true, candidate: newCandidate(now, rec, false)}
	for _, w := range d.workloads(fresh) {
		if err := d.workload(w, fresh[w]); err != nil {
			return plan, fmt.Errorf("review %s: %w", w, err)
		}
	}
	if plan, err = d.plan(); err == nil && !plan.Empty() {
		plan.Message = reviewMessage(plan, more, d.candidate.rec)
	}
	return plan, err
}

// reviewMessage says who decided what, and why.
func reviewMessage(p Plan, more []Decision, rec record) string {
	counts := map[policy.Decision]int{}
	var body []string
	for _, d := range more {
		counts[d.Decision]++
		text := fmt.Sprintf("%s by %s: %s", d.Decision, d.By, d.Workload)
		if d.Container != "" {
			text += "/" + d.Container
		}
		if d.Class != "" {
			text += ": " + d.Class
		}
		var what []string
		for _, m := range d.What {
			what = append(what, m.line())
		}
		text += ": " + list(what, 2)
		if d.Reason != "" {
			text += " (" + d.Reason + ")"
		}
		body = append(body, text)
	}
	stage := policy.Audit
	for _, s := range p.Summary {
		if s.Change == Added || s.Change == Updated {
			body = append(body, fmt.Sprintf("%s: %s at %s, %s", s.Workload, s.Change, s.Stage, count(len(s.New), "new rule")))
			if s.Stage == policy.Deny {
				stage = policy.Deny
			}
		}
	}
	var said []string
	for _, d := range []policy.Decision{policy.Accepted, policy.Declined, policy.Postponed} {
		if counts[d] > 0 {
			said = append(said, fmt.Sprintf("%d %s", counts[d], d))
		}
	}
	if len(said) == 0 {
		said = []string{"carried out"}
	}
	text := strings.Join(said, ", ")
	return message("Review "+p.Namespace+": "+text, append(body, p.Reasons...), stage, p.Namespace, rec.digest(), TrailerDecisions+": "+text)
}
