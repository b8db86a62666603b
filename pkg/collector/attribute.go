//go:build linux

package collector

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// How long a mount namespace may stay unknown. The API server learns of a
// container some seconds after it started.
const (
	hostGrace  = 10 * time.Second // its control groups name no container
	podGrace   = 30 * time.Second // they name one that no pod lists
	blindGrace = 2 * time.Minute  // it was gone before it could be looked at
)

// namespace is one mount namespace that records came from or processes are in.
type namespace struct {
	number    uint32
	place     place
	sure      bool // the place is the whole truth, not one name of it
	pids      []int
	since     time.Time
	ended     bool
	late      bool       // its records were ignored at first
	foreign   bool       // no container of a pod of this node
	container *container // nil while unknown
	pending   []Record
	syscalls  []SyscallSet // not yet stated
}

// record takes in one record of the probe.
func (c *Collector) record(r Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.spaces[r.MountNS]
	if n != nil && c.isOther(n, r) {
		c.end(n)
		n = nil
		if err := c.probe.Forget(r.MountNS); err != nil {
			c.lost["facts of a mount namespace that was not forgotten"]++
		}
	}
	if n == nil {
		n = c.meet(r.MountNS, r.Time)
		n.place, n.sure = c.locate(r)
	}
	if n.container == nil && !n.foreign {
		c.resolve(n)
	}
	if n.container != nil {
		c.keep(n, r)
		return
	}
	if n.foreign {
		return
	}
	switch limits := c.options.Limits; {
	case n.sure && n.place == place{} && len(n.pending) >= limits.PendingRecords:
		// The host's; what a container did before it was in its group is less.
	case len(n.pending) >= limits.PendingRecords:
		c.lost["records of a container that is not known yet"]++
	case c.pending >= limits.TotalPending:
		c.lost["records of containers that are not known yet"]++
	default:
		n.pending = append(n.pending, r)
		c.pending++
	}
}

// isOther tells whether the number of a mount namespace has come to mean another
// one: the kernel gives numbers out again at once. It is asked where a container
// begins: at its first record, at what the runtime does, at an entrypoint.
func (c *Collector) isOther(n *namespace, r Record) bool {
	begins := len(r.CgroupNames) > 0 || r.Fact.Runtime || r.Fact.Kind == behavior.Process && r.Fact.Parent == ""
	if !begins {
		return false
	}
	p, sure := c.locate(r)
	if p.container == "" || p.container == n.place.container || c.holds(n) {
		return false
	}
	if n.unplaced(r.Time) {
		// The runtime made the namespaces before it moved the process.
		n.place, n.sure = p, sure
		return false
	}
	if sure && n.sure {
		return true
	}
	// A name alone may be that of a container inside the pod's container.
	_, listed := c.pods.container(p.container)
	return n.place.container != "" && listed
}

// holds tells whether a process that made the namespace what it is is still in
// it. Then a process of another place is a visitor: the runtime, for one, is in a
// container's control group while it is in the host's mount namespace still.
func (c *Collector) holds(n *namespace) bool {
	for i, pid := range n.pids {
		if i == maxRoots {
			break
		}
		if ns, err := c.proc.mountNSOf(pid); err != nil || ns != n.number {
			continue
		}
		if at, err := c.proc.placeOf(pid); err == nil && at == n.place {
			return true
		}
	}
	return false
}

// locate says which container the process of a record is in. What the record
// itself names wins, since the process may be gone and its number another's by
// now. Sure tells that the whole path was known, not only a part of it.
func (c *Collector) locate(r Record) (p place, sure bool) {
	// From leaf to root, one hierarchy after the other; a container may make
	// groups below its own, so the last name that looks right counts.
	for _, name := range r.CgroupNames {
		named := parseCgroup(name)
		p.pod, p.container = cmp.Or(named.pod, p.pod), cmp.Or(named.container, p.container)
	}
	if p.pod != "" && p.container != "" {
		return p, true
	}
	if ns, err := c.proc.mountNSOf(r.PID); err == nil && ns == r.MountNS {
		if p, err := c.proc.placeOf(r.PID); err == nil {
			return p, true
		}
	}
	return p, false
}

func (c *Collector) meet(number uint32, at time.Time) *namespace {
	n := &namespace{number: number, since: at}
	c.spaces[number] = n
	return n
}

// resolve finds the namespace's container and gives it what was pending.
func (c *Collector) resolve(n *namespace) bool {
	info, ok := c.pods.container(n.place.container)
	if !ok {
		return false
	}
	from := c.attached
	if info.started.After(from) {
		from = info.started
	}
	if n.late {
		from = n.since
	}
	k, isNew := c.store.container(info, from)
	n.container = k
	if !n.ended {
		k.to = time.Time{}
	}
	if isNew {
		c.snapshots = append(c.snapshots, k)
	}
	pending := n.pending
	c.drop(n)
	for _, r := range pending {
		c.keep(n, r)
	}
	c.keepSyscalls(n, c.now())
	return true
}

// drop empties the pending records.
func (c *Collector) drop(n *namespace) {
	c.pending -= len(n.pending)
	n.pending = nil
}

// keep states the record as a fact of the namespace's container.
func (c *Collector) keep(n *namespace, r Record) {
	k := n.container
	if r.Truncated {
		k.lose("path longer than the probe can follow", 1)
		return
	}
	if err := r.Fact.Validate(); err != nil {
		k.lose("malformed record", 1)
		return
	}
	if r.Fact.Runtime {
		r.Fact.Path = withoutPID(r.Fact.Path)
	}
	isNew := c.store.add(k, r.Fact, r.ID, r.Time)
	if r.Fact.Kind != behavior.Process || r.Fact.Runtime {
		return
	}
	if r.Fact.Parent == "" && k.info.started.After(c.attached) {
		k.start = true
	}
	if isNew {
		c.ask(lookup{container: k, mountNS: n.number, pids: append([]int{r.PID}, n.pids...), fact: r.Fact, at: r.Time})
	}
}

// withoutPID turns /proc/123/fd into /proc/self/fd. The runtime reads its own files
// there with every exec session and probe, under a new number each time.
func withoutPID(path string) string {
	rest, ok := strings.CutPrefix(path, "/proc/")
	if !ok {
		return path
	}
	name := strings.TrimLeft(rest, "0123456789")
	if name == rest || name != "" && name[0] != '/' {
		return path
	}
	return "/proc/self" + name
}

// scan looks at all processes: it finds containers that ran before, learns which
// namespaces are gone, and decides about those whose container is not known.
func (c *Collector) scan() error {
	found, err := c.proc.scan(func(ns uint32) bool { return c.home[ns] })
	if err != nil {
		return err
	}
	now := c.now()
	for _, number := range c.stale(found, now) {
		if err := c.probe.Forget(number); err != nil {
			return err
		}
	}
	if err := c.settle(now); err != nil {
		return err
	}
	return c.takeSnapshots(now)
}

// stale updates what is known by what a scan found, and lists the numbers that
// the kernel side must forget.
func (c *Collector) stale(found map[uint32]*mountNS, now time.Time) []uint32 {
	if c.anyGone(found, now) {
		// Their last counts, before they are forgotten.
		c.problem("refresh counts", c.refresh())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var forget []uint32
	for number, was := range c.ignored {
		m := found[number]
		if m != nil && m.place == was {
			continue
		}
		delete(c.ignored, number)
		forget = append(forget, number)
		if m != nil {
			c.meet(number, now).late = true
		}
	}
	for number, n := range c.spaces {
		if vanished(n, found[number], now) {
			c.end(n)
			forget = append(forget, number)
		}
	}
	for number, m := range found {
		if _, ignored := c.ignored[number]; ignored {
			continue
		}
		n := c.spaces[number]
		if n == nil {
			n = c.meet(number, now)
		}
		n.pids = m.pids
		if n.container == nil && (!n.sure || n.unplaced(now)) {
			n.place, n.sure = m.place, true
		}
	}
	return forget
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
// under the same number. One that is younger than a scan is given time.
func vanished(n *namespace, m *mountNS, now time.Time) bool {
	if m == nil {
		return len(n.pids) > 0 || now.Sub(n.since) >= 2*scanEvery
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
	if n.container == nil {
		if n.foreign {
			return
		}
		if len(n.pending) > 0 || len(n.syscalls) > 0 {
			c.limbo = append(c.limbo, n)
		}
		return
	}
	for _, other := range c.spaces {
		if other.container == n.container {
			return
		}
	}
	n.container.to = cmp.Or(n.container.info.finished, c.now())
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
	synced, _ := c.pods.state()
	known, complete := c.pods.pod(n.place.pod)
	switch {
	case n.place == place{} && n.sure:
		if age < hostGrace {
			return wait
		}
		return foreign
	case !synced:
		return wait
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
			c.update(n.container)
			continue
		}
		if n.foreign || c.resolve(n) || c.judge(n, now) != foreign {
			continue
		}
		c.drop(n)
		n.foreign, n.syscalls = true, nil
		if n.place.container != "" {
			// Not ignored in the kernel: a sandbox does nothing, and a container
			// that came to have its number would start unseen.
			continue
		}
		delete(c.spaces, number)
		c.ignored[number] = n.place
		if err := c.probe.Ignore(number); err != nil {
			return err
		}
	}
	c.limbo = slices.DeleteFunc(c.limbo, func(n *namespace) bool {
		if c.resolve(n) {
			n.container.to = cmp.Or(n.container.to, now)
			return true
		}
		switch c.judge(n, now) {
		case unknowable:
			c.unattributed += uint64(len(n.pending))
		case foreign:
		default:
			return false
		}
		c.drop(n)
		return true
	})
	return nil
}

// update takes over what the API server has learned of a container since.
func (c *Collector) update(k *container) {
	info, ok := c.pods.container(k.info.id)
	if !ok {
		return
	}
	k.info = info
}

// waiting counts pending records that may be those of a pod of this node.
func (c *Collector) waiting() uint64 {
	var total uint64
	now := c.now()
	count := func(n *namespace) {
		if n.container == nil && c.judge(n, now) == ours {
			total += uint64(len(n.pending))
		}
	}
	for _, n := range c.spaces {
		count(n)
	}
	for _, n := range c.limbo {
		count(n)
	}
	return total
}
