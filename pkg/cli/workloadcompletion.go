package cli

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// completeWorkloads offers the workloads that a repository on this machine has
// policies for. Nobody wants to wait for a server at each key, so another
// repository offers none.
func (a *app) completeWorkloads(f *repositoryFlags) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		const only = cobra.ShellCompDirectiveNoFileComp
		s, err := a.setup(nil, &decisionFlags{}, nil)
		if err != nil {
			return nil, only
		}
		merged := *f
		if merged.merge(s.config) != nil {
			return nil, only
		}
		if info, err := os.Stat(merged.url); err != nil || !info.IsDir() {
			return nil, only
		}
		o, err := a.open(c.Context(), merged, s.namespace, false)
		if err != nil {
			return nil, only
		}
		defer o.close()
		known, err := rollout.Workloads(s.input(o.tree, nil, o))
		if err != nil {
			return nil, only
		}
		var names []string
		for _, w := range known {
			if name := w.String(); strings.HasPrefix(name, begun) && !named(args, w) {
				names = append(names, name)
			}
		}
		return names, only
	}
}

// named tells whether an argument names the workload already.
func named(args []string, w behavior.Workload) bool {
	for _, arg := range args {
		if other, err := parseWorkload(w.Namespace, arg); err == nil && other == w {
			return true
		}
	}
	return false
}
