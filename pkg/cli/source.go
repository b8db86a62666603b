package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/file"
)

// sourceFlags say where profiles come from.
type sourceFlags struct {
	from []string
}

func (f *sourceFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.from, "from", nil, "file of what others observed, or - for standard input, in place of a cluster; repeat it for more: Hubble's flows, KubeArmor's logs, profiles, and the cluster's objects")
}

// validate refuses what a source cannot do. Flags may have any others that observe.
func (f *sourceFlags) validate(flags *pflag.FlagSet) error {
	if len(f.from) == 0 {
		return nil
	}
	for _, other := range []string{"duration", "until-stable", "restart", "print-only", "collector-image", "collector-wait", "collector-grace"} {
		if given := flags.Lookup(other); given != nil && given.Changed {
			return fmt.Errorf("--from reads files, and --%s is about a cluster: give one of them", other)
		}
	}
	return nil
}

// fromFiles takes what others observed and wrote down.
func (a *app) fromFiles(ctx context.Context, s *setup) (behavior.Profiles, error) {
	s.progress.say("reading %s", number(len(s.observer.source.from), "file"))
	result, err := file.New(file.Options{Namespace: s.namespace, Files: s.observer.source.from, Stdin: a.In, Now: a.now}).Pull(ctx)
	var line *file.LineError
	switch {
	case errors.Is(err, file.ErrNoObjects):
		return nil, hinted(err, "add what 'kubectl get pods,services,endpointslices,nodes,replicasets,deployments,statefulsets,daemonsets,jobs,cronjobs -A -o json' prints as one more --from")
	case errors.As(err, &line):
		return nil, hinted(err, "what is read: 'hubble observe -o jsonpb', 'karmor logs --json', evidence.yaml of a repository, 'kubectl get -o json' or '-o yaml'")
	case err != nil:
		return nil, err
	}
	s.tell(result)
	s.topology = result.Topology
	return result.Profiles, nil
}

// tell says what a source has to say besides its profiles.
func (s *setup) tell(r source.Result) {
	for _, n := range r.Nodes {
		s.progress.say("warning: %s", n.Error())
	}
	for _, reason := range slices.Sorted(maps.Keys(r.Passed)) {
		s.progress.say("passed over: %d %s", r.Passed[reason], reason)
	}
	var denied, audited []string
	for _, d := range r.Denials {
		text := fmt.Sprintf("%s/%s: %s", d.Subject.Workload, d.Subject.Container, d.Fact)
		if d.Policy != "" {
			text += " (by policy " + d.Policy + ")"
		}
		if d.Audited {
			audited = append(audited, text)
		} else {
			denied = append(denied, text)
		}
	}
	for _, list := range []struct {
		what  string
		texts []string
	}{{"denied by policies, and not learned", denied}, {"let through by policies that only audit", audited}} {
		const most = 5
		if len(list.texts) == 0 {
			continue
		}
		text := strings.Join(list.texts[:min(most, len(list.texts))], "; ")
		if more := len(list.texts) - most; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		s.progress.say("%s: %s", list.what, text)
	}
}
