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
