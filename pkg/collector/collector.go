//go:build linux

package collector

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
)

// Options say what a Collector is to do. The zero values of Proc, Limits and Now
// mean /proc, DefaultLimits and time.Now.
type Options struct {
	Node     string // its own node's name
	Version  string
	Epoch    string // differs from every other start's
	Deadline time.Time
	Proc     string
	Limits   Limits
	Now      func() time.Time
	// Steady is Now without the steps that are made when somebody sets the clock.
	Steady func() time.Time
	// API lists the pods of the node.
	API dynamic.Interface
	// Keep is the file in which the profile outlives the program; none when empty.
	Keep string
}

// Collector gives records to containers. It is safe for concurrent use.
type Collector struct {
	options  Options
	probe    Probe
	proc     proc
	pods     *pods
	now      func() time.Time
	steady   func() time.Time
	attached time.Time
	home     map[uint32]bool // mount namespaces of the host and of the collector

	lookups chan lookup
	keeper  keeper

	mu           sync.Mutex
	store        *store
	spaces       map[uint32]*namespace
	limbo        []*namespace
	ignored      map[uint32]place
	strangers    map[string]*stranger // by container ID
	orphans      map[tenure]time.Time
	past         map[tenure]*namespace // that have ended
	ahead        time.Duration         // of the clock, before the steady one
	snapshots    []*container
	nameless     []nameless
	pending      int
	unattributed uint64
	lost         map[string]loss // that no container is known for
	told         told
	hole         behavior.Span     // in which no collector ran; the zero one when it is the first
	problems     map[string]string // what goes wrong just now, by activity
}

// New makes a Collector of a probe that is attached already.
func New(probe Probe, o Options) (*Collector, error) {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Limits == (Limits{}) {
		o.Limits = DefaultLimits()
	}
	if o.Steady == nil {
		if o.Steady = o.Now; o.Now == nil {
			began := time.Now()
			o.Steady = func() time.Time { return began.Add(time.Since(began)) }
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Collector{
		options: o, probe: probe, proc: proc{o.Proc}, pods: newPods(), now: o.Now, steady: o.Steady, attached: o.Now(),
		lookups: make(chan lookup, 4096), home: map[uint32]bool{},
		store: newStore(o.Limits), spaces: map[uint32]*namespace{}, ignored: map[uint32]place{}, strangers: map[string]*stranger{}, orphans: map[tenure]time.Time{}, past: map[tenure]*namespace{},
		lost: map[string]loss{}, keeper: keeper{path: o.Keep}, problems: map[string]string{},
	}
	c.told.at = c.attached
	for _, pid := range []string{"1", "self"} {
		ns, err := c.proc.namedMountNS(pid)
		if errors.Is(err, fs.ErrPermission) && pid == "1" {
			continue // it may do more than we; what shares its namespace is found to be the host's
		}
		if err != nil {
			return nil, fmt.Errorf("find mount namespace of process %s: %w", pid, err)
		}
		c.home[ns] = true
		if err := probe.Ignore(ns); err != nil {
			return nil, fmt.Errorf("ignore the host's processes: %w", err)
		}
	}
	if o.Keep != "" {
		c.problem("restore profile", c.restore())
	}
	return c, nil
}

// Periods of the collector's rounds.
const (
	scanEvery  = time.Second      // so that a mount namespace's number is not reused unnoticed
	countEvery = 10 * time.Second // Pull refreshes by itself
)

// Run collects until the context ends, which is no error.
func (c *Collector) Run(ctx context.Context) error {
	// What is there already must be known before what begins: see holds.
	c.problem("scan processes", c.scan())
	outer := ctx
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := c.probe.Run(ctx, c.record)
		if err == nil && ctx.Err() == nil {
			return errors.New("probe ended by itself")
		}
		return err
	})
	group.Go(func() error {
		c.pods.watch(ctx, c.options.API, c.options.Node)
		return nil
	})
	group.Go(func() error { return c.rounds(ctx) })
	group.Go(func() error { return c.interpreters(ctx) })
	group.Go(func() error {
		c.nameOften(ctx)
		return nil
	})
	group.Go(func() error {
		c.saveOften(ctx)
		return nil
	})
	err := group.Wait()
	c.release(true)
	if keepErr := c.save(true); err == nil {
		err = keepErr
	}
	if err != nil && outer.Err() == nil {
		return err
	}
	return nil
}

// rounds scans the processes and refreshes the counts.
func (c *Collector) rounds(ctx context.Context) error {
	scan, count := time.NewTicker(scanEvery), time.NewTicker(countEvery)
	defer scan.Stop()
	defer count.Stop()
	for {
		c.problem("scan processes", c.scan())
		select {
		case <-ctx.Done():
			return nil
		case <-scan.C:
		case <-c.pods.changed:
		case <-count.C:
			c.problem("refresh counts", c.refresh())
		}
	}
}

// nameOften states the connections that have waited for a name, until the context ends.
func (c *Collector) nameOften(ctx context.Context) {
	ticker := time.NewTicker(namelessEvery)
	defer ticker.Stop()
	for {
		c.release(false)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// lose counts facts of containers that nobody can tell. The caller holds the lock.
func (c *Collector) lose(reason string, count uint64, from, to time.Time) {
	l := c.lost[reason]
	c.lost[reason] = loss{l.count + count, extend(l.span, from, to)}
}

// problem remembers what an activity ended in, for Status; nil clears it.
func (c *Collector) problem(activity string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.problems, activity)
	if err != nil {
		c.problems[activity] = behavior.Escape(fmt.Sprintf("%s: %v", activity, err))
	}
}

// refresh takes over counts and system calls from the kernel.
func (c *Collector) refresh() error {
	type count struct {
		id, n       uint64
		first, last time.Time
	}
	var counts []count
	err := c.probe.Counts(func(id, n uint64, first, last time.Time) { counts = append(counts, count{id, n, first, last}) })
	calls, callsErr := c.probe.Syscalls()
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range counts {
		c.store.count(k.id, k.n, k.first, k.last)
	}
	for ns, sets := range calls {
		n := c.spaces[ns]
		if n == nil {
			continue
		}
		n.seen, n.syscalls = true, n.of(sets)
		if n.container != nil {
			c.keepSyscalls(n, now)
		}
	}
	c.relink()
	return errors.Join(err, callsErr, c.adopt(calls))
}

// of picks the namespace's own sets out of those of all that had its number: none
// of several while no record has told which it is, since the highest generation need
// not be the latest (each processor of Linux 6.18 gives them out from its own range).
func (n *namespace) of(sets []SyscallSet) []SyscallSet {
	own := n.generation
	for i, s := range sets {
		if n.generation == 0 && i > 0 && s.Generation != own {
			return nil
		}
		if n.generation == 0 {
			own = s.Generation
		}
	}
	return slices.DeleteFunc(slices.Clone(sets), func(s SyscallSet) bool { return s.Generation != own })
}

// tenure is one mount namespace among those that have had its number.
type tenure struct{ number, generation uint32 }

// tenures are those that all that is known of the namespace is from.
func (n *namespace) tenures() []tenure {
	all := []tenure{{n.number, n.generation}}
	for _, s := range n.syscalls {
		if t := (tenure{n.number, s.Generation}); !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	return all
}

// guess takes the generation of the calls that were taken for the namespace's, of
// which no record told, and tells whether that was needed. Those may be of the next
// one of its number: it is not to be forgotten by them.
func (n *namespace) guess() bool {
	if n.generation != 0 || len(n.syscalls) == 0 || n.syscalls[0].Generation == 0 {
		return false
	}
	n.generation = n.syscalls[0].Generation
	return true
}

// maxPast bounds the namespaces that are remembered after their end.
const maxPast = 8192

// remember keeps a namespace that has ended: only a thread may be in it still, which
// no scan finds, and call on.
func (c *Collector) remember(n *namespace) {
	if n.generation != 0 && len(c.past) < maxPast {
		c.past[tenure{n.number, n.generation}] = n
	}
}

// hark takes in what was called in a namespace that has ended.
func (c *Collector) hark(n *namespace, set SyscallSet) {
	if n.foreign {
		return
	}
	n.syscalls = append(n.syscalls, set)
	if n.container != nil {
		c.keepSyscalls(n, c.now())
	}
}

// adopt counts the system calls of mount namespaces that were gone before anybody
// looked at them: whose they were, nobody can tell.
func (c *Collector) adopt(calls map[uint32][]SyscallSet) error {
	now := c.steady()
	met := map[tenure]time.Time{}
	gone := map[tenure]bool{}
	for number, sets := range calls {
		n := c.spaces[number]
		if _, ignored := c.ignored[number]; ignored || c.home[number] || n != nil && n.generation == 0 {
			continue
		}
		for _, s := range sets {
			if n != nil && n.generation == s.Generation {
				continue
			}
			key := tenure{number, s.Generation}
			since, known := c.orphans[key]
			if !known {
				since = now
			}
			met[key] = since
			if now.Sub(since) < 3*scanEvery {
				continue
			}
			gone[key] = true
			if old := c.past[key]; old != nil {
				c.hark(old, s)
			} else if !s.Runtime {
				c.lose("system calls of a mount namespace that was gone at once", uint64(len(s.Names)), c.now(), c.now())
			}
		}
	}
	c.orphans = met
	var errs []error
	for t := range gone {
		errs = append(errs, c.probe.Forget(t.number, t.generation))
	}
	return errors.Join(errs...)
}

// Status tells how the collector is doing.
func (c *Collector) Status() wire.Status {
	c.problem("read losses", c.takeLosses())
	use, err := c.probe.MapUse()
	c.problem("read use of maps", err)
	synced, problem := c.pods.state()
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := wire.Status{
		Version: c.options.Version, Epoch: c.options.Epoch, Node: behavior.Escape(c.options.Node), Ready: synced,
		Started: c.attached, Deadline: c.options.Deadline, Containers: len(c.store.containers),
		Facts: uint64(c.store.facts), NewFacts: c.store.freshFacts(now), Unattributed: c.unattributed + c.waiting(),
		Lost: map[string]uint64{}, LostAt: map[string]behavior.Span{}, Hooks: c.hooks(), Maps: use,
	}
	pods := map[string]bool{}
	for _, k := range c.store.containers {
		if len(k.entries) > 0 {
			pods[k.info.uid] = true
		}
	}
	s.Pods = len(pods)
	if n := c.pods.forgotten(); n > 0 {
		s.Lost["more pods than are remembered"] = n
	}
	for reason, l := range c.lost {
		s.Lost[behavior.Escape(reason)] += l.count
		s.LostAt[behavior.Escape(reason)] = l.span
	}
	for _, m := range c.probe.Missing() {
		s.Missing = append(s.Missing, behavior.Escape(m))
	}
	if problem != "" {
		s.Problems = append(s.Problems, behavior.Escape(problem))
	}
	for _, activity := range sortedKeys(c.problems) {
		s.Problems = append(s.Problems, c.problems[activity])
	}
	return s
}

// changes lists what changed after a revision, all containers of the namespaces,
// none of which means all, and the revision that this is the state of.
func (c *Collector) changes(since uint64, namespaces map[string]bool) ([]change, map[string]wire.Container, uint64) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	take := func(k *container) bool { return len(namespaces) == 0 || namespaces[k.info.namespace] }
	all := map[string]wire.Container{}
	for id, k := range c.store.containers {
		if take(k) {
			all[id] = k.wire(now)
		}
	}
	return c.store.changes(since, take, false), all, c.store.revision
}

// write gives changes, and then all containers by their ID, to the writer. The
// caller does not hold the lock.
func (c *Collector) write(w *wire.Writer, list []change, all map[string]wire.Container) error {
	for chunk := range slices.Chunk(list, observeAtOnce) {
		for i, o := range c.observe(chunk) {
			if err := w.Add(all[chunk[i].container.info.id], o, chunk[i].revision); err != nil {
				return err
			}
		}
	}
	for _, id := range sortedKeys(all) {
		if err := w.Touch(all[id]); err != nil {
			return err
		}
	}
	return nil
}

// observe reads entries as they are by now. The caller does not hold the lock, and
// gives few at a time.
func (c *Collector) observe(list []change) []wire.Observation {
	c.mu.Lock()
	defer c.mu.Unlock()
	observations := make([]wire.Observation, len(list))
	for i, k := range list {
		observations[i] = k.entry.wire()
	}
	return observations
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
