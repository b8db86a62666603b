package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// cover puts the coverage into the evidence of a workload whose rules stay as
// they are, if more of a container's life was observed than ever before: its
// start, its readiness, its steady state, a restart, its end, or another image. That
// happens at most once each, so that the history does not get a commit for every run. The
// facts keep their evidence.
func (d *discovery) cover(l *learned, old behavior.Profiles) error {
	now := maps.Clone(old)
	more := false
	for _, s := range old.Subjects() {
		fresh, ok := l.fresh[s]
		if !ok {
			continue
		}
		p := old[s]
		seen := p.Coverage.Milestones()
		p.Coverage = behavior.MergeCoverage(p.Coverage, fresh.Coverage)
		first := slices.DeleteFunc(p.Coverage.Milestones(), func(m string) bool { return slices.Contains(seen, m) })
		for _, image := range imagesOf(fresh.Coverage) {
			if !learnedFrom(image, imagesOf(old[s].Coverage)) {
				first = append(first, "image "+behavior.Escape(image))
			}
		}
		if now[s] = p; len(first) == 0 {
			continue
		}
		more = true
		d.covered = append(d.covered, fmt.Sprintf("%s/%s: observed for the first time: %s", l.workload, s.Container, strings.Join(first, ", ")))
	}
	if !more {
		return nil
	}
	data, err := behavior.EncodeFile(sorted(now))
	if err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	d.candidate.tree[evidencePath(l.workload.Slug())] = data
	if l.profiles, l.more = now, true; l.change == Unchanged {
		l.change = Covered
	}
	return nil
}

// withoutEntered leaves out the facts of processes that entered a container from
// outside, and counts them. A profile of which nothing else is known stays, with
// its coverage.
func withoutEntered(groups map[behavior.Workload]behavior.Profiles) (map[behavior.Workload]behavior.Profiles, map[behavior.Subject]int) {
	kept, left := make(map[behavior.Workload]behavior.Profiles, len(groups)), map[behavior.Subject]int{}
	for w, group := range groups {
		kept[w] = make(behavior.Profiles, len(group))
		for s, p := range group {
			facts := p.Facts.Filter(func(f behavior.Fact) bool { return f.Origin != behavior.OriginExec })
			if n := p.Facts.Len() - facts.Len(); n > 0 {
				left[s], p.Facts = n, facts
			}
			kept[w][s] = p
		}
	}
	return kept, left
}

// noteEntered says per container what was left out.
func (d *discovery) noteEntered() {
	for s, n := range d.entered {
		d.candidate.notes = append(d.candidate.notes, Note{s.Workload.Slug(), policy.Note{Container: s.Container,
			Text: fmt.Sprintf("%s of processes that entered the container from outside, such as by kubectl exec: left out", count(n, "fact"))}})
	}
}
