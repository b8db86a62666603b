package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/autopolicy/kubectl-autopolicy/pkg/source/cluster"
)

func (a *app) uninstall() *cobra.Command {
	return &cobra.Command{
		Use:   "uninstall",
		Short: "Remove a collector that a run left in the cluster, and prove that nothing remains",
		Long: `Remove a collector that a run left in the cluster, and prove that nothing remains.

 A run removes its collector itself, and a collector removes itself at its
deadline. This is for one that was cut off, and you do not want to wait. It ends
an observation that is under way.

 Exit codes: 0 nothing is left, 1 something remains, 2 an error.`,
		Example: `  # Remove what is left of a collector in the current context's cluster
  kubectl autopolicy uninstall`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return a.runUninstall(c.Context()) },
	}
}

func (a *app) runUninstall(ctx context.Context) error {
	s, err := a.setup(nil, &decisionFlags{}, nil)
	if err != nil {
		return err
	}
	options, err := s.options()
	if err != nil {
		return err
	}
	source, err := cluster.New(options)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	removed, err := source.Remove(ctx)
	for _, object := range removed {
		fmt.Fprintln(a.Out, printable(object)+" deleted")
	}
	if errors.Is(err, cluster.ErrRemains) {
		a.tell(err)
		return &silentError{ExitNotYet}
	}
	if err != nil {
		return err
	}
	s.progress.say("nothing of the collector is in the cluster")
	return nil
}
