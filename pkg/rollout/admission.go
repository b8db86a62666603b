package rollout

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// refusals say which workload's new pods would be refused by the policies of the
// judges, though its pods are as they were observed: what runs goes on, and is not
// started again. Workloads are given by slug.
func refusals(c *candidate, slugs []string, fresh map[behavior.Workload]behavior.Profiles, all map[string]engine.Judge) []string {
	var reasons []string
	for _, slug := range slugs {
		w := c.rec.find(slug).workload(c.namespace)
		reasons = append(reasons, refusalsOf(w, fresh[w], all)...)
	}
	return reasons
}

// refusalsOf are those of one workload.
func refusalsOf(w behavior.Workload, profiles behavior.Profiles, all map[string]engine.Judge) []string {
	_, reasons := admission(w, profiles, all)
	return reasons
}

// admission tells also whether there is a policy that decides about the pods.
func admission(w behavior.Workload, profiles behavior.Profiles, all map[string]engine.Judge) (governed bool, reasons []string) {
	var cover behavior.Coverage
	for _, p := range profiles {
		cover = behavior.MergeCoverage(behavior.Coverage{Spec: cover.Spec}, behavior.Coverage{Spec: p.Coverage.Spec})
	}
	if cover.Spec == nil {
		return false, nil
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if a, ok := all[name].(engine.Admitter); ok {
			v := a.Admit(w, cover.Spec.Pod)
			governed = governed || v.Decision != engine.NotMine
			if v.Decision == engine.Denied || v.Decision == engine.Unknown {
				reasons = append(reasons, fmt.Sprintf("%s: its new pods %s by %s (%s): %s", w,
					map[engine.Decision]string{engine.Denied: "would be refused", engine.Unknown: "may be refused"}[v.Decision], name, v.Object, v.Reason))
			}
		}
	}
	return governed, reasons
}

// standsElsewhere tells whether two sets that allow the same stand on such
// different ground that an engine makes something else of them: a start that was
// seen, another specification of the pods, other mounts.
func (d *discovery) standsElsewhere(now, before policy.Set) (bool, error) {
	if sameGround(now.Coverage, before.Coverage) {
		return false, nil
	}
	for _, e := range d.in.Engines {
		a, err := e.Render(now)
		if err != nil && !errors.Is(err, engine.ErrNoEvidence) {
			return false, fmt.Errorf("render for %s: %w", e.Name(), err)
		}
		b, err := e.Render(before)
		if err != nil && !errors.Is(err, engine.ErrNoEvidence) {
			return false, fmt.Errorf("render for %s: %w", e.Name(), err)
		}
		if !sameFiles(a, b) {
			return true, nil
		}
	}
	return false, nil
}

// sameGround compares what engines look at beside the rules.
func sameGround(a, b map[string]behavior.Coverage) bool {
	return maps.EqualFunc(a, b, func(x, y behavior.Coverage) bool {
		return (x.Starts() > 0) == (y.Starts() > 0) && behavior.SameSpec(x.Spec, y.Spec) && maps.Equal(x.Mounts, y.Mounts) &&
			maps.EqualFunc(x.Hooks, y.Hooks, slices.Equal[[]string])
	})
}

func sameFiles(a, b engine.Rendered) bool {
	return bytes.Equal(a.Base, b.Base) && a.Level == b.Level && maps.EqualFunc(a.Component, b.Component, bytes.Equal) &&
		maps.EqualFunc(a.Stage, b.Stage, func(x, y map[string][]byte) bool { return maps.EqualFunc(x, y, bytes.Equal) })
}
