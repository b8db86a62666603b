package cli

import (
	"context"
	"iter"

	"github.com/spf13/cobra"

	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

type rollbackOptions struct {
	*app
	repository repositoryFlags
	decision   decisionFlags
	output     outputFlag
}

func (a *app) rollback() *cobra.Command {
	o := &rollbackOptions{app: a}
	c := &cobra.Command{
		Use:   "rollback",
		Short: "Take the last promotion of a namespace back",
		Long: `Restore the files of a namespace as they were before the last promotion, byte
for byte, with a commit. What people own (custom/ and decisions.yaml) stays.

 It needs the repository only, no cluster.

 Exit codes: 0 done, 2 an error.`,
		Example: `  # Take the last promotion of namespace shop back
  kubectl autopolicy rollback -n shop

  # Show what that would change
  kubectl autopolicy rollback -n shop --dry-run`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	o.repository.add(c.Flags())
	o.decision.add(c)
	o.output.add(c, "wide", "json", "yaml")
	return c
}

func (o *rollbackOptions) run(ctx context.Context) error {
	s, err := o.setup(nil, &o.decision, &o.output)
	if err != nil {
		return err
	}
	if err := o.repository.merge(s.config); err != nil {
		return err
	}
	delivery := s.review(&o.repository, "rollback")
	f, err := o.openFor(ctx, o.repository, s.namespace, !o.decision.dryRun, delivery)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.learned(s); err != nil {
		return err
	}
	decide := func(t overlay.Tree) (rollout.Plan, error) {
		return rollout.Rollback(s.input(t, nil, f), f.versions(ctx))
	}
	plan, err := decide(f.tree)
	if err != nil {
		return f.blame(err)
	}
	return o.conclude(ctx, s, f, plan, decide, &o.output)
}

// versions gives the namespace's folder as each commit left it, newest first.
func (f *folder) versions(ctx context.Context) iter.Seq2[rollout.Version, error] {
	return func(yield func(rollout.Version, error) bool) {
		for entry, err := range f.repository.Log(ctx, f.dir) {
			v := rollout.Version{Revision: string(entry.Revision)}
			if err == nil {
				var t map[string][]byte
				t, err = f.repository.ReadAt(ctx, entry.Revision, f.dir)
				v.Tree = overlay.Tree(t)
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}
