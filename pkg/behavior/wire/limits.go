package wire

import (
	"math"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// lastSecond is the end of the year 9999: what comes after it has no form in
// JSON, and one such time would keep a whole profile from being written.
const lastSecond = 253402300799

// seconds refuses a time that nothing later could write down.
func seconds(list ...int64) error {
	for _, s := range list {
		if s < 0 || s > lastSecond {
			return refuse("time %d", s)
		}
	}
	return nil
}

// Weight is about how many bytes the texts of an observation take, which is what
// a sender can make large.
func (o Observation) Weight() int {
	f := o.Fact
	n := len(f.Exe) + len(f.Parent) + len(f.Path) + len(f.Protocol) + len(f.Name) + len(f.Syscall) + len(f.Arch) + len(f.Interpreter) +
		len(f.Arguments) + len(f.Family) + len(f.Type) + len(f.Target) + len(f.Peer.Name)
	for _, p := range o.Parents {
		n += len(p)
	}
	return n
}

// Weight is about how many bytes the container takes without its facts.
func (c Container) Weight() int {
	n := len(c.Namespace) + len(c.Pod) + len(c.UID) + len(c.Name) + len(c.ID) + len(c.Image)
	for reason := range c.Lost {
		n += len(reason) + 8
	}
	for reason := range c.LostAt {
		n += len(reason) + 48
	}
	for path, m := range c.Mounts {
		n += len(path) + len(m.Volume) + len(m.Kind)
	}
	return n
}

// count is a number that fits an int on every machine.
func count(n uint32) int { return int(min(n, math.MaxInt32)) }

// span decodes from when to when something happened.
func span(first, last int64) (behavior.Span, error) {
	if err := seconds(first, last); err != nil {
		return behavior.Span{}, err
	}
	return behavior.Span{First: fromUnix(first), Last: fromUnix(last)}, nil
}

// Coverage is what the status says of its node as a whole: what was lost, and when.
func (s Status) Coverage() behavior.Coverage {
	c := behavior.Coverage{Lost: map[string]uint64{}, LostAt: s.LostAt}
	for reason, n := range s.Lost {
		c.Lost[reason] = n
	}
	if s.Unattributed > 0 {
		c.Lost[behavior.UnattributedReason] = s.Unattributed
	}
	return c
}

// Evidence is the observation as evidence of the pod.
func (o Observation) Evidence(pod string) behavior.Evidence {
	return behavior.Evidence{First: o.First, Last: o.Last, Pods: map[string]uint64{pod: o.Count}, Parents: o.Parents, Snapshot: o.Snapshot}
}
