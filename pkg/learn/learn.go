// Package learn makes rules of what was seen: it generalises where the evidence
// shows variation, leaves out what nobody should allow unread, and says for each
// rule why it is as wide as it is.
//
// It is pure, and monotone: further facts never take back what was allowed, but
// where they show it to be suspicious or a person declined it. It never makes a
// rule without a fact, and never widens one across the boundaries of
// policy.Boundary.
package learn

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// ErrNothingObserved is returned for profiles that hold nothing to learn from:
// no evidence is never a rule.
var ErrNothingObserved = errors.New("nothing observed")

// ErrMixedWorkloads is returned for profiles of more than one workload.
var ErrMixedWorkloads = errors.New("profiles of different workloads")

// Siblings is the default of Options.Siblings.
const Siblings = 8

// Options are how readily Rules generalises. The zero value is the default.
type Options struct {
	// Siblings is the number of generated names of one kind in a folder, used by
	// one executable to one end, from which on the folder's files are allowed to
	// it. Zero means the constant of the same name.
	Siblings int
	// Addresses, Values and Paths are the numbers of the constants of the same
	// names; zero means those.
	Addresses, Values, Paths int
	// Entered learns also from processes that entered the container from
	// outside, such as those of kubectl exec.
	Entered bool
	// Decided tells what people said about a fact. What they declined or postponed
	// is in no rule; what they accepted is in one, however suspicious it is.
	Decided policy.Decided
}

// Rules makes the rules of one workload from the profiles of its containers;
// several profiles of one container are merged first. The order of the profiles
// does not matter. A fact that is not valid is an error. Where all that was seen is
// suspicious, the set has no rules.
//
// What one executable does to a path stays its own: reading and writing are not
// mixed among executables, so that each rule allows just the pairs that were
// seen.
func Rules(profiles []behavior.Profile, o Options) (policy.Set, error) {
	o.Siblings = cmp.Or(o.Siblings, Siblings)
	o.Addresses, o.Values, o.Paths = cmp.Or(o.Addresses, Addresses), cmp.Or(o.Values, Values), cmp.Or(o.Paths, Paths)
	merged := merge(profiles)
	subjects := merged.Subjects()
	if len(subjects) == 0 {
		return policy.Set{}, ErrNothingObserved
	}
	set := policy.Set{Workload: subjects[0].Workload, Coverage: map[string]behavior.Coverage{}}
	labels := ""
	for _, s := range subjects {
		if s.Workload != set.Workload {
			return policy.Set{}, fmt.Errorf("learn rules of %s and %s: %w", set.Workload, s.Workload, ErrMixedWorkloads)
		}
		labels = max(labels, merged[s].Labels)
		set.Coverage[s.Container] = merged[s].Coverage
	}
	var err error
	if set.Labels, err = behavior.ParseLabels(labels); err != nil {
		return policy.Set{}, fmt.Errorf("learn rules of %s: %w", set.Workload, err)
	}
	for _, s := range subjects {
		rules, suspicions, notes, err := container(merged[s], o)
		if err != nil {
			return policy.Set{}, fmt.Errorf("learn rules of %s, container %s: %w", s.Workload, behavior.Escape(s.Container), err)
		}
		set.Rules = append(set.Rules, rules...)
		set.Notes = append(set.Notes, notes...)
		set.Suspicions = append(set.Suspicions, suspicions...)
		if len(rules) > 0 {
			set.Containers = append(set.Containers, s.Container)
		}
	}
	if len(set.Rules)+len(set.Suspicions) == 0 {
		return policy.Set{}, fmt.Errorf("learn rules of %s: %w", set.Workload, ErrNothingObserved)
	}
	slices.SortFunc(set.Rules, policy.Compare)
	return set, nil
}

// container makes the rules of one container.
func container(p behavior.Profile, o Options) ([]policy.Rule, []policy.Suspicion, []policy.Note, error) {
	if err := valid(p.Facts); err != nil {
		return nil, nil, nil, err
	}
	suspicions, aside := suspicions(p.Subject.Container, p.Facts, o)
	var notes notes
	files, others := divide(p.Facts, o, aside, &notes)
	learnt := map[behavior.Kind][]behavior.Observed{}
	for f := range p.Facts.Select(others).All() {
		if f.Fact.Kind == behavior.Network && f.Fact.Direction != behavior.Listen && f.Fact.Peer.Kind == "" {
			notes.unresolved = append(notes.unresolved, f.Fact)
		}
		learnt[f.Fact.Kind] = append(learnt[f.Fact.Kind], f)
	}
	grouped := groups{}
	for _, kind := range behavior.Kinds() {
		switch kind {
		case behavior.Network:
			network(learnt[kind], o, grouped)
		case behavior.DNS:
			questions(learnt[kind], grouped)
		case behavior.HTTP:
			requests(learnt[kind], o, grouped, &notes)
		default:
			for _, f := range learnt[kind] {
				grouped.add(intent(f.Fact), by(f.Fact), f, "")
			}
		}
	}
	seen := p.Facts.Evidence()
	rules := append(grouped.rules(), newLearner(p.Facts, o, clockOf(seen)).rules(files)...)
	weigh := newScale(p.Coverage, seen)
	for i := range rules {
		rules[i].Container, rules[i].Weak = p.Subject.Container, weigh.weak(rules[i])
	}
	return rules, suspicions, notes.list(p.Subject.Container), nil
}

// intent is the rule that allows what the fact shows, without saying to whom.
func intent(f behavior.Fact) policy.Rule {
	r := policy.Rule{Kind: f.Kind, Path: f.Path, Access: f.Access, Direction: f.Direction, Protocol: f.Protocol,
		Port: f.Port, Peer: f.Peer, Name: f.Name, Arch: f.Arch}
	r.Peer = peer(f.Peer)
	if f.Kind == behavior.Process || f.Kind == behavior.File {
		r.Match = policy.Exact
	}
	return r
}

// by is the executable that a rule for the fact names.
func by(f behavior.Fact) string {
	if f.Kind == behavior.Process {
		return f.Parent
	}
	return f.Exe
}

// key is what makes two facts one rule; its executables are joined.
type key struct {
	kind       behavior.Kind
	path       string
	match      policy.Match
	access     behavior.Access
	direction  behavior.Direction
	protocol   string
	port       uint16
	peer       behavior.Peer
	prefix     netip.Prefix
	name, arch string
	typ, host  string
}

// groups are rules in the making; their executables are neither sorted nor told
// apart yet.
type groups map[key]*group

type group struct {
	rule  policy.Rule
	facts []behavior.Observed
	why   []string
}

// add puts one fact into the rule r that allows it to exe. Each fact is added
// once, in order of behavior.Compare.
func (g groups) add(r policy.Rule, exe string, f behavior.Observed, why string) {
	k := key{r.Kind, r.Path, r.Match, r.Access, r.Direction, r.Protocol, r.Port, r.Peer, r.Prefix, r.Name, r.Arch, r.Type, r.Host}
	m, ok := g[k]
	if !ok {
		m = &group{rule: r}
		g[k] = m
	}
	if n := len(m.rule.Exes); r.Kind != behavior.Syscall && (n == 0 || m.rule.Exes[n-1] != exe) {
		m.rule.Exes = append(m.rule.Exes, exe)
	}
	m.facts = append(m.facts, f)
	if why != "" && !slices.Contains(m.why, why) {
		m.why = append(m.why, why)
	}
}

// rules finishes the groups, in no particular order.
func (g groups) rules() []policy.Rule {
	rules := make([]policy.Rule, 0, len(g))
	for _, m := range g {
		r := m.rule
		slices.Sort(r.Exes)
		r.Exes = slices.Compact(r.Exes)
		r.Facts = behavior.Selected(m.facts...)
		r.Why = strings.Join(m.why, "; ")
		rules = append(rules, r)
	}
	return rules
}

// notes collects what is not learned and why.
type notes struct {
	runtime    int
	entered    int
	refused    []behavior.Fact
	unresolved []behavior.Fact
	requests   []string // in words, about what was asked for
}

func (n notes) list(container string) []policy.Note {
	var list []policy.Note
	note := func(format string, args ...any) {
		list = append(list, policy.Note{Container: container, Text: fmt.Sprintf(format, args...)})
	}
	if n.runtime > 0 {
		note("%d facts are what the container's runtime did before the first program or to enter the container; they are not learned", n.runtime)
	}
	if n.entered > 0 {
		note("%d facts are of processes that entered the container from outside, such as by kubectl exec; they are not learned", n.entered)
	}
	for _, text := range n.requests {
		note("%s", text)
	}
	byName := map[string][]string{}
	for _, f := range n.refused {
		byName[f.Name] = append(byName[f.Name], f.Exe)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		exes := slices.Compact(slices.Sorted(slices.Values(byName[name])))
		note("capability %s was asked for by %s and refused; it is not allowed", name, strings.Join(exes, ", "))
	}
	slices.SortFunc(n.unresolved, func(a, b behavior.Fact) int {
		return cmp.Or(a.Peer.Address.Compare(b.Peer.Address), behavior.Compare(a, b))
	})
	for _, f := range n.unresolved {
		note("%s: who that is could not be found out", f)
	}
	return list
}
