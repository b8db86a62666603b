//go:build linux

package collector

import (
	"context"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
)

// Record is one new fact of one mount namespace, as the kernel told it.
type Record = probe.Record

// SyscallSet holds system calls of one architecture, by name.
type SyscallSet = probe.SyscallSet

// Probe is what the collector needs of the kernel side. Its methods are safe for
// concurrent use.
type Probe interface {
	// Run hands every record to the function until the context ends.
	Run(context.Context, func(Record)) error
	// Counts reports how often every fact was seen since it was first recorded.
	Counts(func(id, count uint64, first, last time.Time)) error
	// Syscalls lists the system calls of every mount namespace.
	Syscalls() (map[uint32][]SyscallSet, error)
	// Lost counts what could not be recorded, by reason; MapUse tells how full
	// the kernel's maps were at most, and Hooks by which families of hooks each
	// kind of fact is seen.
	Lost() (probe.Losses, error)
	MapUse() (map[string]behavior.MapUse, error)
	Hooks() map[behavior.Kind][]string
	// Ignore stops records of a namespace, and Heed lets those of its number come
	// again. Forget drops what is known of the one of that generation, whoever else
	// has its number.
	Ignore(mountNS uint32) error
	Heed(mountNS uint32) error
	Forget(mountNS, generation uint32) error
	// Missing says in words which features the kernel lacks, and what is not
	// seen for it.
	Missing() []string
}
