// Package cli is the commands: one file a command. It reads flags and
// configuration, wires the other rooms together and talks to people; what it
// tells them is decided elsewhere. It is the only package that knows cobra.
package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// Exit codes of every command.
const (
	ExitDone   = 0   // done, or nothing to do
	ExitNotYet = 1   // promote: not yet; discover: its restart was declined; nothing was changed; review: something waits; uninstall: something remains
	ExitError  = 2   // something went wrong; the message says what
	ExitSignal = 130 // interrupted; what was begun has been taken back
)

// app is what every command shares.
type app struct {
	genericiooptions.IOStreams
	kube    *genericclioptions.ConfigFlags
	version string
	config  string
	quiet   bool
	now     func() time.Time
}

// Run carries out one command line and returns its exit code. program is the
// name it was called by, args are without it.
func Run(ctx context.Context, program string, args []string, streams genericiooptions.IOStreams, version string) int {
	a := &app{IOStreams: streams, kube: genericclioptions.NewConfigFlags(true), version: version, now: time.Now}
	root := a.root(program)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	return a.fail(ctx, err)
}

func (a *app) root(program string) *cobra.Command {
	root := &cobra.Command{
		Use:   "autopolicy",
		Short: "Security policies learned from what workloads do, taken from audit to deny through git",
		Long: `Learn least-privilege security policies from what workloads really do, and
take them from audit to deny through a git repository.

 A temporary collector watches the workloads of a namespace from inside the
kernel. What it saw becomes policies for KubeArmor, Cilium, NetworkPolicy and
seccomp, committed as Kustomize overlays for Argo CD or Flux to apply. Before
anything is denied, the policies are judged against a fresh observation.`,
		Example: `  # Watch namespace shop for ten minutes and commit policies at stage audit
  kubectl autopolicy discover -n shop --duration 10m --repo https://git.example.com/fleet.git

  # See which rules deployment web would get, and what each came from
  kubectl autopolicy explain -n shop deploy/web

  # See how completely each workload was observed, and what its next stage waits for
  kubectl autopolicy status -n shop

  # Enforce them, if a fresh observation finds nothing that they would break
  kubectl autopolicy promote -n shop --to=deny

  # Take the last promotion back
  kubectl autopolicy rollback -n shop`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          knownCommand,
		// How many letters a command may be off to be suggested; cobra's own number.
		SuggestionsMinimumDistance: 2,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	// kubectl finds a plugin by its file name and users type "kubectl autopolicy".
	if strings.HasPrefix(filepath.Base(program), "kubectl-") {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl autopolicy"}
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.ErrOut)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return hinted(err, fmt.Sprintf("see '%s --help'", c.CommandPath()))
	})
	flags := root.PersistentFlags()
	a.kube.AddFlags(flags)
	flags.StringVar(&a.config, "config", "", "configuration file (default autopolicy.yaml in this folder, if there is one)")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "no progress on standard error")
	// kubectl hides its many connection flags under "kubectl options".
	flags.VisitAll(func(f *flagOf) {
		if f.Name != "namespace" && f.Name != "context" && f.Name != "kubeconfig" && f.Name != "config" && f.Name != "quiet" {
			f.Hidden = true
		}
	})
	root.AddCommand(a.discover(), a.explain(), a.status(), a.reviewCommand(), a.promote(), a.rollback(), a.harden(), a.init(), a.kafka(), a.uninstall(), a.versionCommand(), a.completion())
	root.CompletionOptions.DisableDefaultCmd = true
	return root
}

// fail tells the user what went wrong, and gives the exit code for it.
func (a *app) fail(ctx context.Context, err error) int {
	var quiet *silentError
	if errors.As(err, &quiet) {
		return quiet.code
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(a.ErrOut, "interrupted")
		return ExitSignal
	}
	a.tell(err)
	return ExitError
}

// tell prints an error, and what the user can do about it.
func (a *app) tell(err error) {
	fmt.Fprintln(a.ErrOut, "error: "+printable(err.Error()))
	for _, h := range hints(err) {
		fmt.Fprintln(a.ErrOut, "hint: "+printable(h))
	}
}
