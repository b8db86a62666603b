package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// judgeable tells whether a policy is held to a fact: not to what the container's
// runtime or people who entered it did, nor to what the kernel refused anyway.
func judgeable(f behavior.Fact) bool { return f.Own() && !f.Refused }

// conversations gives, by container, where the profiles show what was said.
func conversations(ps behavior.Profiles) map[string]map[engine.Conversation]bool {
	all := make(map[string]map[engine.Conversation]bool, len(ps))
	for s, p := range ps {
		all[s.Container] = engine.Inside(p.Facts)
	}
	return all
}

// learnable tells whether there is anything to make rules of.
func learnable(ps behavior.Profiles) bool {
	for _, p := range ps {
		for f := range p.Facts.Keys() {
			if judgeable(f) {
				return true
			}
		}
	}
	return false
}

// relabel gives every profile the labels that the workload's pods have now: a
// policy by the labels of before would select none of them.
func relabel(merged, fresh behavior.Profiles) behavior.Profiles {
	labels := ""
	for _, p := range fresh {
		labels = max(labels, p.Labels)
	}
	if labels == "" {
		return merged
	}
	for s, p := range merged {
		p.Labels = labels
		merged[s] = p
	}
	return merged
}

// equal tells whether two sets allow the same to the same pods and set the same
// aside, on whatever evidence.
func equal(a, b policy.Set) bool {
	return maps.Equal(a.Labels, b.Labels) && slices.Equal(a.Containers, b.Containers) &&
		slices.EqualFunc(a.Rules, b.Rules, func(x, y policy.Rule) bool { return policy.Compare(x, y) == 0 }) &&
		slices.EqualFunc(a.Suspicions, b.Suspicions, func(x, y policy.Suspicion) bool {
			return x.Container == y.Container && x.Class == y.Class && x.Why == y.Why && x.Decision == y.Decision &&
				slices.EqualFunc(x.Facts, y.Facts, sameFact) && slices.EqualFunc(x.With, y.With, sameFact)
		})
}

func sameFact(a, b behavior.Observed) bool { return a.Fact == b.Fact }

// beyond gives the rules of now that are not in before. Both are in order.
func beyond(now, before policy.Set) []policy.Rule {
	var list []policy.Rule
	for _, r := range now.Rules {
		if _, found := slices.BinarySearchFunc(before.Rules, r, policy.Compare); !found {
			list = append(list, r)
		}
	}
	return list
}

// list names the first few of many.
func list[T any](all []T, most int) string {
	var parts []string
	for _, x := range all[:min(len(all), most)] {
		parts = append(parts, fmt.Sprint(x))
	}
	text := strings.Join(parts, "; ")
	if more := len(all) - most; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// count says how many there are of a thing.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// tidy sorts notes and drops those that are there twice.
func tidy(notes []Note) []Note {
	slices.SortFunc(notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Engine, b.Engine),
			cmp.Compare(a.Container, b.Container), cmp.Compare(a.Text, b.Text))
	})
	return slices.Compact(notes)
}
