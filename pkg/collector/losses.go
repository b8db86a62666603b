//go:build linux

package collector

import (
	"slices"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
)

// told is what the kernel side had lost when it was asked last.
type told struct {
	losses probe.Losses
	at     time.Time
}

// takeLosses takes over what the kernel side has lost since it was asked last:
// whose it is where that can be told, and between which moments.
func (c *Collector) takeLosses() error {
	losses, err := c.probe.Lost()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	from := c.told.at
	for reason, n := range more(losses.Node, c.told.losses.Node) {
		c.lose(reason, n, from, now)
	}
	for number, lost := range losses.Namespace {
		for reason, count := range more(lost, c.told.losses.Namespace[number]) {
			if _, ignored := c.ignored[number]; ignored || c.home[number] {
				continue
			}
			n := c.spaces[number]
			if n == nil {
				// Not one of its records came through; the next scan may know it.
				n = c.meet(number)
			}
			n.lose(reason, count, from, now)
		}
	}
	c.told = told{losses, now}
	return nil
}

// more gives by how much each count has grown. One that has become smaller has
// begun anew.
func more(counts, before map[string]uint64) map[string]uint64 {
	grown := map[string]uint64{}
	for reason, n := range counts {
		was := before[reason]
		if n < was {
			was = 0
		}
		if n > was {
			grown[behavior.Escape(reason)] = n - was
		}
	}
	return grown
}

// hooks are the families by which each kind of fact is seen. What was there before
// is found without any.
func (c *Collector) hooks() map[behavior.Kind][]string {
	hooks := map[behavior.Kind][]string{}
	for kind, families := range c.probe.Hooks() {
		hooks[kind] = slices.Clone(families)
	}
	for _, kind := range []behavior.Kind{behavior.Process, behavior.File, behavior.Network, behavior.Socket} {
		hooks[kind] = append(hooks[kind], "snapshot")
		slices.Sort(hooks[kind])
	}
	return hooks
}
