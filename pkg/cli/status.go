package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/cluster"
)

// joinTimeout is how long a cluster may take to say whether collectors are in it.
// What git knows is shown without it.
const joinTimeout = 20 * time.Second

type statusOptions struct {
	*app
	repository repositoryFlags
	decision   decisionFlags
	output     outputFlag
	sync       syncFlags
}

func (a *app) status() *cobra.Command {
	o := &statusOptions{app: a}
	c := &cobra.Command{
		Use:   "status [KIND/NAME...]",
		Short: "Show what was observed of workloads, how completely, and what the next stage waits for",
		Long: `Show for each workload and container how far it is: its stage, what of its life
was observed, in how many of its pods, what was lost and when, whether there is
still something new to see, and what stands in the way of its next stage.

 It also asks the cluster which commit of the policies it runs, as Argo CD or Flux
reports it, or by the live objects, and shows what was changed there or in git.

 It reads the evidence that is committed and, while somebody's collectors are in
the cluster, what they know just now. It says which it has, and works with either.
It changes nothing, in git or in the cluster.

 CURVE is how learning went from the first observation to the last: each sign is
as long a time as the others, the higher the more new facts.

 Exit codes: 0 shown, 2 an error, 130 interrupted.`,
		Example: `  # How far is every workload of namespace shop?
  kubectl autopolicy status -n shop

  # All that is known of one
  kubectl autopolicy status -n shop deploy/web -o json`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), args) },
	}
	c.ValidArgsFunction = a.completeWorkloads(&o.repository)
	o.repository.add(c.Flags())
	o.decision.addEngines(c.Flags())
	o.sync.add(c.Flags())
	o.output.add(c, "table", "wide", "json", "yaml")
	return c
}

func (o *statusOptions) run(ctx context.Context, args []string) error {
	s, err := o.setup(nil, &o.decision, &o.output)
	if err != nil {
		return err
	}
	var slugs []string
	for _, arg := range args {
		w, err := parseWorkload(s.namespace, arg)
		if err != nil {
			return err
		}
		slugs = append(slugs, w.Slug())
	}
	if err := o.sync.complete(s.config); err != nil {
		return err
	}
	report := statusReport{Namespace: s.namespace, Workloads: []workloadStatus{}}
	noRepository := o.repository.merge(s.config)
	if noRepository != nil && !errors.Is(noRepository, errNoRepository) {
		return noRepository
	}
	f := &folder{tree: overlay.Tree{}}
	if noRepository == nil {
		if f, err = o.open(ctx, o.repository, s.namespace, false); err != nil {
			return err
		}
		defer f.close()
		report.Git = gitStatus{Used: len(f.tree) > 0, Repository: f.repository.URL(), Branch: f.repository.Branch(), Folder: f.dir, Revision: string(f.base)}
	}
	live, err := o.live(ctx, s, &report)
	if err != nil {
		return err
	}
	switch {
	case live == nil && noRepository != nil:
		return hinted(fmt.Errorf("%w, and %s", noRepository, report.Live.Reason), "give --repo, or put 'repository: URL' into "+configFile)
	case live == nil && len(f.tree) == 0:
		s.progress.say("live: %s", report.Live.Reason)
		return f.learned(s)
	}
	in := o.input(s, f, live)
	if in.Synced, err = o.synced(ctx, s, f, &report); err != nil {
		return err
	}
	list, err := rollout.Statuses(in, slugs)
	if err == nil && report.Git.Used {
		report.Drift, err = rollout.Drift(in)
	}
	if err != nil {
		if f.repository == nil {
			return err
		}
		return f.blame(err)
	}
	report.add(list)
	if o.output.data() {
		return o.output.write(o.Out, report)
	}
	report.tell(s.progress)
	return report.print(o.Out, o.output.format == "wide", signs(os.Getenv))
}

// input is what rollout decides from; nobody is named who decides anything.
func (o *statusOptions) input(s *setup, f *folder, live behavior.Profiles) rollout.Input {
	if f.repository != nil {
		return s.input(f.tree, live, f)
	}
	return rollout.Input{Namespace: s.namespace, Tree: f.tree, Fresh: live, Engines: s.engines, Now: o.now()}
}

// synced asks the cluster what it runs. That it cannot be asked is said in the
// report and no error.
func (o *statusOptions) synced(ctx context.Context, s *setup, f *folder, report *statusReport) (*rollout.Synced, error) {
	if !report.Git.Used {
		return nil, nil
	}
	w, err := s.watcher(o.sync.by)
	if err != nil {
		report.Synced.Reason = liveReason(err)
		return nil, nil
	}
	short, cancel := context.WithTimeoutCause(ctx, joinTimeout, fmt.Errorf("the cluster does not answer within %s", joinTimeout))
	defer cancel()
	now, err := w.once(short, s, f)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		report.Synced.Reason = liveReason(err)
		return nil, nil
	}
	report.Synced = syncedStatus{Asked: true, By: now.By, Revision: now.Revision, Since: now.Since, Obstacles: now.Obstacles}
	return now, nil
}

// live asks the collectors that are in the cluster, if there are any. That there
// is no cluster, or none that answers, is said in the report and no error: git
// knows the rest.
func (o *statusOptions) live(ctx context.Context, s *setup, report *statusReport) (behavior.Profiles, error) {
	result, joined, err := o.join(ctx, s)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		report.Live.Reason = liveReason(err)
		return nil, nil
	}
	report.Live = liveStatus{Used: true, By: joined.By, Since: joined.Since, Nodes: joined.Nodes, Unattributed: result.Unattributed}
	for _, n := range result.Nodes {
		report.Live.Failing = append(report.Live.Failing, n.Error())
	}
	return result.Profiles, nil
}

func (o *statusOptions) join(ctx context.Context, s *setup) (result source.Result, joined cluster.Joined, err error) {
	options, err := s.options()
	if err != nil {
		return result, joined, err
	}
	collectors, err := cluster.New(options)
	if err != nil {
		return result, joined, err
	}
	short, cancel := context.WithTimeoutCause(ctx, joinTimeout, fmt.Errorf("the cluster does not answer within %s", joinTimeout))
	defer cancel()
	if joined, err = collectors.Join(short); err != nil {
		if cause := context.Cause(short); short.Err() != nil && ctx.Err() == nil {
			err = cause
		}
		return result, joined, err
	}
	defer func() { err = errors.Join(err, collectors.Leave()) }()
	result, err = collectors.Pull(ctx)
	return result, joined, err
}

// liveReason says in words why nothing live is shown.
func liveReason(err error) string {
	switch {
	case errors.Is(err, errNoCluster):
		return "not asked: " + errNoCluster.Error()
	case errors.Is(err, cluster.ErrNoCollector):
		return "nothing: " + err.Error()
	}
	return "not asked: " + strings.Join(strings.Fields(printable(err.Error())), " ")
}
