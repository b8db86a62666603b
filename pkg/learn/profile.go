package learn

import (
	"maps"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// merge joins the profiles of each container.
func merge(profiles []behavior.Profile) behavior.Profiles {
	merged, count := behavior.Profiles{}, map[behavior.Subject]int{}
	for _, p := range profiles {
		all, ok := merged[p.Subject]
		switch count[p.Subject]++; {
		case !ok:
			all = p
		case count[p.Subject] == 2:
			all = behavior.MergeAll(all, p) // which shares nothing with either
		default:
			all.Absorb(p)
		}
		merged[p.Subject] = all
	}
	return merged
}

// divide gives the numbers of the facts that become rules, those about files apart,
// and notes the others. Those set aside are neither.
func divide(facts behavior.Facts, o Options, aside map[int32]bool, n *notes) (files, others []int32) {
	forms := facts.Forms()
	for i := range int32(facts.Len()) {
		form, _ := facts.Form(i)
		switch f := &forms[form]; {
		case f.Runtime:
			n.runtime++
		case f.Origin == behavior.OriginExec && !o.Entered:
			n.entered++
		case len(aside) > 0 && aside[i]:
			// It is in the suspicions.
		case f.Kind == behavior.File:
			files = append(files, i)
		case f.Kind == behavior.Socket || f.Kind == behavior.Kafka:
			// What they allow is a rule for the peer or the protocol.
		case f.Kind == behavior.Capability && f.Refused:
			n.refused = append(n.refused, *f)
		default:
			others = append(others, i)
		}
	}
	return files, others
}

// clockOf gives when, with a day on both sides, and in which pods something was
// seen.
func clockOf(e behavior.Evidence) clock {
	c := clock{pods: slices.Sorted(maps.Keys(e.Pods))}
	if !e.Last.IsZero() {
		c.first, c.last = e.First.Add(-day), e.Last.Add(day)
	}
	if len(c.pods) > 0 {
		c.stem = c.pods[0]
	}
	for _, pod := range c.pods {
		for !strings.HasPrefix(pod, c.stem) {
			c.stem = c.stem[:len(c.stem)-1]
		}
	}
	return c
}

// valid tells whether all facts are: all of one form at once, but for their paths.
func valid(facts behavior.Facts) error {
	forms := facts.Forms()
	for _, f := range forms {
		f.Path = "/"
		if err := f.Validate(); err != nil {
			return err
		}
	}
	for i := range int32(facts.Len()) {
		form, path := facts.Form(i)
		kind := forms[form].Kind
		if needed := kind == behavior.Process || kind == behavior.File || kind == behavior.HTTP; path == "" && needed || !behavior.IsEscaped(path) {
			return facts.At(i).Validate()
		}
	}
	return nil
}
