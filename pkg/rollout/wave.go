package rollout

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Choice says which workloads of a namespace a promotion is about: those that
// meet all that it says. What is zero says nothing.
type Choice struct {
	Workloads []string // by slug
	Selector  string   // of their pods' labels, as kubectl -l takes it
	Wave      int      // of this wave of rollout.yaml, or an earlier one
	// Percent of the namespace's workloads, rounded up: the same ones each time,
	// and among those of a higher percentage.
	Percent int
}

func (c Choice) all() bool {
	return len(c.Workloads) == 0 && c.Selector == "" && c.Wave == 0 && c.Percent == 0
}

// ErrNoneChosen is a choice that no workload of the namespace meets.
var ErrNoneChosen = errors.New("no workload of the namespace is chosen")

// Choose gives the slugs of the chosen workloads, sorted; those of all when the
// choice says nothing.
func Choose(in Input, c Choice) ([]string, error) {
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return nil, err
	}
	chosen, err := rec.choose(in, c)
	if err == nil && len(chosen) == 0 && !c.all() {
		err = ErrNoneChosen
	}
	return chosen, err
}

func (r record) choose(in Input, c Choice) ([]string, error) {
	if c.Percent < 0 || c.Percent > 100 || c.Wave < 0 {
		return nil, fmt.Errorf("choose workloads: wave %d, %d percent: want a wave from 1, and 1 to 100 percent", c.Wave, c.Percent)
	}
	selector, err := labels.Parse(c.Selector)
	if err != nil {
		return nil, fmt.Errorf("choose workloads: selector %q: %w", c.Selector, err)
	}
	var known []string
	for _, s := range r.Workloads {
		known = append(known, s.Slug)
	}
	for _, slug := range c.Workloads {
		if !slices.Contains(known, slug) {
			return nil, &UnknownWorkloadError{slug, known}
		}
	}
	share := portion(known, c.Percent)
	var chosen []string
	for _, s := range r.Workloads {
		switch {
		case len(c.Workloads) > 0 && !slices.Contains(c.Workloads, s.Slug),
			c.Wave > 0 && max(s.Wave, 1) > c.Wave,
			c.Percent > 0 && !slices.Contains(share, s.Slug):
			continue
		}
		if !selector.Empty() {
			labelled, err := labelsOf(in.Tree, s.workload(in.Namespace))
			if err != nil {
				return nil, err
			}
			if !selector.Matches(labels.Set(labelled)) {
				continue
			}
		}
		chosen = append(chosen, s.Slug)
	}
	slices.Sort(chosen)
	return chosen, nil
}

// portion is the first percent of slugs in the order of their digests: no name is
// first because of its first letter, and who was chosen stays chosen while the
// percentage grows.
func portion(slugs []string, percent int) []string {
	order := slices.Clone(slugs)
	slices.SortFunc(order, func(a, b string) int {
		x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
		return strings.Compare(string(x[:]), string(y[:]))
	})
	return order[:(len(order)*percent+99)/100]
}

func labelsOf(t overlay.Tree, w behavior.Workload) (map[string]string, error) {
	profiles, err := evidence(t, w, behavior.DecodeCoverage)
	if err != nil {
		return nil, err
	}
	for _, p := range sorted(profiles) {
		return behavior.ParseLabels(p.Labels)
	}
	return nil, nil
}

// step is one entry of the schedule in rollout.yaml: the chosen workloads come to
// a stage once the cluster has run the one before for After, or from At on.
type step struct {
	To        policy.Stage `json:"to"`
	After     string       `json:"after,omitempty"` // a duration such as 72h
	At        time.Time    `json:"at,omitzero"`
	Workloads []string     `json:"workloads,omitempty"` // by slug
	Selector  string       `json:"selector,omitempty"`
	Wave      int          `json:"wave,omitempty"`
	Percent   int          `json:"percent,omitempty"`
}

func (s step) choice() Choice { return Choice{s.Workloads, s.Selector, s.Wave, s.Percent} }

func (s step) validate() error {
	if s.To != policy.Deny {
		return fmt.Errorf("schedule: to is %q, want %s", s.To, policy.Deny)
	}
	if d, err := time.ParseDuration(cmp.Or(s.After, "0s")); err != nil || d < 0 {
		return fmt.Errorf("schedule: after is %q, want a duration such as 72h", s.After)
	}
	if (s.After == "") == s.At.IsZero() {
		return errors.New("schedule: want one of after and at in each entry")
	}
	return nil
}

// Scheduled is what the schedule of a namespace asks for.
type Scheduled struct {
	Due []string // slugs of workloads that shall come to deny now, sorted
	// Waiting say in words what comes later.
	Waiting []string
}

// Schedule reads which workloads rollout.yaml wants at deny by now. It opens no
// gate: a promotion of those that are due is judged as any other.
func Schedule(in Input) (Scheduled, error) {
	var s Scheduled
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return s, err
	}
	if len(rec.Schedule) == 0 {
		return s, &overlay.InvalidError{File: RecordFile, Reason: "has no schedule"}
	}
	g := newGates(in, newCandidate(in, rec, false), nil)
	for _, step := range rec.Schedule {
		chosen, err := rec.choose(in, step.choice())
		if err != nil {
			return s, &overlay.InvalidError{File: RecordFile, Reason: "schedule: " + err.Error()}
		}
		for _, slug := range chosen {
			st := *rec.find(slug)
			if st.Stage != policy.Audit {
				continue
			}
			now, from, why := g.due(step, st)
			switch {
			case why != "":
				s.Waiting = append(s.Waiting, fmt.Sprintf("%s: %s", st.workload(""), why))
			case now.Before(from):
				s.Waiting = append(s.Waiting, fmt.Sprintf("%s: %s at %s", st.workload(""), step.To, moment(from)))
			default:
				s.Due = append(s.Due, slug)
			}
		}
	}
	slices.Sort(s.Due)
	s.Due = slices.Compact(s.Due)
	return s, nil
}

// due is from when on a step is due for a workload, by which clock, or why that is
// not known.
func (g gates) due(s step, st state) (now, from time.Time, why string) {
	now, began := g.in.Now, st.Since
	if g.in.Synced != nil {
		check, since := g.in.Synced.check(g.in.Tree, st, g.slugs)
		if now = g.in.Synced.Now; now.IsZero() {
			now = g.in.Now
		}
		if began = since; s.After != "" && (!check.Open || since.IsZero()) {
			return now, from, fmt.Sprintf("its %s in %s have not begun, since the cluster does not run it", s.After, policy.Audit)
		}
	}
	if s.After == "" {
		return now, s.At, ""
	}
	after, _ := time.ParseDuration(s.After) // validate has read it
	return now, began.Add(after), ""
}
