package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// DiscoverOptions say what Discover may change without being asked again.
type DiscoverOptions struct {
	// Relearn lets workloads in deny learn too: what they newly did is allowed
	// at once. Without it they are held, and the plan's reasons say so.
	Relearn bool
	// Overwrite lets generated files replace what people made of them.
	Overwrite bool
	// Entered takes the facts of processes that entered a container from outside,
	// such as by kubectl exec, into the evidence. Without it they are left out, and
	// counted in the summary; what is in the evidence already stays.
	Entered bool
}

// Discover plans the tree in which every observed workload has policies from
// everything that was ever learned of it. A new workload enters at stage audit.
// Where the rules stay the same, the files keep their bytes, counts and times
// included, so that a second observation which learned nothing gives an empty
// plan.
func Discover(in Input, opts DiscoverOptions) (Plan, error) {
	plan := Plan{Namespace: in.Namespace}
	if err := in.check(); err != nil {
		return plan, err
	}
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return plan, err
	}
	fresh, err := group(in)
	if err != nil {
		return plan, err
	}
	if len(fresh) == 0 && len(rec.Workloads) == 0 {
		return plan, fmt.Errorf("discover %s: %w", in.Namespace, ErrNothingObserved)
	}
	var entered map[behavior.Subject]int
	if !opts.Entered {
		fresh, entered = withoutEntered(fresh)
	}
	d := discovery{in: in, opts: opts, entered: entered, candidate: newCandidate(in, rec, opts.Overwrite),
		engines: !slices.Equal(rec.Engines, names(in.Engines))}
	d.candidate.rec.Engines = names(in.Engines)
	for _, w := range d.workloads(fresh) {
		if err := d.workload(w, fresh[w]); err != nil {
			return plan, fmt.Errorf("discover %s: %w", w, err)
		}
	}
	return d.plan()
}

// group gives the fresh profiles of the namespace by workload.
func group(in Input) (map[behavior.Workload]behavior.Profiles, error) {
	groups := map[behavior.Workload]behavior.Profiles{}
	slugs := map[string]behavior.Workload{}
	for _, s := range in.Fresh.Subjects() {
		w := s.Workload
		if w.Namespace != in.Namespace {
			continue
		}
		if err := overlay.CheckSlug(w.Slug()); err != nil {
			return nil, err
		}
		if other, ok := slugs[w.Slug()]; ok && other != w {
			return nil, fmt.Errorf("workloads %s %s and %s %s would share the folder %s", w.Kind, w.Name, other.Kind, other.Name, w.Slug())
		}
		slugs[w.Slug()] = w
		if groups[w] == nil {
			groups[w] = behavior.Profiles{}
		}
		groups[w][s] = in.Fresh[s]
	}
	return groups, nil
}

// discovery is one run of Discover.
type discovery struct {
	in   Input
	opts DiscoverOptions
	// review takes in only what people decided about.
	review    bool
	candidate *candidate
	engines   bool // the set of engines is another one than before
	learned   []learned
	reasons   []string
	entered   map[behavior.Subject]int // facts that were left out
	covered   []string                 // what was observed for the first time, in words
}

// learned is what is known of one workload after learning.
type learned struct {
	workload behavior.Workload
	profiles behavior.Profiles // everything ever learned
	fresh    behavior.Profiles
	set      policy.Set
	change   Change
	added    []policy.Rule
	more     bool // of its life was observed than ever before
	// suspicions are of everything that was seen, also where it was not learned.
	suspicions []policy.Suspicion
}

// workloads lists the observed workloads and those that the tree knows.
func (d *discovery) workloads(fresh map[behavior.Workload]behavior.Profiles) []behavior.Workload {
	all := maps.Clone(fresh)
	for _, s := range d.candidate.rec.Workloads {
		if w := s.workload(d.in.Namespace); all[w] == nil {
			all[w] = behavior.Profiles{}
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b behavior.Workload) int { return strings.Compare(a.Slug(), b.Slug()) })
}

func (d *discovery) workload(w behavior.Workload, fresh behavior.Profiles) error {
	old, err := evidence(d.in.Tree, w, behavior.DecodeFile)
	if err != nil {
		return err
	}
	s := d.candidate.rec.find(w.Slug())
	if s != nil && s.workload(w.Namespace) != w {
		return &overlay.InvalidError{File: RecordFile, Reason: fmt.Sprintf("workload %s is a %s, want %s", s.Slug, s.Kind, w.Kind)}
	}
	d.reportEdits(s)
	if d.review && s == nil {
		d.candidate.note(w.Slug(), "was observed and has no policies: run discover")
		return nil
	}
	decided := about(d.candidate.rec.decisions, w)
	held := s != nil && s.Stage == policy.Deny && !d.opts.Relearn
	all := relabel(join(old, fresh), fresh)
	if !learnable(all) {
		d.reasons = append(d.reasons, fmt.Sprintf("%s: %s, so nothing can be learned", w, ErrNothingObserved))
		return nil
	}
	everything, err := d.in.Learn(sorted(all), decided)
	if err != nil {
		return fmt.Errorf("learn: %w", err)
	}
	l := learned{workload: w, profiles: all, fresh: fresh, set: everything, suspicions: everything.Suspicions, change: Added}
	var before policy.Set
	if s != nil && learnable(old) {
		l.change = Updated
		if before, err = d.in.Learn(sorted(old), decided); err != nil {
			return fmt.Errorf("learn: %w", err)
		}
	}
	if held || d.review {
		if l.profiles, l.set, err = d.restrict(old, fresh, before, decided); err != nil {
			return err
		}
	}
	l.added = beyond(l.set, before)
	d.reasons = append(d.reasons, imageChanges(w, old, fresh, everything)...)
	same := l.change == Updated && equal(l.set, before) && s.Decisions == decisionsDigest(d.candidate.rec.decisions, w)
	if same && !held && !d.review {
		other, err := d.standsElsewhere(l.set, before)
		if err != nil {
			return err
		}
		same = !other
	}
	switch {
	case same && !d.engines && (d.review || equal(everything, before)):
		l.change, l.profiles = Unchanged, old
	case held && same:
		d.hold(&l, old, before, everything)
	default:
		if held && !equal(everything, l.set) {
			d.reasons = append(d.reasons, unlearned(w, everything, l.set))
		}
		if err := d.render(l); err != nil {
			return err
		}
	}
	if (l.change == Unchanged || l.change == Held) && !d.review {
		if err := d.cover(&l, old); err != nil {
			return err
		}
	}
	d.learned = append(d.learned, l)
	return nil
}

// join merges what is known with what was seen now.
func join(old, fresh behavior.Profiles) behavior.Profiles {
	return behavior.Corroborate(behavior.MergeProfiles(old, fresh))
}

// restrict learns, beside what is known, only facts that people accepted, and what
// goes with those; in a review all facts that they decided about.
func (d *discovery) restrict(old, fresh behavior.Profiles, before policy.Set, decided policy.Decided) (behavior.Profiles, policy.Set, error) {
	if decided == nil || !learnable(fresh) {
		return old, before, nil
	}
	takes := func(container string, f behavior.Fact) bool {
		said := decided(container, f)
		return said == policy.Accepted || d.review && said != ""
	}
	// As though it were postponed, learning says what only that leads to.
	set, err := d.in.Learn(sorted(join(old, fresh)), func(container string, f behavior.Fact) policy.Decision {
		if takes(container, f) {
			return policy.Postponed
		}
		return decided(container, f)
	})
	if err != nil {
		return nil, before, fmt.Errorf("learn: %w", err)
	}
	with := map[string]map[behavior.Fact]bool{}
	for _, s := range set.Suspicions {
		if !slices.ContainsFunc(s.Facts, func(o behavior.Observed) bool { return takes(s.Container, o.Fact) }) {
			continue
		}
		for _, o := range s.With {
			if with[s.Container] == nil {
				with[s.Container] = map[behavior.Fact]bool{}
			}
			with[s.Container][o.Fact] = true
		}
	}
	part := behavior.Profiles{}
	for s, p := range fresh {
		p.Facts = p.Facts.Filter(func(f behavior.Fact) bool { return takes(s.Container, f) || with[s.Container][f] })
		if p.Facts.Len() > 0 {
			part[s] = p
		}
	}
	if len(part) == 0 {
		return old, before, nil
	}
	known := relabel(join(old, part), part)
	if set, err = d.in.Learn(sorted(known), decided); err != nil {
		return nil, before, fmt.Errorf("learn: %w", err)
	}
	return known, set, nil
}

// reportEdits notes which generated files of a workload a person changed.
func (d *discovery) reportEdits(s *state) {
	if s == nil || d.opts.Overwrite {
		return
	}
	for _, file := range slices.Sorted(maps.Keys(s.Files)) {
		if d.candidate.edited(s, file) {
			d.candidate.note(s.Slug, "%s was edited by hand and is kept as it is", path.Join(overlay.Folder(s.Slug), file))
		}
	}
}

// hold leaves a workload in deny as it is: a policy that is enforced is not
// widened by whatever happened to be seen.
func (d *discovery) hold(l *learned, old behavior.Profiles, before, everything policy.Set) {
	if equal(everything, before) {
		d.reasons = append(d.reasons, fmt.Sprintf("%s is in deny: its engines change only when it is learned anew", l.workload))
	} else {
		d.reasons = append(d.reasons, unlearned(l.workload, everything, before))
	}
	l.change, l.profiles, l.set, l.added = Held, old, before, beyond(everything, before)
}

// unlearned says what a workload in deny did that its policies are not made from.
func unlearned(w behavior.Workload, everything, known policy.Set) string {
	text := fmt.Sprintf("%s is in deny and did what its policies were not learned from", w)
	if added := beyond(everything, known); len(added) > 0 {
		text += ": " + list(added, 3)
	}
	open := undecided(everything.Suspicions)
	for _, known := range undecided(known.Suspicions) {
		open = slices.DeleteFunc(open, func(text string) bool { return text == known })
	}
	if len(open) > 0 {
		text += "; suspicious: " + list(open, 3)
	}
	return text
}

// render puts the files of one workload into the candidate.
func (d *discovery) render(l learned) error {
	slug := l.workload.Slug()
	w := overlay.Workload{Slug: slug, Base: map[string][]byte{}}
	files, level := map[string][]byte{}, ""
	for _, e := range d.in.Engines {
		r, err := e.Render(l.set)
		d.noteAll(slug, e.Name(), r.Notes)
		if errors.Is(err, engine.ErrNoEvidence) {
			continue // no rule of the engine's kinds: it makes no policy
		}
		if err != nil {
			return fmt.Errorf("render for %s: %w", e.Name(), err)
		}
		if len(r.Base) > 0 {
			name := e.Name() + ".yaml"
			w.Base[name], files[path.Join("base", name)] = r.Base, r.Base
		}
		for stage, beside := range r.Stage {
			for name, data := range beside {
				if name != path.Base(name) || path.Ext(name) != ".json" {
					return fmt.Errorf("render for %s: %q is not a name for a file beside a stage", e.Name(), name)
				}
				files[path.Join(string(stage), name)] = data
			}
		}
		for stage, patch := range r.Component {
			files[overlay.ComponentFile(slug, stage)] = patch
		}
		level = cmp.Or(level, r.Level)
	}
	d.noteAll(slug, "", l.set.Notes)
	// What was made of templates is not learned, and stays.
	if data, ok := d.candidate.tree[path.Join(overlay.BaseFolder(slug), hardeningFile)]; ok && len(files) > 0 {
		w.Base[hardeningFile] = data
		if s := d.candidate.rec.find(slug); s != nil && !d.candidate.edited(s, path.Join("base", hardeningFile)) {
			files[path.Join("base", hardeningFile)] = data
		}
	}
	if len(files) == 0 {
		d.reasons = append(d.reasons, fmt.Sprintf("%s: no engine can express anything of what was observed", l.workload))
		return nil
	}
	kustomizations, err := overlay.Render(w)
	if err != nil {
		return fmt.Errorf("write kustomizations: %w", err)
	}
	for p, data := range kustomizations {
		files[strings.TrimPrefix(p, overlay.Folder(slug)+"/")] = data
	}
	return d.enter(l, files, level)
}

// noteAll adds what an engine, or the learner, says that it left out.
func (d *discovery) noteAll(slug, name string, notes []policy.Note) {
	for _, n := range notes {
		n.Engine = cmp.Or(n.Engine, name)
		d.candidate.notes = append(d.candidate.notes, Note{slug, n})
	}
}

// enter records what was learned of a workload.
func (d *discovery) enter(l learned, files map[string][]byte, level string) error {
	c, slug := d.candidate, l.workload.Slug()
	profiles := sorted(l.profiles)
	data, err := behavior.EncodeFile(profiles)
	if err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	if c.rec.find(slug) == nil {
		c.rec.Workloads = append(c.rec.Workloads, state{Slug: slug, Kind: l.workload.Kind, Name: l.workload.Name,
			Stage: policy.Audit, Since: behavior.Second(d.in.Now), By: d.in.By})
	}
	s := c.rec.find(slug)
	s.Evidence, s.PodSecurity = behavior.Digest(profiles), level
	s.Decisions = decisionsDigest(c.rec.decisions, l.workload)
	s.Undecided = undecided(l.set.Suspicions)
	c.tree[evidencePath(slug)] = data
	c.place(s, files, true)
	return nil
}

// plan finishes the candidate, proves that it builds, and says what it does.
func (d *discovery) plan() (Plan, error) {
	c := d.candidate
	plan := Plan{Namespace: d.in.Namespace, Reasons: d.reasons}
	touched := slices.ContainsFunc(d.learned, func(l learned) bool { return l.change == Added || l.change == Updated })
	if touched {
		if err := c.settle(); err != nil {
			return plan, err
		}
		if err := overlay.Check(c.tree); err != nil {
			return plan, fmt.Errorf("check overlay: %w", err)
		}
		if _, err := judges(c.tree, d.in.Engines); err != nil {
			return plan, err
		}
	}
	if touched || len(d.covered) > 0 || d.review {
		plan.Files = changed(d.in.Tree, c.tree)
	}
	if plan.Empty() && len(d.reasons) == 0 && !d.review {
		plan.Reasons = []string{"nothing new was learned"}
	}
	if err := d.summarize(&plan); err != nil {
		return plan, err
	}
	d.noteEntered()
	plan.Notes = tidy(c.notes)
	if !plan.Empty() && !d.review {
		plan.Message = discoverMessage(plan, d.covered, c.rec)
	}
	return plan, nil
}

// summarize describes every workload, and judges what was learned by the
// policies that were made of it: whatever they would deny is said now rather
// than when a service fails.
func (d *discovery) summarize(plan *Plan) error {
	var all map[string]engine.Judge
	if len(d.candidate.rec.Workloads) > 0 {
		t, err := d.candidate.denying()
		if err != nil {
			return err
		}
		if all, err = judges(t, d.in.Engines); err != nil {
			return err
		}
		d.noteTorn(all)
		d.noteSelectors()
	}
	for _, l := range d.learned {
		s := Summary{Workload: l.workload, Stage: policy.Audit, Change: l.change, Containers: l.set.Containers, New: l.added, More: l.more, Weak: weak(l.set), Suspicions: l.suspicions,
			Coverage: map[string]behavior.Coverage{}, Facts: map[behavior.Kind]int{}, Rules: map[string]int{}}
		if st := d.candidate.rec.find(l.workload.Slug()); st != nil {
			s.Stage = st.Stage
		}
		for subject, p := range l.profiles {
			for _, k := range behavior.Kinds() {
				s.Facts[k] += p.Count(k)
			}
			s.Entered += d.entered[subject]
			if f, ok := l.fresh[subject]; ok {
				s.Coverage[subject.Container] = f.Coverage
			}
		}
		for _, name := range names(d.in.Engines) {
			if all != nil {
				s.Rules[name] = d.judgeRules(l, name, all[name])
			}
		}
		plan.Summary = append(plan.Summary, s)
	}
	return nil
}

// weak counts the rules that stand on thin evidence.
func weak(s policy.Set) int {
	n := 0
	for _, r := range s.Rules {
		if r.Weak != "" {
			n++
		}
	}
	return n
}

// judgeRules counts the rules that an engine would enforce and notes the facts
// that it would deny although they were learned.
func (d *discovery) judgeRules(l learned, name string, j engine.Judge) int {
	n := 0
	var denied []string
	inside := conversations(l.profiles)
	for _, r := range l.set.Rules {
		subject := engine.Subject{Subject: behavior.Subject{Workload: l.workload, Container: r.Container}, Labels: l.set.Labels}
		subject.Inside = inside[r.Container]
		subject.Mounts = l.set.Coverage[r.Container].Mounts
		governed := false
		for o := range r.Facts.All() {
			if !judgeable(o.Fact) {
				continue
			}
			switch j.Judge(subject, o.Fact).Decision {
			case engine.Denied:
				denied = append(denied, o.Fact.String())
				governed = true
			case engine.Allowed:
				governed = true
			case engine.NotMine, engine.Unknown:
			}
		}
		if governed {
			n++
		}
	}
	if len(denied) > 0 && l.change != Held {
		d.candidate.notes = append(d.candidate.notes, Note{l.workload.Slug(), policy.Note{Engine: name,
			Text: fmt.Sprintf("would deny what was observed, %s: %s", count(len(denied), "action"), list(denied, 3))}})
	}
	return n
}
