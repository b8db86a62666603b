package rollout

import (
	"fmt"
	"slices"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// suspicions are what is set aside of profiles of one workload.
func suspicions(rec record, w behavior.Workload, profiles behavior.Profiles) []policy.Suspicion {
	return learn.Suspicions(sorted(profiles), learn.Options{Entered: true, Decided: about(rec.decisions, w)})
}

// declined gives the facts that people declined, and what goes with those: that they
// are denied is no reason to wait.
func declined(in Input, rec record, subjects []behavior.Subject) map[behavior.Subject]map[behavior.Fact]bool {
	all := map[behavior.Subject]map[behavior.Fact]bool{}
	for _, subject := range subjects {
		if about(rec.decisions, subject.Workload) == nil {
			continue
		}
		facts := map[behavior.Fact]bool{}
		for _, s := range suspicions(rec, subject.Workload, behavior.Profiles{subject: in.Fresh[subject]}) {
			if s.Decision == policy.Declined {
				for _, o := range slices.Concat(s.Facts, s.With) {
					facts[o.Fact] = true
				}
			}
		}
		all[subject] = facts
	}
	return all
}

// undecided says what waits for a person.
func undecided(suspicions []policy.Suspicion) []string {
	var list []string
	for _, s := range suspicions {
		if s.Decision == policy.Declined {
			continue
		}
		word := Undecided
		if s.Decision == policy.Postponed {
			word = policy.Postponed
		}
		list = append(list, fmt.Sprintf("%s: %s, %s: %s", s.Container, s.Class, word, s.Why))
	}
	return list
}

// suspected is the gate for what waits for a person: of what was seen now, and of
// what the policies were made from.
func suspected(in Input, rec record, before state, w behavior.Workload, fresh behavior.Profiles) Check {
	open := undecided(suspicions(rec, w, fresh))
	committed := before.Undecided
	if before.Decisions != decisionsDigest(rec.decisions, w) { // people decided since
		profiles, err := evidence(in.Tree, w, behavior.DecodeFile)
		if err != nil {
			return Check{Gate: GateSuspicions}.closed(err.Error())
		}
		committed = undecided(suspicions(rec, w, profiles))
	}
	for _, text := range committed {
		if !slices.Contains(open, text) {
			open = append(open, text)
		}
	}
	var reasons []string
	for _, text := range open {
		reasons = append(reasons, fmt.Sprintf("%s/%s (decide with: kubectl autopolicy review -n %s %s)", w, text, w.Namespace, w))
	}
	return checked(GateSuspicions, "nothing suspicious waits for a decision", reasons)
}
