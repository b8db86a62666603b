//go:build linux

package collector

import (
	"cmp"
	"maps"
	"slices"
	"time"
	"unique"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
)

// Limits bound what the collector keeps.
type Limits struct {
	// ContainerFacts and TotalFacts bound the facts of one container and of the
	// node.
	ContainerFacts, TotalFacts int
	// ReservedFacts are each container's own: what containers have beyond that
	// is at most SharedFacts together, so that one that floods takes no room
	// from another's.
	ReservedFacts, SharedFacts int
	// PendingRecords and TotalPending bound the records of one mount namespace
	// and of all whose container is not known yet; ReservedPending of them are
	// each namespace's own.
	PendingRecords, TotalPending, ReservedPending int
}

// DefaultLimits keep a collector below about 300 MB. The rest of 400,000 facts
// beyond the shared ones is what 150 containers have for their own.
func DefaultLimits() Limits {
	return Limits{
		ContainerFacts: wire.MaxFacts, TotalFacts: 400_000, ReservedFacts: 1024, SharedFacts: 250_000,
		PendingRecords: 8192, TotalPending: 65536, ReservedPending: 128,
	}
}

// factKey stands for a fact. Containers that did the same share it: replicas of a
// workload do nearly everything alike.
type factKey = unique.Handle[behavior.Fact]

// entry is one fact of one container.
type entry struct {
	fact        factKey
	count       uint64
	first, last time.Time
	parents     []string // as in behavior.Evidence
	snapshot    bool     // as in behavior.Evidence
	revisions
}

// revisions are those of the last change of something, and of the last that was
// more than a count.
type revisions struct{ revision, news uint64 }

// latest gives one of the two.
func (r revisions) latest(newsOnly bool) uint64 {
	if newsOnly {
		return r.news
	}
	return r.revision
}

// sighting is one time that a fact was seen.
type sighting struct {
	fact behavior.Fact
	id   uint64 // of the kernel's key; zero for none
	at   time.Time
	// parent's executable, where hasParent says that somebody looked.
	parent    string
	hasParent bool
	snapshot  bool // found as something that was there
}

// counted is what one kernel key has added to its entry so far. Several keys may
// be the same fact, such as a file that was replaced under its name.
type counted struct {
	entry     *entry
	container *container
	count     uint64
}

// store holds the facts of all containers. It is not safe for concurrent use.
type store struct {
	limits     Limits
	containers map[string]*container // by ID
	ids        map[uint64]*counted   // by the kernel's ID of the fact
	revision   uint64
	facts      int
	shared     int     // of the facts, those beyond what their containers have for their own
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
		c = &container{info: info, from: from, entries: map[factKey]*entry{}}
		for _, other := range s.containers {
			if other.info.uid == info.uid && other.info.name == info.name {
				c.restarts = max(c.restarts, other.restarts+1)
			}
		}
		s.containers[info.id] = c
	}
	return c, !ok
}

// room tells why there is no room for one more fact of the container; empty when
// there is.
func (s *store) room(c *container) string {
	switch {
	case len(c.entries) >= s.limits.ContainerFacts:
		return "limit of facts of a container"
	case s.facts >= s.limits.TotalFacts,
		len(c.entries) >= s.limits.ReservedFacts && s.shared >= s.limits.SharedFacts:
		return "limit of facts of a node"
	}
	return ""
}

// add states a fact of a container. It tells whether the fact is new.
func (s *store) add(c *container, o sighting) bool {
	key := unique.Make(o.fact)
	e, known := c.entries[key]
	if !known {
		if full := s.room(c); full != "" {
			c.lose(full, 1, o.at, o.at)
			return false
		}
		e = &entry{fact: key, first: o.at, last: o.at, snapshot: o.snapshot}
		c.entries[key] = e
		s.facts++
		if len(c.entries) > s.limits.ReservedFacts {
			s.shared++
		}
		s.noteFresh(o.at)
		c.noteNew(o)
	}
	news := !known || e.snapshot && !o.snapshot
	if o.at.Before(e.first) {
		e.first = o.at
	}
	if o.at.After(e.last) {
		e.last = o.at
	}
	e.snapshot = e.snapshot && o.snapshot
	if o.hasParent && len(e.parents) < behavior.MaxParents {
		if i, found := slices.BinarySearch(e.parents, o.parent); !found {
			e.parents, news = slices.Insert(slices.Clip(e.parents), i, o.parent), true
		}
	}
	switch {
	case o.id == 0:
		e.count = max(e.count, 1)
	case s.ids[o.id] == nil:
		s.ids[o.id] = &counted{entry: e, container: c, count: 1}
		e.count++
	}
	s.touch(c, e, news)
	return !known
}

// touch makes the entry the newest change.
func (s *store) touch(c *container, e *entry, news bool) {
	s.revision++
	e.revision, c.revision = s.revision, s.revision
	if news {
		e.news, c.news = s.revision, s.revision
	}
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
	s.touch(k.container, k.entry, false)
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

// change is one entry that changed at a revision.
type change struct {
	container *container
	entry     *entry
	revision  uint64
}

// changes lists what changed after a revision, oldest first, of containers that
// the filter takes; in more than a count, if newsOnly.
func (s *store) changes(since uint64, take func(*container) bool, newsOnly bool) []change {
	var list []change
	for _, c := range s.containers {
		if c.latest(newsOnly) <= since || !take(c) {
			continue
		}
		for _, e := range c.entries {
			if revision := e.latest(newsOnly); revision > since {
				list = append(list, change{c, e, revision})
			}
		}
	}
	slices.SortFunc(list, func(a, b change) int { return cmp.Compare(a.revision, b.revision) })
	return list
}

// wire states the entry as an observation.
func (e *entry) wire() wire.Observation {
	return wire.Observation{
		Fact: e.fact.Value(), Count: e.count, First: e.first.UTC(), Last: e.last.UTC(),
		Parents: slices.Clone(e.parents), Snapshot: e.snapshot,
	}
}
