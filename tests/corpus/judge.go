//go:build linux && amd64

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/podsecurity"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/seccomp"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// court has the policies that a discover makes of some profiles, as a promotion to
// deny reads them back.
type court struct {
	input rollout.Input
	set   policy.Set
	rules map[string]int // by engine, as discover counts them
}

func engines() []engine.Engine {
	return []engine.Engine{kubearmor.Engine{}, cilium.New(cilium.Options{}), netpol.New(), seccomp.Engine{}, podsecurity.Engine{}}
}

func learner(profiles []behavior.Profile, decided policy.Decided) (policy.Set, error) {
	return learn.Rules(profiles, learn.Options{Decided: decided})
}

// convene learns from profiles of one workload.
func convene(learner rollout.Learner, profiles ...behavior.Profile) (court, error) {
	all := behavior.Profiles{}
	for _, p := range profiles {
		all.Add(p)
	}
	c := court{input: rollout.Input{Namespace: namespace, Tree: overlay.Tree{}, Fresh: all, Engines: engines(), Learn: learner,
		Now: time.Unix(1700000000, 0), By: "corpus"}}
	plan, err := rollout.Discover(c.input, rollout.DiscoverOptions{})
	if err != nil {
		return c, fmt.Errorf("learn: %w", err)
	}
	c.input.Tree = c.input.Tree.With(plan.Files)
	if len(plan.Summary) == 1 {
		c.rules = plan.Summary[0].Rules
	}
	c.set, err = learner(profiles, nil)
	return c, err
}

// judge asks what a promotion to deny would say about a profile.
func (c court) judge(p behavior.Profile) (rollout.Verdicts, error) {
	in := c.input
	in.Fresh = behavior.Profiles{}
	in.Fresh.Add(p)
	_, verdicts, err := rollout.Promote(in, rollout.PromoteOptions{To: policy.Deny})
	var notYet *rollout.NotYetError
	if errors.As(err, &notYet) {
		err = nil
	}
	if verdicts.Facts == 0 && err == nil {
		err = errors.New("judge: no fact was judged")
	}
	return verdicts, err
}

// denied are the distinct facts that some engine would not allow, with the first
// that would not.
func denied(v rollout.Verdicts) hits {
	facts := hits{}
	for _, x := range v.Violations {
		if facts[x.Fact] == "" {
			facts[x.Fact] = x.Engine
		}
	}
	return facts
}

// count is the number of rules that a person reads: what KubeArmor and the network
// engine allow, and the list of system calls as one.
func (c court) count() int {
	n := c.rules[kubearmor.Name] + c.rules[cilium.Name]
	if c.rules[seccomp.Name] > 0 {
		n++
	}
	return n
}
