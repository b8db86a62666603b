package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

type explainOptions struct {
	*app
	repository repositoryFlags
	decision   decisionFlags
	output     outputFlag
	rule       string
}

func (a *app) explain() *cobra.Command {
	o := &explainOptions{app: a}
	c := &cobra.Command{
		Use:   "explain KIND/NAME",
		Short: "Show a workload's rules and the evidence that each came from",
		Long: `Show the rules of a workload as they are in the repository: what each allows,
how often and in how many pods it was seen, since when, and which policy holds it.

 With --rule, only rules whose words contain a text are shown, each with every
fact that it came from. It needs the repository only, no cluster.

 Exit codes: 0 done, 2 an error.`,
		Example: `  # Every rule of deployment web
  kubectl autopolicy explain -n shop deploy/web

  # Where the rules about /etc come from
  kubectl autopolicy explain -n shop deploy/web --rule /etc`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return hinted(errors.New("no workload named, or more than one"), "for example: kubectl autopolicy explain deploy/web")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), args[0]) },
	}
	complete := a.completeWorkloads(&o.repository)
	c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 { // it takes one
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(c, args, begun)
	}
	o.repository.add(c.Flags())
	o.decision.addEngines(c.Flags())
	o.output.add(c, "wide", "json", "yaml")
	c.Flags().StringVar(&o.rule, "rule", "", "show only rules whose words contain this text, with all their facts")
	return c
}

func (o *explainOptions) run(ctx context.Context, arg string) error {
	s, err := o.setup(nil, &o.decision, &o.output)
	if err != nil {
		return err
	}
	w, err := parseWorkload(s.namespace, arg)
	if err != nil {
		return err
	}
	if err := o.repository.merge(s.config); err != nil {
		return err
	}
	f, err := o.open(ctx, o.repository, s.namespace, false)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.learned(s); err != nil {
		return err
	}
	x, err := rollout.Explain(s.input(f.tree, nil, f), w.Slug())
	if err != nil {
		return f.blame(err)
	}
	if o.rule != "" {
		x.Rules = slices.DeleteFunc(x.Rules, func(r rollout.Explained) bool { return !strings.Contains(r.String(), o.rule) })
		if len(x.Rules) == 0 {
			return hinted(fmt.Errorf("no rule of %s speaks of %q", w, o.rule), "leave --rule out to see all rules")
		}
	}
	if o.output.data() {
		return o.output.write(o.Out, explanation(x))
	}
	return o.print(x)
}

// workloadReport is a workload in the form that programs read.
type workloadReport struct {
	Namespace   string       `json:"namespace"`
	Workload    string       `json:"workload"`
	Stage       policy.Stage `json:"stage"`
	Rules       []ruleReport `json:"rules"`
	PodSecurity *podSecurity `json:"podSecurity,omitempty"`
	Notes       []string     `json:"notes,omitempty"`
}

// ruleReport is a rule in the form that programs read.
type ruleReport struct {
	Container string            `json:"container"`
	Kind      behavior.Kind     `json:"kind"`
	Allows    string            `json:"allows"`
	Why       string            `json:"why,omitempty"`
	Weak      string            `json:"weak,omitempty"`
	Count     uint64            `json:"count"`
	First     time.Time         `json:"first"`
	Last      time.Time         `json:"last"`
	Pods      int               `json:"pods"`
	OfPods    int               `json:"ofPods"`
	HeldBy    map[string]string `json:"heldBy"` // engine: object
	Refused   map[string]string `json:"refusedBy,omitempty"`
	Facts     []factReport      `json:"facts"`
}

type factReport struct {
	Fact     behavior.Fact     `json:"fact"`
	Words    string            `json:"words"`
	Evidence behavior.Evidence `json:"evidence"`
}

func explanation(x rollout.Explanation) workloadReport {
	all := workloadReport{Namespace: x.Workload.Namespace, Workload: x.Workload.String(), Stage: x.Stage, Rules: []ruleReport{}}
	all.PodSecurity = podSecurityOf(map[string][]behavior.Coverage{all.Workload: slices.Collect(maps.Values(x.Set.Coverage))})
	for _, n := range x.Set.Notes {
		all.Notes = append(all.Notes, noteText(rollout.Note{Note: n}))
	}
	for _, r := range x.Rules {
		e := r.Evidence()
		report := ruleReport{
			Container: r.Container, Kind: r.Kind, Allows: r.String(), Why: r.Why, Weak: r.Weak, Count: r.Count(), First: e.First, Last: e.Last,
			Pods: len(e.Pods), OfPods: x.Pods[r.Container], HeldBy: map[string]string{}, Refused: map[string]string{},
		}
		for name, v := range r.Objects {
			if v.Decision == engine.Allowed {
				report.HeldBy[name] = v.Object
			} else {
				report.Refused[name] = fmt.Sprintf("%s: %s (%s)", v.Object, v.Decision, v.Reason)
			}
		}
		for o := range r.Facts.All() {
			report.Facts = append(report.Facts, factReport{o.Fact, o.Fact.String(), o.Evidence})
		}
		all.Rules = append(all.Rules, report)
	}
	return all
}

// print shows the rules as a table; those that --rule chose with every fact.
func (o *explainOptions) print(x rollout.Explanation) error {
	all := explanation(x)
	fmt.Fprintf(o.Out, "%s in namespace %s, stage %s: %s\n\n", all.Workload, all.Namespace, all.Stage, number(len(all.Rules), "rule"))
	if o.rule != "" {
		for _, r := range all.Rules {
			o.printRule(r)
		}
		return nil
	}
	var rows [][]string
	for _, r := range folded(all.Rules) {
		may := r.Allows
		if o.output.format != "wide" {
			may = fitted(may)
		}
		row := []string{r.Container, may, fmt.Sprint(r.Count), fmt.Sprintf("%d/%d", r.Pods, r.OfPods), stamp(r.First), stamp(r.Last), held(r)}
		if o.output.format == "wide" {
			row = append(row, r.Weak, r.Why)
		}
		rows = append(rows, row)
	}
	headings := []string{"CONTAINER", "MAY", "SEEN", "PODS", "FIRST", "LAST", "HELD BY"}
	if o.output.format == "wide" {
		headings = append(headings, "WEAK", "WHY")
	}
	if err := table(o.Out, headings, rows); err != nil {
		return err
	}
	if weak := slices.DeleteFunc(slices.Clone(all.Rules), func(r ruleReport) bool { return r.Weak == "" }); len(weak) > 0 {
		fmt.Fprintf(o.Out, "weak: the evidence for %s is thin (-o wide says why)\n", number(len(weak), "rule"))
	}
	all.PodSecurity.print(o.Out, o.output.format == "wide")
	for _, n := range all.Notes {
		fmt.Fprintln(o.Out, "note: "+printable(n))
	}
	return nil
}

// folded puts the system calls of a container into one row: each is a rule, and a
// list of a hundred names would hide the others. --rule and -o json have them all.
func folded(reports []ruleReport) []ruleReport {
	var rows []ruleReport
	calls := map[string]int{}
	for _, r := range reports {
		if r.Kind != behavior.Syscall {
			rows = append(rows, r)
			continue
		}
		at, ok := calls[r.Container]
		if !ok {
			calls[r.Container] = len(rows)
			r.Facts = slices.Clone(r.Facts)
			rows = append(rows, r)
			continue
		}
		all := &rows[at]
		all.Count += r.Count
		all.Pods = max(all.Pods, r.Pods)
		all.Facts = append(all.Facts, r.Facts...)
		if r.First.Before(all.First) {
			all.First = r.First
		}
		if r.Last.After(all.Last) {
			all.Last = r.Last
		}
	}
	for _, at := range calls {
		rows[at].Allows = fmt.Sprintf("call %s (--rule call lists them)", number(len(rows[at].Facts), "system call"))
	}
	return rows
}

func (o *explainOptions) printRule(r ruleReport) {
	line := func(format string, args ...any) { fmt.Fprintln(o.Out, printable(fmt.Sprintf(format, args...))) }
	line("%s may %s", r.Container, r.Allows)
	if r.Why != "" {
		line("  why: %s", r.Why)
	}
	if r.Weak != "" {
		line("  weak: %s", r.Weak)
	}
	line("  seen at least %d times in %d of %d pods, first %s, last %s", r.Count, r.Pods, r.OfPods, stamp(r.First), stamp(r.Last))
	for _, name := range slices.Sorted(maps.Keys(r.HeldBy)) {
		line("  held by %s: %s", name, r.HeldBy[name])
	}
	for _, name := range slices.Sorted(maps.Keys(r.Refused)) {
		line("  not allowed by %s: %s", name, r.Refused[name])
	}
	line("  facts:")
	for _, f := range r.Facts {
		pods := slices.Sorted(maps.Keys(f.Evidence.Pods))
		line("  - %s (%d times, %s to %s, in %s)", f.Words, f.Evidence.Count(), stamp(f.Evidence.First), stamp(f.Evidence.Last), strings.Join(pods, ", "))
	}
	line("")
}

func held(r ruleReport) string {
	names := slices.Sorted(maps.Keys(r.HeldBy))
	for _, name := range slices.Sorted(maps.Keys(r.Refused)) {
		names = append(names, "not "+name)
	}
	return strings.Join(names, ",")
}

// stamp is a time as people read it in a table, in UTC.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
