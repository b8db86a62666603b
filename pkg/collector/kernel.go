//go:build linux

package collector

import (
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
)

// Kernel is the Probe of the running kernel.
type Kernel struct {
	*probe.Probe
}

// Attach loads and attaches the programs. The caller closes the Kernel.
func Attach() (Kernel, error) {
	p, err := probe.Open(probe.Options{})
	if err != nil {
		return Kernel{}, err
	}
	return Kernel{p}, nil
}

// Missing implements Probe.
func (k Kernel) Missing() []string {
	var list []string
	missing := k.Features().Missing
	for _, program := range sortedKeys(missing) {
		list = append(list, program+": "+missing[program])
	}
	return list
}
