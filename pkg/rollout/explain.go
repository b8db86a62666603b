package rollout

import (
	"fmt"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Explanation is why a workload's policies are what they are.
type Explanation struct {
	Workload behavior.Workload
	Stage    policy.Stage
	Set      policy.Set // learned again from the committed evidence
	Rules    []Explained
	// Pods is how many pods were ever observed, by container.
	Pods map[string]int
}

// Explained is one rule with the objects that hold it.
type Explained struct {
	policy.Rule
	// Objects is how each engine stands to the rule in stage deny, by engine;
	// those that have no say in it are left out.
	Objects map[string]engine.Verdict
}

// Explain tells for each rule of a workload, given by slug, what it was learned
// from and which object of which engine in the tree holds it. A rule that an
// object refuses is one that a person took out, or that the engine cannot
// express.
func Explain(in Input, slug string) (Explanation, error) {
	var x Explanation
	if err := in.check(); err != nil {
		return x, err
	}
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return x, err
	}
	s := rec.find(slug)
	if s == nil {
		var known []string
		for _, s := range rec.Workloads {
			known = append(known, s.Slug)
		}
		return x, &UnknownWorkloadError{slug, known}
	}
	x.Workload, x.Stage = s.workload(in.Namespace), s.Stage
	profiles, err := evidence(in.Tree, x.Workload, behavior.DecodeFile)
	if err != nil {
		return x, err
	}
	if x.Set, err = in.Learn(sorted(profiles), about(rec.decisions, x.Workload)); err != nil {
		return x, fmt.Errorf("learn %s: %w", x.Workload, err)
	}
	x.Pods = map[string]int{}
	for _, p := range profiles {
		x.Pods[p.Subject.Container] = len(p.Coverage.Pods)
	}
	t, err := newCandidate(in, rec, false).denying()
	if err != nil {
		return x, err
	}
	all, err := judges(t, in.Engines)
	if err != nil {
		return x, err
	}
	inside := conversations(profiles)
	for _, r := range x.Set.Rules {
		subject := engine.Subject{Subject: behavior.Subject{Workload: x.Workload, Container: r.Container}, Labels: x.Set.Labels, Inside: inside[r.Container],
			Mounts: x.Set.Coverage[r.Container].Mounts}
		x.Rules = append(x.Rules, Explained{Rule: r, Objects: objects(subject, r, all)})
	}
	return x, nil
}

// objects asks each engine about the facts of a rule: the first verdict that is
// not that it is allowed counts, else the first.
func objects(subject engine.Subject, r policy.Rule, all map[string]engine.Judge) map[string]engine.Verdict {
	found := map[string]engine.Verdict{}
	for name, j := range all {
		for o := range r.Facts.All() {
			v := j.Judge(subject, o.Fact)
			if v.Decision == engine.NotMine {
				continue
			}
			if _, ok := found[name]; !ok || v.Decision != engine.Allowed {
				found[name] = v
			}
			if v.Decision != engine.Allowed {
				break
			}
		}
	}
	return found
}
