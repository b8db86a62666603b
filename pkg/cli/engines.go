package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/podsecurity"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/seccomp"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
)

// engines is the one list of what the plugin can render for. Mutual asks of pods
// that they prove who they are.
func engines(mutual bool) []engine.Engine {
	return []engine.Engine{kubearmor.Engine{}, cilium.New(cilium.Options{MutualAuth: mutual}), netpol.New(), seccomp.Engine{}, podsecurity.Engine{}}
}

func engineNames() []string {
	var names []string
	for _, e := range engines(false) {
		names = append(names, e.Name())
	}
	return names
}

// chosen gives the engines that were asked for, in the order of engines; all of
// them when none was.
func chosen(names []string, mutual bool) ([]engine.Engine, error) {
	if len(names) == 0 {
		return engines(mutual), nil
	}
	for _, name := range names {
		if !slices.Contains(engineNames(), name) {
			return nil, fmt.Errorf("engine %q: want some of %s", name, strings.Join(engineNames(), ", "))
		}
	}
	return slices.DeleteFunc(engines(mutual), func(e engine.Engine) bool { return !slices.Contains(names, e.Name()) }), nil
}

// Forms of seccomp profiles.
const (
	seccompFile     = "file"
	seccompOperator = "spo"
)

// seccompForm tells the form that was asked for; where none was, the one that the
// tree has, so that it is asked for once.
func seccompForm(asked string, t overlay.Tree) (string, error) {
	switch asked {
	case seccompFile, seccompOperator:
		return asked, nil
	case "":
		for p := range t {
			if strings.HasSuffix(p, "/base/"+seccomp.Name+".yaml") {
				return seccompOperator, nil
			}
		}
		return seccompFile, nil
	}
	return "", fmt.Errorf("--seccomp %q: want %s or %s", asked, seccompFile, seccompOperator)
}

// formed gives the engines that write seccomp profiles in that form, and refer to
// them.
func formed(list []engine.Engine, form string) []engine.Engine {
	list = slices.Clone(list)
	for i, e := range list {
		switch e.Name() {
		case seccomp.Name:
			list[i] = seccomp.Engine{Operator: form == seccompOperator}
		case podsecurity.Name:
			list[i] = podsecurity.Engine{Localhost: form == seccompOperator}
		}
	}
	return list
}
