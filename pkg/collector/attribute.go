//go:build linux

package collector

import (
	"cmp"
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
	number uint32
	// generation is the record's; 0 while no record has told it.
	generation uint32
	place      place
	sure       bool // the place is the whole truth, not one name of it
	pids       []int
	since      time.Time
	ended      bool
	late       bool       // its records were ignored at first
	seen       bool       // it did something; else the kernel side does not know it
	foreign    bool       // no container of a pod of this node
	stranger   *stranger  // as which its records were given up, if it may have been one
	container  *container // nil while unknown
	pending    []Record
	// sessions are the arguments with which somebody entered, escaped; empty ones
	// for those that nobody knows any more.
	sessions  map[uint32][]string
	unentered []Record     // of sessions that are not known yet
	syscalls  []SyscallSet // not yet stated
	asked     map[question]bool
	asking    int     // lookups in the queue
	linkers   linkers // not yet claimed
	lost      map[string]loss
}

// loss is how much was lost, and when.
type loss struct {
	count uint64
	span  behavior.Span
}

// lose counts facts of the namespace that were lost at some time between two
// moments.
func (n *namespace) lose(reason string, count uint64, from, to time.Time) {
	switch {
	case count == 0 || n.foreign && n.stranger == nil:
	case n.foreign:
		n.stranger.missed = loss{n.stranger.missed.count + count, extend(n.stranger.missed.span, from, to)}
	case n.container != nil:
		n.container.lose(reason, count, from, to)
	default:
		if n.lost == nil {
			n.lost = map[string]loss{}
		}
		l := n.lost[reason]
		n.lost[reason] = loss{l.count + count, extend(l.span, from, to)}
	}
}

// record takes in one record of the probe.
func (c *Collector) record(r Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.spaces[r.MountNS]
	if n != nil && c.isOther(n, r) {
		if old := c.past[tenure{r.MountNS, r.Generation}]; old != nil {
			c.deliverLate(old, r)
			return
		}
		c.succeed(n, r.Generation)
		n = nil
	}
	if n == nil {
		n = c.meet(r.MountNS)
		n.place, n.sure = c.locate(r)
	}
	n.seen = true
	c.move(n, r)
	if n.generation == 0 {
		n.generation = r.Generation
	}
	if n.container == nil && (!n.foreign || n.place.container != "") {
		c.resolve(n)
	}
	if !n.foreign && !r.Truncated {
		c.ask(n, append([]int{r.PID}, n.pids...), program{fact: r.Fact, at: r.Time, session: r.Session})
	}
	if !n.foreign {
		c.enter(n, r)
	}
	c.deliver(n, r)
}

// deliverLate gives a record to a namespace that has ended: it was on its way, from
// another processor, when the first one of its successor came.
func (c *Collector) deliverLate(old *namespace, r Record) {
	c.deliver(old, r)
	if old.container == nil && !old.foreign && old.waiting() > 0 && !slices.Contains(c.limbo, old) {
		c.limbo = append(c.limbo, old)
	}
}

// succeed ends a namespace whose number another one has got, after a last look at
// what it called.
func (c *Collector) succeed(n *namespace, by uint32) {
	calls, err := c.probe.Syscalls()
	if err != nil {
		c.lose("last system calls of a mount namespace", 1, c.now(), c.now())
	}
	n.syscalls = slices.DeleteFunc(calls[n.number], func(s SyscallSet) bool {
		return s.Generation == by || n.generation != 0 && s.Generation != n.generation
	})
	if n.container != nil {
		c.keepSyscalls(n, c.now())
	}
	c.end(n)
	for _, t := range n.tenures() {
		if err := c.probe.Forget(t.number, t.generation); err != nil {
			c.lose("facts of a mount namespace that was not forgotten", 1, c.now(), c.now())
		}
	}
}

// deliver gives a record to the namespace's container, or keeps it until that is
// known.
func (c *Collector) deliver(n *namespace, r Record) {
	if n.container != nil {
		c.keep(n, r)
		return
	}
	if n.foreign {
		if n.stranger != nil {
			n.stranger.miss(r)
		}
		return
	}
	switch limits := c.options.Limits; {
	case n.sure && n.place == place{} && len(n.pending) >= limits.PendingRecords:
		// The host's; what a container did before it was in its group is less.
	case len(n.pending) >= limits.PendingRecords:
		n.lose("records before the container was known", 1, r.Time, r.Time)
	case len(n.pending) >= limits.ReservedPending && c.pending >= limits.TotalPending:
		n.lose("records before containers were known", 1, r.Time, r.Time)
	default:
		n.pending = append(n.pending, r)
		c.pending++
	}
}

// isOther tells whether the number of a mount namespace has come to mean another
// one: the kernel gives numbers out again at once. It is asked where a container
// begins: at its first record, at what the runtime does, at an entrypoint.
func (c *Collector) isOther(n *namespace, r Record) bool {
	if n.generation != 0 && r.Generation != 0 {
		return n.generation != r.Generation
	}
	begins := len(r.CgroupNames) > 0 || r.Fact.Runtime || r.Fact.Kind == behavior.Process && r.Fact.Parent == ""
	if !begins {
		return false
	}
	p, sure := c.locate(r)
	if p.container == "" || p.container == n.place.container || c.holds(n) {
		return false
	}
	if n.unplaced(c.steady()) {
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
	p = placeIn(r.CgroupNames)
	if p.pod != "" && p.container != "" {
		return p, true
	}
	if ns, err := c.proc.mountNSOf(r.PID); err == nil && ns == r.MountNS {
		p, err := c.proc.placeOf(r.PID)
		// Else the number was given to another process meanwhile.
		if ns, again := c.proc.mountNSOf(r.PID); err == nil && again == nil && ns == r.MountNS {
			return p, true
		}
	}
	// The names go up to the root. A pod's container is always below its pod; where
	// they are no container's at all, it is one of the host.
	return p, p.container != "" && len(r.CgroupNames) > 1 || p == place{} && len(r.CgroupNames) > 0
}

// placeIn is the place that a record's names of control groups come to.
func placeIn(names []string) (p place) {
	// From leaf to root, one hierarchy after the other; a container may make
	// groups below its own, so the last name that looks right counts.
	for _, name := range names {
		named := parseCgroup(name)
		p.pod, p.container = cmp.Or(named.pod, p.pod), cmp.Or(named.container, p.container)
	}
	return p
}

// move follows the process that made a namespace into its control group: runtimes
// move it there after they made the namespaces.
func (c *Collector) move(n *namespace, r Record) {
	if n.container != nil || n.place.container != "" || n.generation == 0 || n.generation != r.Generation {
		return // isOther does it where the kernel tells no generations
	}
	if p := placeIn(r.CgroupNames); p.pod != "" && p.container != "" && !c.holds(n) {
		n.place, n.sure, n.foreign = p, true, false
	}
}

func (c *Collector) meet(number uint32) *namespace {
	n := &namespace{number: number, since: c.steady()}
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
	n.container, n.foreign, n.stranger = k, false, nil
	c.acquaint(k)
	if !n.ended {
		k.to, k.terminated = time.Time{}, false
	}
	if isNew && from.Equal(c.attached) && info.started.After(c.hole.First) && !c.hole.Last.IsZero() {
		k.lose(restartReason, 1, info.started, c.hole.Last)
	}
	if isNew || k.restored {
		c.snapshots, k.restored = append(c.snapshots, k), false
	}
	pending := n.pending
	c.drop(n)
	for _, r := range pending {
		c.keep(n, r)
	}
	for reason, l := range n.lost {
		k.lose(reason, l.count, l.span.First, l.span.Last)
	}
	n.lost = nil
	c.keepSyscalls(n, c.now())
	c.claim(n)
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
		k.lose("path longer than the probe can follow", 1, r.Time, r.Time)
		return
	}
	if r.Unresolved {
		return // the probe counts it: half a name is no path either
	}
	if err := r.Fact.Validate(); err != nil {
		k.lose("malformed record", 1, r.Time, r.Time)
		return
	}
	origin, known := c.originOf(n, r)
	if !known && len(r.Entered) > 0 {
		origin, known = k.info.origin(r.Entered), true
	}
	if !known {
		c.await(n, r)
		return
	}
	r.Fact.Origin = origin
	if r.Fact.Runtime {
		r.Fact.Path = withoutPID(r.Fact.Path)
	}
	if r.Fact.Kind == behavior.DNS {
		k.hear(r.Fact.Name, r.Answers, r.Time)
	}
	if r.Fact.Kind == behavior.Process && r.Fact.Parent == "" && r.Session == 0 && k.info.started.After(c.attached) && !n.late {
		k.start = true
	}
	if c.name(k, &r) {
		c.state(k, r)
	}
}

// state adds the record's fact to a container.
func (c *Collector) state(k *container, r Record) {
	o := sighting{fact: r.Fact, id: r.ID, at: r.Time}
	if r.Fact.Kind != behavior.Process { // whose parent is a part of it
		o.parent, o.hasParent = r.Parent, r.HasParent
	}
	c.store.add(k, o)
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
