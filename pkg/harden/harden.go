// Package harden holds hardening templates: policies that block or report what no
// such workload should do, by what frameworks such as MITRE ATT&CK say. It reads
// them (its own, and folders in the layout of kubearmor/policy-templates), finds
// those that are for a workload, and sets those apart that would deny something
// that was observed.
//
// It is pure, and never applies a template on its own: a template that conflicts
// with evidence is shown, not applied.
package harden

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
)

// Template is one hardening template.
type Template struct {
	Name    string // lower case letters, digits and dashes; unique in a list
	Summary string // one sentence; escaped
	Detail  string // escaped
	// References are where the template's reasons stand, by framework.
	References []Reference
	// Source says where it was read, such as "built in" or file:line of a folder.
	Source string
	// always: it needs no file. Else one of what matches has to be there.
	always  bool
	matches []*regexp.Regexp
	parts   []kubearmor.Template
}

// Reference is an entry of a framework.
type Reference struct {
	Framework string `json:"framework"` // MITRE ATT&CK, NIST 800-53, CIS, STIG; escaped
	Entry     string `json:"entry"`     // what it is called there, or its address; escaped
}

// Skipped is a template that could not be used, with the reason.
type Skipped struct {
	Name, Source string // escaped
	Reason       string // in words, escaped
}

// Actions are what the template's parts do, Block before Audit.
func (t Template) Actions() []string {
	var all []string
	for _, p := range t.parts {
		all = append(all, p.Action)
	}
	return all
}

// Outcome is what became of a template for one container.
type Outcome string

// Outcomes.
const (
	Applies   Outcome = "applies"
	Conflicts Outcome = "conflict"   // it would deny what was observed
	NotFor    Outcome = "not for it" // nothing that it is about was seen
	NoRoom    Outcome = "no room"    // KubeArmor has no keys left for the container
	Unsure    Outcome = "unsure"     // whether it would deny something cannot be told
)

// Result is a template and one container.
type Result struct {
	Template  Template
	Container string
	Outcome   Outcome
	// Why says in words how the outcome came about, escaped; empty when there is
	// no more to say.
	Why string
	// Facts are what it would deny, in order of behavior.Compare.
	Facts []behavior.Fact
	// Policies are the YAML documents that apply it; empty unless it applies.
	Policies [][]byte
	objects  []engine.Object
}

// Subject is a container to harden.
type Subject struct {
	engine.Subject
	Facts []behavior.Fact // everything that it was observed doing
	// Room is what the policies that it has already leave of KubeArmor's keys; those
	// that were made of templates are not among them. Match takes of it.
	Room *kubearmor.Room
}

// Match holds a container against templates, in the order in which they are
// given room: the most severe first.
func Match(s Subject, templates []Template) ([]Result, error) {
	ordered := slices.Clone(templates)
	slices.SortStableFunc(ordered, func(a, b Template) int {
		return cmp.Or(kubearmor.CompareTemplates(a.parts[0], b.parts[0]), cmp.Compare(a.Name, b.Name))
	})
	results := make([]Result, 0, len(ordered))
	for _, t := range ordered {
		r, err := match(s, t)
		if err != nil {
			return nil, fmt.Errorf("template %s: %w", t.Name, err)
		}
		if r.Outcome == Applies {
			used, limit, err := s.Room.Take(r.objects)
			if err != nil {
				return nil, fmt.Errorf("template %s: %w", t.Name, err)
			}
			if used > limit {
				r = Result{Template: t, Container: s.Container, Outcome: NoRoom,
					Why: fmt.Sprintf("with it the container needs %d of KubeArmor's %d keys", used, limit)}
			}
		}
		results = append(results, r)
	}
	return results, nil
}

// match decides about one template, whatever room there is.
func match(s Subject, t Template) (Result, error) {
	r := Result{Template: t, Container: s.Container}
	if !t.isFor(s.Facts) {
		r.Outcome, r.Why = NotFor, "none of the files that it is about was used"
		return r, nil
	}
	for _, part := range t.parts {
		data, o, err := part.For(s.Workload, s.Labels, s.Container, t.Name)
		if err != nil {
			return r, err
		}
		if len(t.parts) > 1 && part.Action == "Audit" {
			if data, o, err = part.For(s.Workload, s.Labels, s.Container, t.Name+"-audit"); err != nil {
				return r, err
			}
		}
		r.Policies, r.objects = append(r.Policies, data), append(r.objects, o)
	}
	judge, err := kubearmor.Engine{}.Parse(r.objects)
	if err != nil {
		return r, fmt.Errorf("judge by it: %w", err)
	}
	var unknown []behavior.Fact
	for _, f := range s.Facts {
		if !f.Own() || f.Refused {
			continue
		}
		switch judge.Judge(s.Subject, f).Decision {
		case engine.Denied:
			r.Facts = append(r.Facts, f)
		case engine.Unknown:
			unknown = append(unknown, f)
		case engine.Allowed, engine.NotMine:
		}
	}
	r.Outcome = Applies
	switch {
	case len(r.Facts) > 0:
		r.Outcome, r.Why = Conflicts, "it would deny what was observed: "+r.Facts[0].String()
	case len(unknown) > 0:
		r.Outcome, r.Facts, r.Why = Unsure, unknown, "it may deny what was observed: "+unknown[0].String()
	default:
		r.Why = t.remark()
		return r, nil
	}
	if n := len(r.Facts) - 1; n > 0 {
		r.Why += fmt.Sprintf("; and %d more", n)
	}
	r.Policies, r.objects = nil, nil
	return r, nil
}

// remark is what a person should know of the policy before trusting it.
func (t Template) remark() string {
	if slices.ContainsFunc(t.parts, kubearmor.Template.Patterns) {
		return "its patterns are not enforced: KubeArmor's enforcer ignores them"
	}
	return ""
}

// isFor tells whether the template is about a container that did that. What is in
// an image and was not used is not known.
func (t Template) isFor(facts []behavior.Fact) bool {
	if t.always {
		return true
	}
	seen := func(path string) bool {
		if raw, err := behavior.Unescape(path); err == nil {
			path = raw
		}
		return slices.ContainsFunc(t.matches, func(m *regexp.Regexp) bool { return m.MatchString(path) })
	}
	return slices.ContainsFunc(facts, func(f behavior.Fact) bool {
		return f.Own() && (f.Kind == behavior.Process || f.Kind == behavior.File) && (seen(f.Path) || seen(f.Exe))
	})
}
