//go:build linux

package collector

import (
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
)

// Kernel is the Probe of the running kernel.
type Kernel struct {
	*probe.Probe
}

// Attach loads and attaches the programs; cgroupRoot is where the version 2
// hierarchy of control groups is mounted, which the probe mounts by itself when it
// is empty. The caller closes the Kernel.
func Attach(cgroupRoot string) (Kernel, error) {
	p, err := probe.Open(probe.Options{CgroupRoot: cgroupRoot})
	if err != nil {
		return Kernel{}, err
	}
	return Kernel{p}, nil
}

// Missing implements Probe.
func (k Kernel) Missing() []string {
	return k.Features().Gaps()
}

// Hooks implements Probe.
func (k Kernel) Hooks() map[behavior.Kind][]string { return k.Features().Hooks }

// readable tells whether what the programs recorded can be read.
func (k Kernel) readable() error {
	_, err := k.Syscalls()
	return err
}
