// Package podsecurity renders what a workload's pods need to be allowed, and no
// more: a patch for the workload's own manifest (capabilities, read-only root file
// system and mounts, no way to gain privileges), and an admission policy that
// holds its future pods to what they are. It judges facts by such patches and pod
// specifications by such admission policies.
//
// It never takes from a pod what was seen to be used, and takes nothing at all
// from a container of which the start or the kind of fact was not observed; why
// not is a note.
package podsecurity

import (
	"slices"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Name is the engine's name.
const Name = "podsecurity"

// Engine implements engine.Engine. The zero value is ready for use.
type Engine struct {
	// Localhost names the seccomp profiles of package seccomp, as the Security
	// Profiles Operator puts them on the nodes, instead of the runtime's default.
	Localhost bool
}

// Name implements engine.Engine.
func (Engine) Name() string { return Name }

// Render implements engine.Engine.
func (e Engine) Render(s policy.Set) (engine.Rendered, error) {
	var out engine.Rendered
	seen := specOf(s)
	if seen == nil {
		out.Notes = []policy.Note{{Engine: Name, Text: "what its pods may do by their specification was not seen, so that nothing is hardened"}}
		return out, engine.ErrNoEvidence
	}
	h := hardening{set: s, spec: seen.Pod, localhost: e.Localhost}
	for _, c := range seen.Pod.All() {
		h.container(c)
	}
	var err error
	if out.Component, err = h.patches(); err != nil {
		return engine.Rendered{}, err
	}
	if seen.Cut {
		h.note("", "its pods' specification is too long to be held to")
	} else {
		level, _ := LevelOf(seen.Pod)
		out.Level = string(level)
		if out.Base, err = h.admission(); err != nil {
			return engine.Rendered{}, err
		}
	}
	slices.SortFunc(h.notes, engine.CompareNotes)
	out.Notes = h.notes
	if len(out.Base) == 0 && len(out.Component) == 0 {
		return out, engine.ErrNoEvidence
	}
	return out, nil
}

// specOf is the newest specification of the workload's pods.
func specOf(s policy.Set) *behavior.SeenSpec {
	var all behavior.Coverage
	for _, c := range s.Coverage {
		all = behavior.MergeCoverage(behavior.Coverage{Spec: all.Spec}, behavior.Coverage{Spec: c.Spec})
	}
	return all.Spec
}
