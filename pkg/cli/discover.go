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
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

type discoverOptions struct {
	*app
	observer   observeFlags
	repository repositoryFlags
	decision   decisionFlags
	output     outputFlag
	relearn    bool
	overwrite  bool
	entered    bool
	restart    restartFlags
	printOnly  bool
	seccomp    string
}

func (a *app) discover() *cobra.Command {
	o := &discoverOptions{app: a}
	c := &cobra.Command{
		Use:   "discover",
		Short: "Observe a namespace and commit policies learned from it",
		Long: `Observe the workloads of a namespace for a while and commit policies learned
from what they did, at stage audit.

 A collector is deployed to the namespace's nodes, and removed again when the
time is up, when something fails and on Ctrl-C. Running it again adds to what was
learned before. What learned nothing new makes no commit.

 Policies that were learned only from what ran already may keep it from starting
again. --restart restarts the Deployments, StatefulSets and DaemonSets of the
namespace, as 'kubectl rollout restart' does, once the collector works. It asks
first, and needs --yes where there is no terminal.

 Exit codes: 0 done or nothing new, 1 the restart was declined, 2 an error, 130 interrupted.`,
		Example: `  # Observe namespace shop for ten minutes, commit to a repository
  kubectl autopolicy discover -n shop --duration 10m --repo https://git.example.com/fleet.git

  # Observe until nothing new was seen for ten minutes, starts of all pods included
  kubectl autopolicy discover -n shop --until-stable=10m --restart

  # Show what would be committed, and commit nothing
  kubectl autopolicy discover -n shop --duration 1m --dry-run

  # Learn network policies from the cluster's Hubble, and deploy nothing
  kubectl autopolicy discover -n shop --source hubble --duration 1h

  # Learn from flows that somebody recorded, without a cluster
  kubectl autopolicy discover -n shop --from flows.jsonl --from objects.json

  # Print what would be deployed to the cluster, and deploy nothing
  kubectl autopolicy discover -n shop --print-only`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	flags := c.Flags()
	o.observer.add(flags)
	o.repository.add(flags)
	o.decision.add(c)
	o.restart.add(flags)
	o.output.add(c, "wide", "json", "yaml")
	flags.BoolVar(&o.relearn, "relearn", false, "let workloads in stage deny learn too: what they newly did is allowed at once")
	flags.BoolVar(&o.overwrite, "overwrite", false, "replace generated files that people have edited")
	flags.BoolVar(&o.entered, "include-exec", false, "learn also from processes that entered a container from outside, such as by kubectl exec")
	flags.StringVar(&o.seccomp, "seccomp", "", "form of seccomp profiles: file, or spo for objects of the Security Profiles Operator (default what the repository has, else file)")
	flags.BoolVar(&o.printOnly, "print-only", false, "print the collector's objects and do nothing")
	return c
}

func (o *discoverOptions) run(ctx context.Context) error {
	s, err := o.setup(&o.observer, &o.decision, &o.output)
	if err != nil {
		return err
	}
	if _, err := seccompForm(o.seccomp, nil); err != nil {
		return err
	}
	s.entered, s.history = o.entered, true
	if o.restart.restart {
		s.restart = &o.restart
	}
	if err := o.restart.validate(o.app, o.decision.dryRun || o.printOnly); err != nil {
		return err
	}
	if o.printOnly {
		return o.printObjects(s)
	}
	if err := o.repository.merge(s.config); err != nil {
		return err
	}
	delivery := s.review(&o.repository, string(policy.Audit))
	f, err := o.openFor(ctx, o.repository, s.namespace, !o.decision.dryRun, delivery)
	if err != nil {
		return err
	}
	defer f.close()
	if !o.overwrite { // which may be what puts the tree right
		if err := f.usable(s); err != nil {
			return err
		}
	}
	form, err := seccompForm(o.seccomp, f.tree)
	if err != nil {
		return err
	}
	s.engines = formed(s.engines, form)
	profiles, err := o.observe(ctx, s)
	if err != nil {
		return err
	}
	opts := rollout.DiscoverOptions{Relearn: o.relearn, Overwrite: o.overwrite, Entered: o.entered}
	decide := func(t overlay.Tree) (rollout.Plan, error) {
		return rollout.Discover(s.input(t, profiles, f), opts)
	}
	plan, err := decide(f.tree)
	if err != nil {
		return f.blame(err)
	}
	return o.conclude(ctx, s, f, plan, decide, &o.output)
}

// conclude shows a plan and carries it out, unless it is a dry run.
func (a *app) conclude(ctx context.Context, s *setup, f *folder, plan rollout.Plan, again func(overlay.Tree) (rollout.Plan, error), output *outputFlag) error {
	result := report(s.namespace, plan)
	result.Observation = s.observed
	if output.data() {
		result.Diff = plan.Diff(f.tree, nil)
	} else if err := a.show(plan, output.format == "wide"); err != nil {
		return err
	}
	switch {
	case plan.Empty():
		s.progress.say("nothing new: no commit")
		if f.review != nil && f.review.request.Number > 0 {
			s.progress.say("pull request %d is open: %s", f.review.request.Number, f.review.request.URL)
		}
	case s.dryRun:
		if !output.data() {
			fmt.Fprint(a.Out, plan.Diff(f.tree, painter(a.Out)))
		}
		s.progress.say("dry run: nothing committed")
	default:
		revision, err := f.commit(ctx, a, plan, again)
		if err != nil {
			return err
		}
		if result.Revision = string(revision); revision == "" {
			s.progress.say("nothing new: somebody else has committed the same")
		} else {
			subject, _, _ := strings.Cut(plan.Message, "\n")
			s.progress.say("committed %s to %s: %s", short(string(revision)), f.where(), subject)
			f.review.tell(s.progress)
		}
	}
	closed := f.review.wait(ctx, s, f.repository)
	result.PullRequest = f.review.report()
	if output.data() {
		return errors.Join(output.write(a.Out, result), closed)
	}
	return closed
}

// outcome is a plan in the form that programs read.
type outcome struct {
	Namespace string   `json:"namespace"`
	Revision  string   `json:"revision,omitempty"` // of the commit; empty when none was made
	Files     []string `json:"files,omitempty"`
	// PullRequest is what brings the commit to the branch; none after a push.
	PullRequest *pullRequest `json:"pullRequest,omitempty"`
	// Observation is what was decided by; none for a plan that needed none.
	Observation *observation      `json:"observation,omitempty"`
	Workloads   []outcomeWorkload `json:"workloads"`
	PodSecurity *podSecurity      `json:"podSecurity,omitempty"`
	Reasons     []string          `json:"reasons,omitempty"`
	Notes       []string          `json:"notes,omitempty"`
	Diff        string            `json:"diff,omitempty"`
}

type outcomeWorkload struct {
	Workload  string                       `json:"workload"`
	Stage     policy.Stage                 `json:"stage"`
	Change    rollout.Change               `json:"change"`
	Facts     map[behavior.Kind]int        `json:"facts,omitempty"`
	Rules     map[string]int               `json:"rules,omitempty"`
	Coverage  map[string]behavior.Coverage `json:"coverage,omitempty"`
	Shortfall map[string][]string          `json:"shortfalls,omitempty"`
	Entered   int                          `json:"leftOut,omitempty"`   // facts of processes that entered a container from outside
	Weak      int                          `json:"weakRules,omitempty"` // that stand on thin evidence
	// Suspicious is set aside: in no policy.
	Suspicious []suspicionReport `json:"suspicious,omitempty"`
}

func report(namespace string, plan rollout.Plan) outcome {
	r := outcome{Namespace: namespace, Reasons: plan.Reasons, Files: slices.Sorted(maps.Keys(plan.Files)), Workloads: []outcomeWorkload{},
		PodSecurity: podSecurityOf(coverages(plan))}
	for _, n := range plan.Notes {
		r.Notes = append(r.Notes, noteText(n))
	}
	for _, w := range plan.Summary {
		short := map[string][]string{}
		for name, c := range w.Coverage {
			if s := c.Shortfalls(); len(s) > 0 {
				short[name] = s
			}
		}
		r.Workloads = append(r.Workloads, outcomeWorkload{w.Workload.String(), w.Stage, w.Change, w.Facts, w.Rules, w.Coverage, short, w.Entered, w.Weak, suspicionReports(w.Suspicions)})
	}
	return r
}

// coverages are those of the observed workloads of a plan, by name.
func coverages(plan rollout.Plan) map[string][]behavior.Coverage {
	all := map[string][]behavior.Coverage{}
	for _, w := range plan.Summary {
		if len(w.Coverage) > 0 {
			all[w.Workload.String()] = slices.Collect(maps.Values(w.Coverage))
		}
	}
	return all
}

// show prints the table of a plan and what a person has to know beside it.
func (a *app) show(plan rollout.Plan, wide bool) error {
	a.showSuspicious(plan)
	headings, rows := summaryTable(plan)
	if len(rows) > 0 {
		if err := table(a.Out, headings, rows); err != nil {
			return err
		}
	}
	var missed gathered
	for _, w := range plan.Summary {
		for _, container := range slices.Sorted(maps.Keys(w.Coverage)) {
			for _, s := range w.Coverage[container].Shortfalls() {
				missed.add(w.Workload.String()+"/"+container, s)
			}
		}
	}
	missed.print(a.Out, "coverage")
	podSecurityOf(coverages(plan)).print(a.Out, wide)
	for _, w := range plan.Summary {
		if w.Weak > 0 {
			fmt.Fprintf(a.Out, "weak: %s: the evidence for %s is thin (kubectl autopolicy explain says why)\n", w.Workload, number(w.Weak, "rule"))
		}
	}
	for _, w := range plan.Summary {
		if w.Entered > 0 {
			fmt.Fprintf(a.Out, "left out: %s: %s of processes that entered its containers from outside, such as by kubectl exec (--include-exec learns them)\n",
				w.Workload, number(w.Entered, "fact"))
		}
	}
	for _, r := range plan.Reasons {
		fmt.Fprintln(a.Out, "reason: "+printable(r))
	}
	if wide {
		for _, n := range plan.Notes {
			fmt.Fprintln(a.Out, "note: "+printable(noteText(n)))
		}
	} else if len(plan.Notes) > 0 {
		fmt.Fprintf(a.ErrOut, "%s on what is not in the policies (shown with -o wide)\n", number(len(plan.Notes), "note"))
	}
	return nil
}

// summaryTable is the workloads of a plan. What was observed has no columns where
// nothing was: a rollback, or a stage that had begun before. A promotion makes no
// rules, and so has no column of them.
func summaryTable(plan rollout.Plan) (headings []string, rows [][]string) {
	observed := slices.ContainsFunc(plan.Summary, func(w rollout.Summary) bool { return len(w.Coverage) > 0 })
	ruled := slices.ContainsFunc(plan.Summary, func(w rollout.Summary) bool { return len(w.Rules) > 0 })
	headings = []string{"WORKLOAD", "STAGE", "CHANGE"}
	if observed {
		headings = []string{"WORKLOAD", "CONTAINERS", "STAGE", "CHANGE"}
		for _, k := range columns() {
			headings = append(headings, strings.ToUpper(kindShort(k)))
		}
		if ruled {
			headings = append(headings, "RULES")
		}
		headings = append(headings, "COVERAGE")
	}
	for _, w := range plan.Summary {
		if !observed {
			rows = append(rows, []string{w.Workload.String(), string(w.Stage), string(w.Change)})
			continue
		}
		row := []string{w.Workload.String(), strings.Join(w.Containers, ","), string(w.Stage), string(w.Change)}
		for _, k := range columns() {
			row = append(row, fmt.Sprint(w.Facts[k]))
		}
		if ruled {
			row = append(row, ruleCounts(w.Rules))
		}
		rows = append(rows, append(row, coverageShort(w.Coverage)))
	}
	return headings, rows
}

func noteText(n rollout.Note) string {
	var about []string
	for _, s := range []string{n.Workload, n.Container, n.Engine} {
		if s != "" {
			about = append(about, s)
		}
	}
	return strings.Join(about, "/") + ": " + n.Text
}

// columns are the kinds that have one: what a person allows or not. Names asked
// for and sockets made are in the JSON.
func columns() []behavior.Kind {
	return []behavior.Kind{behavior.Process, behavior.File, behavior.Network, behavior.Capability, behavior.Syscall}
}

// kindShort is a kind as a column's heading.
func kindShort(k behavior.Kind) string {
	switch k {
	case behavior.Process:
		return "exec"
	case behavior.Network:
		return "net"
	case behavior.Capability:
		return "cap"
	}
	return string(k)
}

// ruleCounts shows how many rules each engine would enforce.
func ruleCounts(rules map[string]int) string {
	var parts []string
	for _, name := range engineNames() {
		if n, ok := rules[name]; ok {
			parts = append(parts, fmt.Sprintf("%s:%d", name, n))
		}
	}
	return strings.Join(parts, " ")
}

// coverageShort says in a table's cell what was observed: pods of replicas, what
// of their life was seen in how many of them, for how long, and how much was lost.
func coverageShort(by map[string]behavior.Coverage) string {
	if len(by) == 0 {
		return "not observed now"
	}
	var all behavior.Coverage
	for _, c := range by {
		all = behavior.MergeCoverage(all, c)
	}
	var from, to time.Time
	var lost uint64
	seen := map[string]int{}
	for _, p := range all.Pods {
		if from.IsZero() || p.From.Before(from) {
			from = p.From
		}
		if p.To.After(to) {
			to = p.To
		}
		one := behavior.Coverage{Pods: map[string]behavior.PodCoverage{"": p}}
		for _, m := range one.Milestones() {
			seen[m]++
		}
	}
	for _, n := range all.Lost {
		lost += n
	}
	text := fmt.Sprintf("%d/%d pods, %s", len(all.Pods), max(all.Replicas, len(all.Pods)), to.Sub(from).Round(time.Second))
	// A start that was not seen keeps a promotion from happening; the rest only adds.
	text += fmt.Sprintf(", %d start", seen["start"])
	for _, m := range []string{"ready", "steady", "restart", "end"} {
		if seen[m] > 0 {
			text += fmt.Sprintf(", %d %s", seen[m], m)
		}
	}
	text += fmt.Sprintf(", %d lost", lost)
	if len(all.Gaps) > 0 {
		text += ", " + number(len(all.Gaps), "gap")
	}
	return text
}

// short abbreviates a commit's id as git does.
func short(revision string) string { return revision[:min(len(revision), 10)] }
