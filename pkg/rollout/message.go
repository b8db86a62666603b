package rollout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Trailers of a commit message, by which a machine reads what it was.
const (
	TrailerStage     = "Autopolicy-Stage"
	TrailerNamespace = "Autopolicy-Namespace"
	TrailerEvidence  = "Autopolicy-Evidence"
	TrailerDecisions = "Autopolicy-Decisions" // only where people decided: how many of each
)

// message joins subject, body and trailers as git wants them. Everything in it
// is text that may be printed: what pods control comes escaped.
func message(subject string, body []string, stage policy.Stage, namespace, evidence string, more ...string) string {
	var b strings.Builder
	b.WriteString(behavior.Escape(subject) + "\n\n")
	for _, line := range body {
		b.WriteString("- " + oneLine(line) + "\n")
	}
	if len(body) > 0 {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s: %s\n%s: %s\n%s: %s\n", TrailerStage, stage, TrailerNamespace, namespace, TrailerEvidence, evidence)
	for _, trailer := range more {
		b.WriteString(trailer + "\n")
	}
	return b.String()
}

// oneLine keeps a text from becoming a trailer or a second paragraph.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

func discoverMessage(p Plan, covered []string, rec record) string {
	var slugs, body []string
	for _, s := range p.Summary {
		for _, text := range undecided(s.Suspicions) {
			body = append(body, fmt.Sprintf("set aside until somebody decides: %s/%s", s.Workload, text))
		}
	}
	stage := policy.Audit
	learned := slices.ContainsFunc(p.Summary, func(s Summary) bool { return s.Change == Added || s.Change == Updated })
	for _, s := range p.Summary {
		if learned && s.Change != Added && s.Change != Updated || !learned && !s.More {
			continue
		}
		if !learned {
			slugs = append(slugs, s.Workload.String())
			if s.Stage == policy.Deny {
				stage = policy.Deny
			}
			continue
		}
		slugs = append(slugs, s.Workload.String())
		if s.Stage == policy.Deny {
			stage = policy.Deny // relearned: what is new is allowed at once
		}
		var facts []string
		for _, k := range behavior.Kinds() {
			if n := s.Facts[k]; n > 0 {
				facts = append(facts, fmt.Sprintf("%d %s", n, k))
			}
		}
		body = append(body, fmt.Sprintf("%s: %s at %s, %s; facts: %s", s.Workload, s.Change, s.Stage, count(len(s.New), "new rule"), strings.Join(facts, ", ")))
	}
	subject := "Learn policies of "
	if !learned {
		subject = "Record coverage of "
	}
	body = append(append(body, covered...), p.Reasons...)
	return message(subject+p.Namespace+": "+several(slugs), body, stage, p.Namespace, rec.digest())
}

// several names one workload, or says how many there are.
func several(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%d workloads", len(names))
}

func stageMessage(verb string, p Plan, stage policy.Stage, workloads []string, body []string, rec record) string {
	slices.Sort(workloads)
	lines := slices.Clone(body)
	if len(workloads) > 1 {
		lines = append([]string{"workloads: " + strings.Join(workloads, ", ")}, lines...)
	}
	return message(fmt.Sprintf("%s %s to %s: %s", verb, p.Namespace, stage, several(workloads)), lines, stage, p.Namespace, rec.digest())
}
