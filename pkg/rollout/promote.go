package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// PromoteOptions say what shall begin.
type PromoteOptions struct {
	To policy.Stage // audit or deny
	// Workloads to promote, by slug; none means all of the namespace. Those at
	// or past the stage stay where they are.
	Workloads []string
	// Force, if not empty, is the reason for which the gate is overridden. It is
	// committed. It does not override errors.
	Force string
	// Soak, if not nil, is how long the stage before must have lasted where
	// rollout.yaml does not ask for longer.
	Soak *time.Duration
}

// Violation is a fact that the tree's objects would refuse once the stage has
// begun, or of which it cannot be told whether they would.
type Violation struct {
	Subject  behavior.Subject
	Fact     behavior.Fact
	Evidence behavior.Evidence
	Engine   string
	engine.Verdict
}

// String says in words what would happen to what.
func (v Violation) String() string {
	return fmt.Sprintf("%s/%s: %s: %s by %s (%s): %s", v.Subject.Workload, v.Subject.Container, v.Fact, v.Decision, v.Engine, v.Object, v.Reason)
}

// Verdicts count what the engines said about the fresh facts.
type Verdicts struct {
	Facts      int // distinct facts that were judged
	Allowed    int // verdicts of any engine
	Denied     int
	Ungoverned int
	Unknown    int
	Violations []Violation // denied and unknown, in order of workload and fact
}

// NotYetError tells why a stage does not begin.
type NotYetError struct {
	Namespace  string
	To         policy.Stage
	Violations []Violation
	Reasons    []string
}

// Error implements error.
func (e *NotYetError) Error() string {
	return fmt.Sprintf("%s is not ready for %s: %s, %s", e.Namespace, e.To,
		count(len(e.Violations), "violation"), count(len(e.Reasons), "other reason"))
}

// Hint says what a person can do about it.
func (e *NotYetError) Hint() string {
	if len(e.Violations) > 0 {
		return "if the violations are what the workload should do, run discover again, which learns them; if not, find out who did them"
	}
	return "observe again, longer or through a restart"
}

// UnknownWorkloadError is a workload that the tree has no policies for.
type UnknownWorkloadError struct {
	Workload string
	Known    []string
}

// Error implements error.
func (e *UnknownWorkloadError) Error() string {
	return fmt.Sprintf("workload %s has no policies in this namespace; there are %s", behavior.Escape(e.Workload), list(e.Known, 10))
}

// UnjudgedError is an engine whose policies the tree holds and that was not
// given: nobody would judge by them.
type UnjudgedError struct{ Engine string }

// Error implements error.
func (e *UnjudgedError) Error() string {
	return fmt.Sprintf("the tree has policies for engine %s, which is not switched on", behavior.Escape(e.Engine))
}

// Hint says what a person can do about it.
func (e *UnjudgedError) Hint() string {
	return "switch the engine on, or run discover without it first, which removes its policies"
}

// Promote plans that a stage begins, if the gate lets it: no fresh fact would be
// refused by the tree as it would then stand, hand edits and custom/ included,
// and the fresh profiles cover every workload that is promoted. Otherwise it
// returns a NotYetError with all reasons at once and an empty plan.
func Promote(in Input, opts PromoteOptions) (Plan, Verdicts, error) {
	plan := Plan{Namespace: in.Namespace}
	if err := in.check(); err != nil {
		return plan, Verdicts{}, err
	}
	if opts.To != policy.Audit && opts.To != policy.Deny {
		return plan, Verdicts{}, fmt.Errorf("promote: stage %q: want %s or %s", opts.To, policy.Audit, policy.Deny)
	}
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return plan, Verdicts{}, err
	}
	for _, name := range rec.Engines {
		if !slices.Contains(names(in.Engines), name) {
			return plan, Verdicts{}, &UnjudgedError{name}
		}
	}
	fresh, err := group(in)
	if err != nil {
		return plan, Verdicts{}, err
	}
	raised, err := raise(rec, opts)
	if err != nil {
		return plan, Verdicts{}, err
	}
	if len(rec.Workloads) == 0 {
		return plan, Verdicts{}, &NotYetError{Namespace: in.Namespace, To: opts.To, Reasons: []string{"nothing was learned yet: run discover first"}}
	}
	if len(raised) == 0 {
		plan.Reasons = []string{fmt.Sprintf("every workload is at %s already", opts.To)}
		return plan, Verdicts{}, nil
	}
	if fresh, err = withRuns(in, rec, raised, fresh); err != nil {
		return plan, Verdicts{}, err
	}
	c := newCandidate(in, rec, false)
	for _, slug := range raised {
		s := c.rec.find(slug)
		s.Stage, s.Since, s.By, s.Reason = opts.To, behavior.Second(in.Now), in.By, opts.Force
	}
	if err := c.settle(); err != nil {
		return plan, Verdicts{}, err
	}
	return decide(in, opts, c, rec, raised, fresh)
}

// raise lists the slugs of the workloads whose stage would change.
func raise(rec record, opts PromoteOptions) ([]string, error) {
	wanted := opts.Workloads
	var known []string
	for _, s := range rec.Workloads {
		known = append(known, s.Slug)
	}
	if len(wanted) == 0 {
		wanted = known
	}
	var raised []string
	for _, slug := range wanted {
		s := rec.find(slug)
		if s == nil {
			return nil, &UnknownWorkloadError{slug, known}
		}
		if rank(s.Stage) < rank(opts.To) {
			raised = append(raised, slug)
		}
	}
	slices.Sort(raised)
	return slices.Compact(raised), nil
}

// rank orders stages; a workload that is not applied comes first.
func rank(s policy.Stage) int {
	return slices.Index([]policy.Stage{policy.Observe, policy.Audit, policy.Deny}, cmp.Or(s, policy.Observe))
}

// decide judges the candidate and opens or closes the gate.
func decide(in Input, opts PromoteOptions, c *candidate, before record, raised []string, fresh map[behavior.Workload]behavior.Profiles) (Plan, Verdicts, error) {
	plan := Plan{Namespace: in.Namespace}
	all, err := judges(c.tree, in.Engines)
	if err != nil {
		return plan, Verdicts{}, err
	}
	var subjects []behavior.Subject
	for _, w := range slices.SortedFunc(maps.Keys(fresh), func(a, b behavior.Workload) int { return cmp.Compare(a.Slug(), b.Slug()) }) {
		s := before.find(w.Slug())
		if s == nil {
			c.note(w.Slug(), "was observed and has no policies: run discover")
		}
		if s != nil && s.Stage == policy.Deny {
			continue // what is refused there already is no reason to wait here
		}
		subjects = append(subjects, fresh[w].Subjects()...)
	}
	judged := in
	judged.Fresh = behavior.Profiles{}
	for _, profiles := range fresh {
		maps.Copy(judged.Fresh, profiles)
	}
	verdicts := judge(judged, subjects, all, declined(judged, before, subjects))
	reasons := shortfalls(in, opts, c, before, raised, fresh)
	if opts.To == policy.Deny {
		reasons = append(reasons, refusals(c, raised, fresh, all)...)
		reasons = append(reasons, tornReasons(raised, fresh, all)...)
	}
	if (len(verdicts.Violations) > 0 || len(reasons) > 0) && opts.Force == "" {
		return plan, verdicts, &NotYetError{Namespace: in.Namespace, To: opts.To, Violations: verdicts.Violations, Reasons: reasons}
	}
	plan.Files = changed(in.Tree, c.tree)
	plan.Notes = tidy(c.notes)
	if opts.Force != "" {
		plan.Reasons = append([]string{"forced: " + oneLine(opts.Force)}, reasons...)
		if n := len(verdicts.Violations); n > 0 {
			plan.Reasons = append(plan.Reasons, fmt.Sprintf("%s: %s", count(n, "violation"), list(verdicts.Violations, 3)))
		}
	}
	var workloads []string
	for _, slug := range raised {
		w := c.rec.find(slug).workload(in.Namespace)
		workloads = append(workloads, w.String())
		plan.Summary = append(plan.Summary, promotedSummary(w, opts.To, fresh[w]))
	}
	body := append([]string{fmt.Sprintf("%d observed facts judged, %d would be denied, %d unknown", verdicts.Facts, verdicts.Denied, verdicts.Unknown)}, plan.Reasons...)
	plan.Message = stageMessage("Promote", plan, opts.To, workloads, body, c.rec)
	return plan, verdicts, nil
}

func promotedSummary(w behavior.Workload, stage policy.Stage, fresh behavior.Profiles) Summary {
	s := Summary{Workload: w, Stage: stage, Change: Promoted, Coverage: map[string]behavior.Coverage{}, Facts: map[behavior.Kind]int{}, Rules: map[string]int{}}
	for _, subject := range fresh.Subjects() {
		s.Containers = append(s.Containers, subject.Container)
		s.Coverage[subject.Container] = fresh[subject].Coverage
		for _, k := range behavior.Kinds() {
			s.Facts[k] += fresh[subject].Count(k)
		}
	}
	return s
}

// judge asks every engine about every fresh fact of the subjects, in order, but for
// what people declined: that it would be refused is what they want.
func judge(in Input, subjects []behavior.Subject, all map[string]engine.Judge, declined map[behavior.Subject]map[behavior.Fact]bool) Verdicts {
	var v Verdicts
	engines := names(in.Engines)
	for _, s := range subjects {
		p := in.Fresh[s]
		labels, err := behavior.ParseLabels(p.Labels)
		if err != nil {
			labels = nil // selects nothing but what selects all; shortfalls says so
		}
		subject := engine.Subject{Subject: s, Labels: labels, Inside: engine.Inside(p.Facts), Mounts: p.Coverage.Mounts}
		for _, o := range p.Observed() {
			if !judgeable(o.Fact) || declined[s][o.Fact] {
				continue
			}
			v.Facts++
			for _, name := range engines {
				v.add(Violation{s, o.Fact, o.Evidence, name, all[name].Judge(subject, o.Fact)})
			}
		}
	}
	return v
}

func (v *Verdicts) add(x Violation) {
	switch x.Decision {
	case engine.NotMine:
		v.Ungoverned++
	case engine.Allowed:
		v.Allowed++
	case engine.Denied:
		v.Denied++
		v.Violations = append(v.Violations, x)
	default:
		v.Unknown++
		v.Violations = append(v.Violations, x)
	}
}

// shortfalls say which gates but violations keep the stage from beginning. Audit
// denies nothing and so asks for nothing.
func shortfalls(in Input, opts PromoteOptions, c *candidate, before record, raised []string, fresh map[behavior.Workload]behavior.Profiles) []string {
	if opts.To == policy.Audit {
		return nil
	}
	var reasons []string
	g := newGates(in, c, opts.Soak)
	for _, slug := range raised {
		s := *before.find(slug)
		for _, reason := range reasonsOf(g.of(s, fresh[s.workload(in.Namespace)])) {
			if !slices.Contains(reasons, reason) { // what keeps all of them is said once
				reasons = append(reasons, reason)
			}
		}
	}
	return reasons
}

// withRuns adds, of workloads that run and end and did not run now, what was
// learned of them: a nightly job need not run for a promotion.
func withRuns(in Input, rec record, raised []string, fresh map[behavior.Workload]behavior.Profiles) (map[behavior.Workload]behavior.Profiles, error) {
	all := maps.Clone(fresh)
	for _, slug := range raised {
		w := rec.find(slug).workload(in.Namespace)
		if !transient(w) || len(fresh[w]) > 0 {
			continue
		}
		learned, err := evidence(in.Tree, w, behavior.DecodeFile)
		if err != nil {
			return nil, err
		}
		if len(learned) > 0 {
			all[w] = learned
		}
	}
	return all, nil
}

// shortfallsOf say what keeps the fresh profiles from speaking for a workload on
// its way to deny.
func shortfallsOf(in Input, c *candidate, files overlay.Index, w behavior.Workload, profiles behavior.Profiles) []string {
	var reasons []string
	if len(policies(files, w.Slug())) == 0 {
		reasons = append(reasons, fmt.Sprintf("%s has no policy that could deny anything", w))
	}
	switch {
	case len(profiles) == 0:
		return append(reasons, fmt.Sprintf("%s was not observed", w))
	case !learnable(profiles):
		reasons = append(reasons, fmt.Sprintf("%s was observed doing nothing at all", w))
	}
	for _, s := range profiles.Subjects() {
		if _, err := behavior.ParseLabels(profiles[s].Labels); err != nil {
			reasons = append(reasons, fmt.Sprintf("%s/%s: %s", w, s.Container, err))
		}
		if c.rec.Gate.Coverage == gateAny {
			continue
		}
		for _, text := range profiles[s].Coverage.Shortfalls() {
			reasons = append(reasons, fmt.Sprintf("%s/%s: %s", w, s.Container, text))
		}
	}
	if c.rec.Gate.Coverage != gateAny {
		reasons = append(reasons, unwatched(in, w, profiles)...)
	}
	return reasons
}

// onlyTraffic tells whether a container's traffic was observed since its pod was
// made, by sources that see nothing else and so learned nothing else.
func onlyTraffic(c behavior.Coverage) bool {
	seen := false
	for _, p := range c.Pods {
		seen = seen || p.Traffic
	}
	return seen && len(c.Hooks[behavior.Process]) == 0
}

// unwatched names the kinds of which something was learned and that nobody watched
// now: of those, that nothing new was seen says nothing.
func unwatched(in Input, w behavior.Workload, fresh behavior.Profiles) []string {
	all, err := evidence(in.Tree, w, behavior.DecodeCoverage)
	if err != nil {
		return []string{err.Error()}
	}
	var reasons []string
	for _, p := range sorted(all) {
		now, ok := fresh[p.Subject]
		learned := map[behavior.Kind]bool{}
		for k, hooks := range p.Coverage.Hooks {
			learned[k] = len(hooks) > 0
		}
		if kinds := now.Coverage.Unobserved(learned); ok && len(kinds) > 0 {
			reasons = append(reasons, fmt.Sprintf("%s/%s: not watched this time, but learned: %s; observe with a source that sees it", w, p.Subject.Container, list(kinds, len(kinds))))
		}
	}
	return reasons
}

// policies lists the files by which a workload could be denied anything.
func policies(files overlay.Index, slug string) []string {
	var list []string
	for _, p := range files.Below(overlay.BaseFolder(slug)) {
		if path.Base(p) != overlay.Kustomization {
			list = append(list, p)
		}
	}
	for _, p := range files.Below(overlay.StageFolder(slug, policy.Deny)) {
		if path.Ext(p) == ".json" {
			list = append(list, p)
		}
	}
	return list
}
