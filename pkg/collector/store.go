//go:build linux

package collector

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
)

// Limits bound what the collector keeps.
type Limits struct {
	// ContainerFacts and TotalFacts bound the facts of one container and of the
	// node. A fact takes about 500 bytes with its strings.
	ContainerFacts, TotalFacts int
	// PendingRecords and TotalPending bound the records of one mount namespace
	// and of all whose container is not known yet.
	PendingRecords, TotalPending int
}

// DefaultLimits keep a collector below about 300 MB.
func DefaultLimits() Limits {
	return Limits{ContainerFacts: wire.MaxFacts, TotalFacts: 400_000, PendingRecords: 8192, TotalPending: 65536}
}

// entry is one fact of one container.
type entry struct {
	fact        behavior.Fact
	count       uint64
	first, last time.Time
	revision    uint64
}

// counted is what one kernel key has added to its entry so far. Several keys may
// be the same fact, such as a file that was replaced under its name.
type counted struct {
	entry     *entry
	container *container
	count     uint64
}

// container is everything that is known of one container.
type container struct {
	info    containerInfo
	from    time.Time
	to      time.Time // zero while it runs
	start   bool      // its first program was seen to start
	entries map[behavior.Fact]*entry
	lost    map[string]uint64
	linkers linkers
}

func (c *container) lose(reason string, n uint64) {
	if n == 0 {
		return
	}
	if c.lost == nil {
		c.lost = map[string]uint64{}
	}
	c.lost[reason] += n
}

// store holds the facts of all containers. It is not safe for concurrent use.
type store struct {
	limits     Limits
	containers map[string]*container // by ID
	ids        map[uint64]*counted   // by the kernel's ID of the fact
	revision   uint64
	facts      int
	recent     []fresh // when facts were new, the last 10 seconds
}

// fresh counts new facts of one second.
type fresh struct {
	second int64
	facts  uint64
}

func newStore(limits Limits) *store {
	return &store{limits: limits, containers: map[string]*container{}, ids: map[uint64]*counted{}}
}

// container finds the container or begins it, observed from the given time.
func (s *store) container(info containerInfo, from time.Time) (c *container, isNew bool) {
	c, ok := s.containers[info.id]
	if !ok {
		c = &container{info: info, from: from, entries: map[behavior.Fact]*entry{}}
		s.containers[info.id] = c
	}
	return c, !ok
}

// add states a fact of a container. An id of 0 is no kernel key. It tells whether
// the fact is new.
func (s *store) add(c *container, f behavior.Fact, id uint64, at time.Time) bool {
	e, known := c.entries[f]
	if !known {
		if len(c.entries) >= s.limits.ContainerFacts {
			c.lose("limit of facts of a container", 1)
			return false
		}
		if s.facts >= s.limits.TotalFacts {
			c.lose("limit of facts of a node", 1)
			return false
		}
		e = &entry{fact: f, first: at, last: at}
		c.entries[f] = e
		s.facts++
		s.noteFresh(at)
	}
	if at.Before(e.first) {
		e.first = at
	}
	if at.After(e.last) {
		e.last = at
	}
	if id == 0 {
		e.count = max(e.count, 1)
	} else if s.ids[id] == nil {
		s.ids[id] = &counted{entry: e, container: c, count: 1}
		e.count++
	}
	s.touch(e)
	return !known
}

// touch makes the entry the newest change.
func (s *store) touch(e *entry) {
	s.revision++
	e.revision = s.revision
}

// count takes over how often the kernel saw one key.
func (s *store) count(id, count uint64, first, last time.Time) {
	k := s.ids[id]
	if k == nil || count <= k.count && !last.After(k.entry.last) {
		return
	}
	if count > k.count {
		k.entry.count += count - k.count
		k.count = count
	}
	if last.After(k.entry.last) {
		k.entry.last = last
	}
	if !first.IsZero() && first.Before(k.entry.first) {
		k.entry.first = first
	}
	s.touch(k.entry)
}

// forgetIDs drops the kernel keys of a container whose namespaces are gone: their
// numbers may be given out again.
func (s *store) forgetIDs(c *container) {
	maps.DeleteFunc(s.ids, func(_ uint64, k *counted) bool { return k.container == c })
}

func (s *store) noteFresh(at time.Time) {
	second := at.Unix()
	for i := range s.recent {
		if s.recent[i].second == second {
			s.recent[i].facts++
			return
		}
	}
	s.recent = append(s.recent, fresh{second, 1})
	if len(s.recent) > 32 {
		slices.SortFunc(s.recent, func(a, b fresh) int { return cmp.Compare(b.second, a.second) })
		s.recent = s.recent[:16]
	}
}

// freshFacts counts the facts that were new in the 10 seconds before now.
func (s *store) freshFacts(now time.Time) uint64 {
	var n uint64
	for _, r := range s.recent {
		if r.second > now.Unix()-10 && r.second <= now.Unix() {
			n += r.facts
		}
	}
	return n
}

// change is one entry for the wire.
type change struct {
	container string // ID
	entry     entry
}

// changes lists what changed after a revision, oldest first, of containers that
// the filter takes.
func (s *store) changes(since uint64, take func(*container) bool) []change {
	var list []change
	for _, c := range s.containers {
		if !take(c) {
			continue
		}
		for _, e := range c.entries {
			if e.revision > since {
				list = append(list, change{c.info.id, *e})
			}
		}
	}
	slices.SortFunc(list, func(a, b change) int { return cmp.Compare(a.entry.revision, b.entry.revision) })
	return list
}

// wire describes the container without its facts. All text is escaped:
// an image's name is what a person wrote into a pod.
func (c *container) wire(now time.Time) wire.Container {
	to := c.to
	if to.IsZero() {
		to = now
	}
	lost := maps.Clone(c.lost)
	if n := len(c.linkers.unknown); n > 0 {
		if lost == nil {
			lost = map[string]uint64{}
		}
		lost["dynamic linker of a program that was gone"] = uint64(n)
	}
	return wire.Container{
		Namespace: behavior.Escape(c.info.namespace), Pod: behavior.Escape(c.info.pod), UID: behavior.Escape(c.info.uid),
		Name: behavior.Escape(c.info.name), ID: behavior.Escape(c.info.id), Image: behavior.Escape(c.info.image),
		From: c.from.UTC(), To: to.UTC(), Start: c.start, Lost: lost,
	}
}
