package cli

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// waveFlags say which workloads of which namespaces a promotion is about.
type waveFlags struct {
	selector  string
	wave      int
	percent   int
	scheduled bool
	all       bool
	also      []string
}

func (f *waveFlags) add(flags *pflag.FlagSet) {
	flags.StringVarP(&f.selector, "selector", "l", "", "only workloads whose pods have these labels, such as tier=web")
	flags.IntVar(&f.wave, "wave", 0, "only workloads of this wave of rollout.yaml, and of earlier ones")
	flags.IntVar(&f.percent, "percent", 0, "only so many percent of the namespace's workloads, the same ones each time")
	flags.BoolVar(&f.scheduled, "scheduled", false, "bring to deny what the schedule in rollout.yaml says is due")
	flags.BoolVarP(&f.all, "all-namespaces", "A", false, "every namespace that the repository has policies for, one after the other")
	flags.StringSliceVar(&f.also, "namespaces", nil, "these namespaces, one after the other")
}

func (f *waveFlags) validate(flags *pflag.FlagSet, args []string) error {
	switch {
	case f.wave < 0 || f.wave == 0 && flags.Changed("wave"):
		return fmt.Errorf("--wave %d: want 1 or more", f.wave)
	case f.percent < 0 || f.percent > 100 || f.percent == 0 && flags.Changed("percent"):
		return fmt.Errorf("--percent %d: want 1 to 100", f.percent)
	case f.all && len(f.also) > 0:
		return errors.New("--all-namespaces and --namespaces: want one of them")
	case len(args) > 0 && (f.all || len(f.also) > 0):
		return errors.New("workloads are named: want their one namespace, with -n")
	case f.scheduled && (len(args) > 0 || f.selector != "" || f.wave > 0 || f.percent > 0):
		return hinted(errors.New("--scheduled and a choice of workloads: want one of them"), "the schedule says which workloads are due")
	}
	for _, name := range f.also {
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			return fmt.Errorf("--namespaces %q: want lower case letters, digits and dashes, at most 63", name)
		}
	}
	return nil
}

// namespaces gives those that the promotion is about, sorted where the repository
// says which.
func (f *waveFlags) namespaces(ctx context.Context, r repositoryFlags, s *setup) (names []string, err error) {
	if len(f.also) > 0 {
		return f.also, nil
	}
	if !f.all {
		return []string{s.namespace}, nil
	}
	repository, err := gitops.Open(ctx, r.options())
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	defer func() { err = errors.Join(err, repository.Close()) }()
	t, _, err := repository.Read(ctx, r.path)
	if err != nil {
		return nil, fmt.Errorf("read %s of repository %s: %w", r.path, repository.URL(), err)
	}
	for p := range t {
		name, file := path.Split(p)
		if file == rollout.RecordFile && strings.Count(name, "/") == 1 {
			names = append(names, strings.TrimSuffix(name, "/"))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s of repository %s has policies for no namespace", r.path, repository.URL())
	}
	slices.Sort(names)
	return names, nil
}

// choose gives the slugs of the workloads that are promoted. Nothing chosen and
// done means that nothing is due.
func (f *waveFlags) choose(ctx context.Context, s *setup, o *folder, w *watcher, named []string) (slugs []string, done bool, err error) {
	in := s.input(o.tree, nil, o)
	if !f.scheduled {
		slugs, err = rollout.Choose(in, rollout.Choice{Workloads: named, Selector: f.selector, Wave: f.wave, Percent: f.percent})
		return slugs, false, err
	}
	if in.Synced, err = w.look(ctx, s, o); err != nil {
		return nil, false, err
	}
	due, err := rollout.Schedule(in)
	if err != nil {
		return nil, false, err
	}
	for _, text := range due.Waiting {
		s.progress.say("later: %s", text)
	}
	if len(due.Due) == 0 {
		s.progress.say("nothing is due in namespace %s", s.namespace)
	}
	return due.Due, len(due.Due) == 0, nil
}

// each calls promote for each namespace. Not yet in one does not keep the others
// waiting, an error does.
func (f *waveFlags) each(names []string, s *setup, promote func(*setup) error) error {
	notYet := false
	for _, name := range names {
		one := *s
		if one.namespace = name; len(names) > 1 {
			one.progress.say("namespace %s", name)
		}
		err := promote(&one)
		var silent *silentError
		if errors.As(err, &silent) && silent.code == ExitNotYet {
			notYet = true
		} else if err != nil {
			return err
		}
	}
	if notYet {
		return &silentError{ExitNotYet}
	}
	return nil
}
