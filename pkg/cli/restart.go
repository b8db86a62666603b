package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/autopolicy/kubectl-autopolicy/pkg/source/cluster"
)

// restartFlags are the flags of a command that restarts workloads.
type restartFlags struct {
	restart bool
	yes     bool
	noInput bool
}

func (f *restartFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.restart, "restart", false, "restart the namespace's workloads once the collector works, to see how they start")
	flags.BoolVarP(&f.yes, "yes", "y", false, "restart without asking")
	flags.BoolVar(&f.noInput, "no-input", false, "never ask: fail where an answer is needed")
}

// validate refuses what would have to ask where nobody can answer.
func (f *restartFlags) validate(a *app, harmless bool) error {
	if !f.restart || f.yes || harmless {
		return nil
	}
	const hint = "give --yes to restart without being asked"
	if f.noInput {
		return hinted(errors.New("--restart asks first, and --no-input forbids that"), hint)
	}
	if !readsTerminal(a.In) {
		return hinted(errors.New("--restart asks first, and there is no terminal"), hint)
	}
	return nil
}

// readsTerminal tells whether a person can type into r.
func readsTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// errNothingToRestart is for a namespace in which no workload can be restarted.
var errNothingToRestart = errors.New("nothing can be restarted")

// plan shows what a restart does, asks for it, and gives what Observe does first.
// That is nothing in a dry run.
func (f *restartFlags) plan(ctx context.Context, s *setup, source *cluster.Source) (func(context.Context) error, error) {
	list, err := source.Rollouts(ctx)
	if err != nil {
		return nil, err
	}
	names := f.show(s, list)
	if len(names) == 0 {
		return nil, hinted(fmt.Errorf("restart workloads of namespace %s: %w", s.namespace, errNothingToRestart), "observe without --restart, or restart them by other means meanwhile")
	}
	if s.dryRun {
		return nil, nil
	}
	if !f.yes {
		yes, err := s.app.ask(ctx, fmt.Sprintf("Restart %s of namespace %s?", number(len(names), "workload"), s.namespace))
		if err != nil {
			return nil, err
		}
		if !yes {
			fmt.Fprintln(s.app.ErrOut, "not restarted: nothing was done")
			return nil, &silentError{ExitNotYet}
		}
	}
	return func(ctx context.Context) error {
		s.progress.say("restarting %s", strings.Join(names, ", "))
		states, err := source.Restart(ctx, list, func(states []cluster.RolloutState) { s.progress.update("%s", rolloutLine(states)) })
		if err != nil {
			return err
		}
		s.restarted = states
		done := 0
		for _, r := range states {
			if r.Done {
				done++
				continue
			}
			s.progress.say("warning: %s", unready(r))
		}
		s.progress.say("restarted %d of %s", done, number(len(states), "workload"))
		return nil
	}, nil
}

// show says on standard error what is restarted, what is left and why, and gives
// the names of the former. It is what a person is asked about, and so is shown in
// spite of --quiet where they are.
func (f *restartFlags) show(s *setup, list []cluster.Rollout) (names []string) {
	say := func(format string, args ...any) {
		if !s.progress.quiet || !f.yes && !s.dryRun {
			s.progress.end()
			fmt.Fprintln(s.app.ErrOut, printable(fmt.Sprintf(format, args...)))
		}
	}
	verb := "restart"
	if s.dryRun {
		verb = "would restart"
	}
	for _, r := range list {
		if r.Left != "" {
			say("leave %s: %s", r.Workload, r.Left)
			continue
		}
		names = append(names, r.Workload.String())
		say("%s %s: %s", verb, r.Workload, strings.Join(append([]string{number(r.Pods, "pod")}, r.Notes...), "; "))
	}
	return names
}

// rolloutLine says how far the rollouts are.
func rolloutLine(states []cluster.RolloutState) string {
	done := 0
	var waiting []string
	for _, r := range states {
		if r.Done {
			done++
		} else {
			waiting = append(waiting, unready(r))
		}
	}
	text := fmt.Sprintf("waiting for the rollouts: %d of %d done", done, len(states))
	if len(waiting) > 0 {
		text += " (" + strings.Join(waiting, "; ") + ")"
	}
	return text
}

// unready says for what a rollout waits, and names the pods.
func unready(r cluster.RolloutState) string {
	text := r.Workload.String() + " waits for " + r.Waits
	if r.Failed {
		text = r.Workload.String() + " does not become ready: waits for " + r.Waits
	}
	const most = 3
	if n := len(r.NotReady); n > most {
		return text + ": " + strings.Join(r.NotReady[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	} else if n > 0 {
		text += ": " + strings.Join(r.NotReady, ", ")
	}
	return text
}

// ask wants a yes or no from whoever is at the terminal; no is the default.
func (a *app) ask(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(a.ErrOut, "%s [y/N] ", printable(question))
	answers := make(chan string, 1)
	go func() { // reading cannot be interrupted; the program ends with it
		line, _ := bufio.NewReader(a.In).ReadString('\n')
		answers <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case answer := <-answers:
		return answer == "y" || answer == "yes", nil
	case <-ctx.Done():
		fmt.Fprintln(a.ErrOut)
		return false, ctx.Err()
	}
}
