package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Status is how far a workload is, and what stands in the way of its next stage.
type Status struct {
	Workload behavior.Workload
	Stage    policy.Stage // observe where the tree applies nothing for it
	Since    time.Time    // zero where the tree does not know it
	By       string
	// Containers are those of which anything is known, sorted by name.
	Containers []ContainerStatus
	Next       policy.Stage // empty at deny
	// Obstacles are what a promotion to Next would wait for, judged by the live
	// profiles, or by the committed ones where there is none; empty when nothing
	// is. Advice says what to do about them, or that it can be promoted.
	Obstacles []string
	Advice    []string
	// Gates are what was asked for Next, in order; none on the way to audit.
	Gates []Check
}

// ContainerStatus is what is known of one container.
type ContainerStatus struct {
	Name string
	// Committed and Live tell whether the tree knows of it, and the fresh profiles.
	Committed, Live bool
	Profile         behavior.Profile // both, merged
	// Shortfalls are what is not seen or was lost of the container, in words.
	Shortfalls []string
}

// Statuses describes workloads, given by slug, or all that the tree or the fresh
// profiles know. Fresh are those of collectors that are at work just now, and may
// be none. It changes nothing.
func Statuses(in Input, slugs []string) ([]Status, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return nil, err
	}
	fresh, err := group(in)
	if err != nil {
		return nil, err
	}
	all := map[string]behavior.Workload{}
	for _, s := range rec.Workloads {
		all[s.Slug] = s.workload(in.Namespace)
	}
	for w := range fresh {
		all[w.Slug()] = w
	}
	known := slices.Sorted(maps.Keys(all))
	if len(slugs) == 0 {
		slugs = known
	}
	o := outlook{in: in, rec: rec, judged: map[behavior.Workload]behavior.Profiles{}}
	var list []Status
	for _, slug := range slugs {
		w, ok := all[slug]
		if !ok {
			return nil, &UnknownWorkloadError{slug, known}
		}
		s, err := o.status(w, fresh[w])
		if err != nil {
			return nil, fmt.Errorf("status of %s: %w", w, err)
		}
		list = append(list, s)
	}
	return list, o.foresee(list)
}

// Workloads lists the workloads that the tree knows, in the order of their slugs.
func Workloads(in Input) ([]behavior.Workload, error) {
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return nil, err
	}
	var list []behavior.Workload
	for _, s := range rec.Workloads {
		list = append(list, s.workload(in.Namespace))
	}
	slices.SortFunc(list, func(a, b behavior.Workload) int { return cmp.Compare(a.Slug(), b.Slug()) })
	return list, nil
}

// outlook is how the workloads stand before their next stages.
type outlook struct {
	in     Input
	rec    record
	judged map[behavior.Workload]behavior.Profiles // by what it is said
	raised []string                                // that would come to deny
}

func (o *outlook) status(w behavior.Workload, fresh behavior.Profiles) (Status, error) {
	s := Status{Workload: w, Stage: policy.Observe}
	committed, err := evidence(o.in.Tree, w, behavior.DecodeFile)
	if err != nil {
		return s, err
	}
	merged := behavior.MergeProfiles(committed, fresh)
	for _, subject := range merged.Subjects() {
		_, old := committed[subject]
		_, now := fresh[subject]
		p := merged[subject]
		s.Containers = append(s.Containers, ContainerStatus{Name: subject.Container, Committed: old, Live: now, Profile: p, Shortfalls: p.Coverage.Shortfalls()})
	}
	st := o.rec.find(w.Slug())
	if st == nil {
		s.Next = policy.Audit
		s.Obstacles = []string{fmt.Sprintf("%s has no policies yet", w)}
		s.Advice = []string{discoverCommand(w.Namespace, "")}
		return s, nil
	}
	s.Stage, s.Since, s.By = cmp.Or(st.Stage, policy.Observe), st.Since, st.By
	if s.Stage == policy.Deny {
		return s, nil
	}
	if o.judged[w] = fresh; len(fresh) == 0 {
		o.judged[w] = committed
	}
	s.Next = policy.Audit
	if s.Stage == policy.Audit {
		s.Next = policy.Deny
		o.raised = append(o.raised, w.Slug())
	}
	return s, nil
}

// foresee asks the gates of the next stages: all at once, since the tree is built
// and read for it. Audit asks for nothing.
func (o *outlook) foresee(list []Status) error {
	violations := map[behavior.Workload][]Violation{}
	c := newCandidate(o.in, o.rec, false)
	edited, gates := "", newGates(o.in, c, nil)
	var all map[string]engine.Judge
	if len(o.raised) > 0 {
		for _, slug := range o.raised {
			c.rec.find(slug).Stage = policy.Deny
		}
		err := c.settle()
		var hand *HandEditedError
		switch {
		case errors.As(err, &hand):
			edited = hand.Error()
		case err != nil:
			return err
		default:
			gates.files = c.tree.Index()
			if all, err = judges(c.tree, o.in.Engines); err != nil {
				return err
			}
			in := o.in
			in.Fresh = behavior.Profiles{}
			for _, profiles := range o.judged {
				for s, p := range profiles {
					in.Fresh[s] = p
				}
			}
			subjects := in.Fresh.Subjects()
			for _, v := range judge(in, subjects, all, declined(in, o.rec, subjects)).Violations {
				violations[v.Subject.Workload] = append(violations[v.Subject.Workload], v)
			}
		}
	}
	for i := range list {
		s := &list[i]
		if o.judged[s.Workload] == nil || s.Next == "" {
			continue
		}
		if s.Next == policy.Deny {
			var reasons []string
			for _, v := range violations[s.Workload] {
				reasons = append(reasons, v.String())
			}
			if edited != "" {
				reasons = append(reasons, edited)
			}
			none := fmt.Sprintf("%s judged, none would be denied", count(facts(o.judged[s.Workload]), "fact"))
			s.Gates = []Check{checked(GateViolations, none, reasons)}
			if governed, refused := admission(s.Workload, o.judged[s.Workload], all); governed {
				s.Gates = append(s.Gates, checked(GateAdmission, "new pods may be as its pods are", refused))
			}
			s.Gates = append(s.Gates, gates.of(*o.rec.find(s.Workload.Slug()), o.judged[s.Workload])...)
			s.Obstacles = reasonsOf(s.Gates)
		}
		s.Advice = s.advise(len(violations[s.Workload]) > 0 && s.Next == policy.Deny, o.judged[s.Workload])
	}
	return nil
}

// facts counts those that an engine could be asked about.
func facts(profiles behavior.Profiles) int {
	n := 0
	for _, p := range profiles {
		for f := range p.Facts.Keys() {
			if judgeable(f) {
				n++
			}
		}
	}
	return n
}

// advise says what to do next, the first thing first.
func (s *Status) advise(violated bool, judged behavior.Profiles) []string {
	var list []string
	if violated {
		list = append(list, (&NotYetError{Violations: make([]Violation, 1)}).Hint())
	}
	unstarted, unsteady, short := false, false, !learnable(judged)
	for _, c := range s.Containers {
		seen := c.Profile.Coverage.Milestones()
		unstarted = unstarted || !slices.Contains(seen, "start")
		unsteady = unsteady || !slices.Contains(seen, "steady")
	}
	for _, p := range judged {
		short = short || len(p.Coverage.Shortfalls()) > 0
	}
	switch {
	case unstarted:
		list = append(list, "see it start: "+discoverCommand(s.Workload.Namespace, "--restart"))
	case short:
		list = append(list, "observe again: "+discoverCommand(s.Workload.Namespace, ""))
	}
	if unsteady {
		list = append(list, "see it at rest: "+discoverCommand(s.Workload.Namespace, "--until-stable"))
	}
	if len(s.Obstacles) == 0 {
		list = append(list, fmt.Sprintf("promote it, which observes once more: kubectl autopolicy promote -n %s %s --to=%s", s.Workload.Namespace, s.Workload, s.Next))
	}
	return list
}

func discoverCommand(namespace, flag string) string {
	return strings.TrimSpace("kubectl autopolicy discover -n " + namespace + " " + flag)
}
