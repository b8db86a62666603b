package cli

import (
	"fmt"
	"io"
	"os/user"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/cluster"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// decisionFlags are the flags of every command that makes a plan.
type decisionFlags struct {
	mutual   bool
	engines  []string
	dryRun   bool
	delivery deliveryFlags
}

func (f *decisionFlags) add(c *cobra.Command) {
	f.addEngines(c.Flags())
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "show the change and commit nothing")
	f.delivery.add(c)
	// The error is that the flag does not exist, and it was made just now.
	_ = c.RegisterFlagCompletionFunc("engines", cobra.FixedCompletions(engineNames(), cobra.ShellCompDirectiveNoFileComp))
}

func (f *decisionFlags) addEngines(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.engines, "engines", nil, "engines to write policies for: "+strings.Join(engineNames(), ", ")+" (default all)")
	flags.BoolVar(&f.mutual, "mutual-auth", false, "Cilium: pods have to prove who they are, by the SPIFFE identity that its mutual authentication gives each")
}

// setup is what a command knows once its arguments are valid, and before it
// touches a cluster or a repository.
type setup struct {
	config    config
	namespace string
	engines   []engine.Engine
	observer  observeFlags
	progress  *progress
	dryRun    bool
	delivery  deliveryFlags
	restart   *restartFlags // nil when nothing is to be restarted
	entered   bool          // what entered containers from outside counts as new
	restarted []cluster.RolloutState
	history   bool         // what a source still has of before counts, too
	observed  *observation // nil before anything was observed
	topology  *topology.Cluster
	app       *app
}

// setup validates what is common to the commands. observer and output may be nil.
func (a *app) setup(observer *observeFlags, decision *decisionFlags, output *outputFlag) (*setup, error) {
	s := &setup{progress: a.progress(), dryRun: decision.dryRun, app: a}
	if output != nil {
		if err := output.validate(); err != nil {
			return nil, err
		}
	}
	var err error
	if s.config, err = readConfig(a.config); err != nil {
		return nil, err
	}
	s.delivery = decision.delivery
	if err := s.delivery.merge(s.config); err != nil {
		return nil, err
	}
	if s.engines, err = chosen(pick(decision.engines, s.config.Engines), decision.mutual || s.config.MutualAuth); err != nil {
		return nil, err
	}
	if observer != nil {
		if err := observer.complete(s.config); err != nil {
			return nil, err
		}
		s.observer = *observer
	}
	// This reads the kubeconfig file and asks no server.
	if s.namespace, _, err = a.kube.ToRawKubeConfigLoader().Namespace(); err != nil {
		return nil, hinted(fmt.Errorf("read kubeconfig: %w", err), "name a kubeconfig file with --kubeconfig, and a context of it with --context")
	}
	// The name becomes a folder of the repository.
	if problems := validation.IsDNS1123Label(s.namespace); len(problems) > 0 {
		return nil, fmt.Errorf("namespace %q: want lower case letters, digits and dashes, at most 63", s.namespace)
	}
	return s, nil
}

// input is what rollout decides from.
func (s *setup) input(t overlay.Tree, fresh behavior.Profiles, f *folder) rollout.Input {
	return rollout.Input{
		Namespace: s.namespace, Tree: t, Fresh: fresh, Engines: s.engines, Now: s.app.now(), By: who(f.repository),
		Topology: s.topology,
		// What somebody let into the evidence is learned from: rollout leaves out what
		// entered a container from outside before that, unless it is asked not to.
		Learn: func(profiles []behavior.Profile, decided policy.Decided) (policy.Set, error) {
			return learn.Rules(profiles, learn.Options{Entered: true, Decided: decided})
		},
	}
}

// who names the person for rollout.yaml: as git would, else as the system does.
func who(r *gitops.Repository) string {
	if author, err := r.Author(); err == nil {
		return author.Name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

// painter colours a diff as git does, if out is a terminal that wants it.
func painter(out io.Writer) rollout.Painter {
	if !coloured(out) {
		return nil
	}
	codes := map[rollout.LineKind]string{
		rollout.HeaderLine: "1", rollout.HunkLine: "36", rollout.AddedLine: "32", rollout.RemovedLine: "31",
	}
	return func(kind rollout.LineKind, line string) string {
		code, ok := codes[kind]
		if !ok {
			return line
		}
		return "\x1b[" + code + "m" + line + "\x1b[0m"
	}
}
