package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

type promoteOptions struct {
	*app
	observer   observeFlags
	repository repositoryFlags
	decision   decisionFlags
	output     outputFlag
	sync       syncFlags
	waves      waveFlags
	to         string
	force      string
	soak       time.Duration
	flags      *pflag.FlagSet
}

func (a *app) promote() *cobra.Command {
	o := &promoteOptions{app: a}
	c := &cobra.Command{
		Use:   "promote [KIND/NAME...] --to=deny",
		Short: "Begin the next stage, if a fresh observation finds nothing that it would break",
		Long: `Observe a namespace again and begin the next stage of its policies, if they
would deny nothing of what was seen.

 The policies are judged as they stand in the repository, people's edits
included. If they would deny something, or if the observation was not complete,
that is shown, nothing is committed and the exit code is 1.

 Before deny the cluster is asked what it runs: the stage before begins when
Argo CD's Application or Flux's Kustomization has applied its commit, or, where
neither does, when the live objects equal those of the commit. How long that must
have been, and what else is asked for, is in rollout.yaml under gate.

 With --wait it ends when the cluster runs the new stage; with code 1 when it does
not within that time. What was committed stays. Where the stage is offered as a
pull request, it first waits as long for the merge.

 Exit codes: 0 promoted or already there, 1 not yet, 2 an error, 130 interrupted.`,
		Example: `  # Enforce the policies of every workload in namespace shop
  kubectl autopolicy promote -n shop --to=deny

  # A quarter of the workloads now, and what the schedule in rollout.yaml says later
  kubectl autopolicy promote -n shop --to=deny --percent 25
  kubectl autopolicy promote -A --scheduled

  # Only those of one workload, judged against an hour of behaviour
  kubectl autopolicy promote -n shop deploy/web --to=deny --duration 1h`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), args) },
	}
	c.ValidArgsFunction = a.completeWorkloads(&o.repository)
	o.observer.add(c.Flags())
	o.repository.add(c.Flags())
	o.decision.add(c)
	o.output.add(c, "wide", "json", "yaml")
	c.Flags().StringVar(&o.to, "to", "", "stage to begin: audit or deny (required)")
	o.sync.add(c.Flags())
	o.waves.add(c.Flags())
	o.flags = c.Flags()
	c.Flags().DurationVar(&o.soak, "soak", 0, "how long the cluster must have run the policies at stage audit, where rollout.yaml does not ask for longer (default 24h where Argo CD or Flux applies them)")
	c.Flags().StringVar(&o.force, "force", "", "promote in spite of the gate, for this reason; it is committed")
	// The errors are that a flag does not exist, and they were made just now.
	_ = c.RegisterFlagCompletionFunc("to", cobra.FixedCompletions([]string{"audit", "deny"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (o *promoteOptions) run(ctx context.Context, args []string) error {
	if o.to == "" && o.waves.scheduled {
		o.to = string(policy.Deny)
	}
	if o.to == "" {
		return hinted(errors.New("no stage named"), "give --to=deny, or --to=audit")
	}
	stage, err := policy.ParseStage(o.to)
	if err != nil || stage == policy.Observe {
		return fmt.Errorf("--to=%s: want audit or deny", o.to)
	}
	if o.waves.scheduled && stage != policy.Deny {
		return fmt.Errorf("--to=%s: the schedule is about deny", o.to)
	}
	s, err := o.setup(&o.observer, &o.decision, &o.output)
	if err != nil {
		return err
	}
	if err := errors.Join(o.complete(s.config), o.waves.validate(o.flags, args)); err != nil {
		return err
	}
	var named []string
	for _, arg := range args {
		w, err := parseWorkload(s.namespace, arg)
		if err != nil {
			return err
		}
		named = append(named, w.Slug())
	}
	if err := o.repository.merge(s.config); err != nil {
		return err
	}
	names, err := o.waves.namespaces(ctx, o.repository, s)
	if err != nil {
		return err
	}
	return o.waves.each(names, s, func(s *setup) error { return o.promote(ctx, s, stage, named) })
}

// promote brings workloads of one namespace to a stage.
func (o *promoteOptions) promote(ctx context.Context, s *setup, stage policy.Stage, named []string) error {
	opts := rollout.PromoteOptions{To: stage, Force: o.force}
	if o.flags.Changed("soak") {
		opts.Soak = &o.soak
	}
	repository := o.repository // which review changes, for this namespace
	delivery := s.review(&repository, string(stage))
	f, err := o.openFor(ctx, repository, s.namespace, !o.decision.dryRun, delivery)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.learned(s); err != nil {
		return err
	}
	if err := f.usable(s); err != nil {
		return err
	}
	watch, noCluster := s.watcher(o.sync.by)
	if noCluster != nil && o.waves.scheduled {
		return noCluster
	}
	var done bool
	if opts.Workloads, done, err = o.waves.choose(ctx, s, f, watch, named); err != nil || done {
		return f.blame(err)
	}
	already, err := o.foresee(s, f, opts)
	if err != nil {
		return err
	}
	if noCluster != nil && (!already || o.decision.delivery.wait > 0) {
		return noCluster
	}
	var profiles behavior.Profiles
	var runs *rollout.Synced
	if !already {
		if profiles, err = o.observe(ctx, s); err != nil {
			return err
		}
		if stage == policy.Deny {
			if runs, err = watch.look(ctx, s, f); err != nil {
				return err
			}
		}
	}
	var verdicts rollout.Verdicts
	decide := func(t overlay.Tree) (plan rollout.Plan, err error) {
		in := s.input(t, profiles, f)
		in.Synced = runs
		plan, verdicts, err = rollout.Promote(in, opts)
		f.judged = &verdicts
		return plan, err
	}
	plan, err := decide(f.tree)
	if err == nil && !already {
		s.progress.say("judged %s: %d would be denied", number(verdicts.Facts, "fact"), verdicts.Denied)
	}
	if err == nil {
		err = o.conclude(ctx, s, f, plan, decide, &o.output)
	}
	var notYet *rollout.NotYetError
	if errors.As(err, &notYet) {
		return o.notYet(s, notYet)
	}
	if err != nil || o.decision.delivery.wait == 0 || s.dryRun {
		return f.blame(err)
	}
	return f.blame(o.await(ctx, s, f, watch, opts))
}

// complete fills what no flag gave from the configuration, and validates.
func (o *promoteOptions) complete(c config) error {
	if err := o.sync.complete(c); err != nil {
		return err
	}
	switch {
	case o.soak < 0:
		return fmt.Errorf("--soak %s: want no less than nothing", o.soak)
	case o.flags.Changed("force") && strings.TrimSpace(o.force) == "":
		return hinted(errors.New("--force gives no reason"), "say why, it is committed: --force='the alert was a drill'")
	}
	return nil
}

// await waits until the cluster runs what was committed. That it does not is said
// with the exit code of "not yet".
func (o *promoteOptions) await(ctx context.Context, s *setup, f *folder, w *watcher, opts rollout.PromoteOptions) error {
	err := w.await(ctx, s, f, o.decision.delivery.wait, opts.Workloads, opts.To)
	var late *notSyncedError
	if errors.As(err, &late) {
		fmt.Fprintln(o.ErrOut, "not yet: "+printable(late.Error()))
		return &silentError{ExitNotYet}
	}
	return err
}

// foresee finds what no observation would change: that everything is at the stage
// already, or a reason that is an error.
func (o *promoteOptions) foresee(s *setup, f *folder, opts rollout.PromoteOptions) (already bool, err error) {
	plan, _, err := rollout.Promote(s.input(f.tree, nil, f), opts)
	var notYet *rollout.NotYetError
	if errors.As(err, &notYet) {
		return false, nil
	}
	return err == nil && plan.Empty(), err
}

// refusal is a gate's "not yet" in the form that programs read.
type refusal struct {
	Namespace  string             `json:"namespace"`
	To         policy.Stage       `json:"to"`
	Promoted   bool               `json:"promoted"`
	Violations []refusalViolation `json:"violations"`
	Reasons    []string           `json:"reasons"`
	// Observation is what was decided by.
	Observation *observation `json:"observation,omitempty"`
}

type refusalViolation struct {
	Workload  string `json:"workload"`
	Container string `json:"container"`
	Fact      string `json:"fact"`
	Count     uint64 `json:"count"`
	Pods      int    `json:"pods"`
	Engine    string `json:"engine"`
	Object    string `json:"object"`
	Decision  string `json:"decision"`
	Reason    string `json:"reason"`
}

// notYet shows what stands in the way, and ends with its exit code.
func (o *promoteOptions) notYet(s *setup, e *rollout.NotYetError) error {
	r := refusal{Observation: s.observed, Namespace: e.Namespace, To: e.To, Violations: []refusalViolation{}, Reasons: e.Reasons}
	for _, v := range e.Violations {
		r.Violations = append(r.Violations, refusalViolation{
			v.Subject.Workload.String(), v.Subject.Container, v.Fact.String(), v.Evidence.Count(), len(v.Evidence.Pods),
			v.Engine, v.Object, v.Decision.String(), v.Reason,
		})
	}
	if o.output.data() {
		if err := o.output.write(o.Out, r); err != nil {
			return err
		}
		return &silentError{ExitNotYet}
	}
	var rows [][]string
	for _, v := range r.Violations {
		seen := v.Fact
		if o.output.format != "wide" {
			seen = fitted(seen)
		}
		rows = append(rows, []string{v.Workload, v.Container, seen, fmt.Sprint(v.Count), fmt.Sprint(v.Pods), v.Decision + " by " + v.Engine, v.Object})
	}
	if len(rows) > 0 {
		if err := table(o.Out, []string{"WORKLOAD", "CONTAINER", "SEEN", "COUNT", "PODS", "WOULD BE", "POLICY"}, rows); err != nil {
			return err
		}
	}
	for _, reason := range r.Reasons {
		fmt.Fprintln(o.Out, "reason: "+printable(reason))
	}
	fmt.Fprintf(o.ErrOut, "not yet: %s is not ready for %s: %s, %s; nothing was committed\n",
		e.Namespace, e.To, number(len(r.Violations), "violation"), number(len(r.Reasons), "other reason"))
	fmt.Fprintln(o.ErrOut, "hint: "+printable(e.Hint()))
	return &silentError{ExitNotYet}
}
