package cli

import (
	"fmt"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// suspicionReport is a suspicion in the form that programs read.
type suspicionReport struct {
	Container string          `json:"container"`
	Class     string          `json:"class"`
	Why       string          `json:"why"`
	Decision  policy.Decision `json:"decision"` // undecided, declined or postponed
	Facts     []string        `json:"facts"`    // what is decided about, in words
	With      int             `json:"with"`     // facts that stay out with them
}

func suspicionReports(list []policy.Suspicion) []suspicionReport {
	var all []suspicionReport
	for _, s := range list {
		r := suspicionReport{Container: s.Container, Class: s.Class, Why: s.Why, Decision: said(s.Decision), With: len(s.With)}
		for _, o := range s.Facts {
			r.Facts = append(r.Facts, o.Fact.String())
		}
		all = append(all, r)
	}
	return all
}

// said is a decision in a word, also where there is none.
func said(d policy.Decision) policy.Decision {
	if d == "" {
		return rollout.Undecided
	}
	return d
}

// suspiciousFacts is how many facts of a suspicion are named before the others are
// only counted.
const suspiciousFacts = 3

// showSuspicious says what waits for somebody, before anything else is said.
func (a *app) showSuspicious(plan rollout.Plan) {
	open := 0
	for _, w := range plan.Summary {
		for _, s := range w.Suspicions {
			if s.Decision == policy.Declined {
				continue
			}
			open++
			times := behavior.Selected(s.Facts...)
			fmt.Fprintln(a.Out, printable(fmt.Sprintf("suspicious: %s/%s: %s, %s: %s (seen at least %d times in %s)", w.Workload, s.Container, s.Class,
				said(s.Decision), s.Why, times.Count(), number(len(times.Evidence().Pods), "pod"))))
			for i, o := range s.Facts {
				if i == suspiciousFacts {
					fmt.Fprintf(a.Out, "  and %d more\n", len(s.Facts)-i)
					break
				}
				fmt.Fprintln(a.Out, "  "+printable(fitted(o.Fact.String())))
			}
		}
	}
	if open > 0 {
		fmt.Fprintf(a.ErrOut, "%s in no policy until somebody decides: kubectl autopolicy review -n %s\n", number(open, "suspicion")+is(open), plan.Namespace)
	}
}

func is(n int) string {
	if n == 1 {
		return " is"
	}
	return " are"
}
