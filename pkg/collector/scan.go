//go:build linux

package collector

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// scan looks at all processes: it finds containers that ran before, learns which
// namespaces are gone, and decides about those whose container is not known.
func (c *Collector) scan() error {
	found, refused, err := c.proc.scan(func(ns uint32) bool { return c.home[ns] })
	if err != nil {
		return err
	}
	now := c.now()
	c.watchClock(now)
	c.noteRefused(uint64(refused))
	gone, err := c.stale(found, c.steady())
	if err != nil {
		return err
	}
	for _, t := range gone {
		if err := c.probe.Forget(t.number, t.generation); err != nil {
			return err
		}
	}
	if err := c.settle(c.steady()); err != nil {
		return err
	}
	c.readMounts(now)
	return c.takeSnapshots(now)
}

// noteRefused remembers how many processes could not be looked at, at most.
func (c *Collector) noteRefused(n uint64) {
	const reason = "processes that may not be looked at"
	c.mu.Lock()
	defer c.mu.Unlock()
	if told := c.lost[reason].count; n > told {
		c.lose(reason, n-told, c.now(), c.now())
	}
}

// maxStep is how far the clock may go another way than time does before what was
// written down by it is in doubt; setting it little by little stays below.
const maxStep = 2 * time.Second

// watchClock notices that somebody set the node's clock. Then moments before and
// after do not compare, and an address may be taken for that of the wrong pod.
func (c *Collector) watchClock(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ahead := now.Round(0).Sub(c.steady().Round(0))
	if (ahead - c.ahead).Abs() > maxStep {
		c.lose("the node's clock was set", 1, now, now)
		c.ahead = ahead
	}
}

// stale updates what is known by what a scan found, and lists what the kernel side
// must forget.
func (c *Collector) stale(found map[uint32]*mountNS, now time.Time) ([]tenure, error) {
	if c.anyGone(found, now) {
		// Their last counts, before they are forgotten: or else at the next scan.
		if err := c.refresh(); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var forget []tenure
	for number, was := range c.ignored {
		m := found[number]
		if m != nil && m.place == was {
			continue
		}
		if err := c.probe.Heed(number); err != nil {
			return nil, err
		}
		delete(c.ignored, number)
		if m != nil {
			c.meet(number).late = true
		}
	}
	for number, n := range c.spaces {
		if vanished(n, found[number], now) {
			guessed := n.guess()
			c.end(n)
			if !guessed {
				forget = append(forget, n.tenures()...)
			}
		}
	}
	for number, m := range found {
		if _, ignored := c.ignored[number]; ignored {
			continue
		}
		n := c.spaces[number]
		if n == nil {
			n = c.meet(number)
		}
		n.pids = m.pids
		if n.container == nil && (!n.sure || n.unplaced(now)) {
			n.place, n.sure = m.place, true
		}
	}
	return forget, nil
}

func (c *Collector) anyGone(found map[uint32]*mountNS, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for number, n := range c.spaces {
		if vanished(n, found[number], now) {
			return true
		}
	}
	return false
}

// vanished tells whether a namespace has no process any more, or is another one
// under the same number. One that is younger than a scan is given time. Where the
// kernel tells generations, the first record of another one does that; its place
// says nothing, since on a busy machine a runtime takes seconds to move its process
// into the container's group.
func vanished(n *namespace, m *mountNS, now time.Time) bool {
	if m == nil {
		return len(n.pids) > 0 || now.Sub(n.since) >= 2*scanEvery
	}
	if n.generation != 0 {
		return false
	}
	if n.container != nil {
		return m.place.container != "" && m.place.container != n.container.info.id
	}
	return n.sure && m.place != n.place && !n.unplaced(now)
}

// unplaced tells whether a process may still be on its way into its control group.
func (n *namespace) unplaced(now time.Time) bool {
	return n.container == nil && n.place == (place{}) && now.Sub(n.since) < 2*scanEvery
}

// end takes the namespace out of those that run.
func (c *Collector) end(n *namespace) {
	delete(c.spaces, n.number)
	n.ended, n.pids = true, nil
	c.remember(n)
	c.giveUp(n, func(Record) bool { return true })
	if n.container == nil {
		if n.foreign {
			if n.stranger != nil {
				n.stranger.ended = c.steady()
			}
			return
		}
		if n.waiting() > 0 || len(n.syscalls) > 0 {
			c.limbo = append(c.limbo, n)
		}
		return
	}
	for _, other := range c.spaces {
		if other.container == n.container {
			return
		}
	}
	n.container.to, n.container.terminated = cmp.Or(n.container.info.finished, c.now()), true
	c.store.forgetIDs(n.container)
}

// verdict says what becomes of a namespace without a container.
type verdict int

const (
	wait       verdict = iota // the API server may still name it
	ours                      // as wait, and it is a pod's of this node
	foreign                   // no container of a pod of this node
	unknowable                // nobody will ever know
)

// judge decides about a namespace that resolve knows no container for.
func (c *Collector) judge(n *namespace, now time.Time) verdict {
	age := now.Sub(n.since)
	synced, problem := c.pods.state()
	known, complete := c.pods.pod(n.place.pod)
	switch {
	case n.place == place{} && n.sure:
		if age < hostGrace {
			return wait
		}
		return foreign
	case !synced || problem != "":
		return wait // what it would have named meanwhile, nobody knows
	case known && !complete:
		return ours
	case n.place.pod != "" || n.sure:
		// A sandbox, another node's container on a shared kernel, or a
		// container that no kubelet made.
		if age < podGrace {
			return wait
		}
		return foreign
	case age < blindGrace:
		return ours
	}
	return unknowable
}

// settle decides about all namespaces whose container is not known.
func (c *Collector) settle(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, number := range slices.Sorted(maps.Keys(c.spaces)) {
		n := c.spaces[number]
		if n.container != nil {
			if info, ok := c.pods.container(n.container.info.id); ok {
				n.container.update(info, c.attached, c.now())
			}
			late := c.now().Add(-sessionGrace)
			c.giveUp(n, func(r Record) bool { return r.Time.Before(late) })
			continue
		}
		if n.foreign && n.place.container == "" && !n.seen || c.resolve(n) || !n.foreign && c.judge(n, now) != foreign {
			continue
		}
		if !n.foreign {
			c.estrange(n, now)
			n.foreign, n.syscalls = true, nil
		}
		// Not ignored in the kernel: a sandbox does nothing, and a container that
		// came to have its number would start unseen. And what the kernel side has
		// not seen yet, it could only ignore by a number that others get later.
		if n.place.container != "" || !n.seen {
			continue
		}
		if err := c.probe.Ignore(number); err != nil {
			return err
		}
		delete(c.spaces, number)
		c.ignored[number] = n.place
	}
	c.acquaintAll()
	c.bury(c.now())
	c.limbo = slices.DeleteFunc(c.limbo, func(n *namespace) bool {
		if c.resolve(n) {
			c.giveUp(n, func(Record) bool { return true })
			n.container.to = cmp.Or(n.container.to, c.now())
			return true
		}
		switch c.judge(n, now) {
		case unknowable:
			c.unattributed += n.waiting()
			c.drop(n)
		case foreign:
			c.estrange(n, now)
		default:
			return false
		}
		n.foreign = true
		return true
	})
	return nil
}

// waiting counts the records of the namespace that wait for its container, those
// that found no room included.
func (n *namespace) waiting() uint64 {
	total := uint64(len(n.pending))
	for _, l := range n.lost {
		total += l.count
	}
	return total
}

// waiting counts pending records that may be those of a pod of this node.
func (c *Collector) waiting() uint64 {
	var total uint64
	now := c.steady()
	count := func(n *namespace) {
		if n.container == nil && c.judge(n, now) == ours {
			total += n.waiting()
		}
	}
	for _, n := range c.spaces {
		count(n)
	}
	for _, n := range c.limbo {
		count(n)
	}
	return total + c.strange(now)
}
