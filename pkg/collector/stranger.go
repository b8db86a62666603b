//go:build linux

package collector

import (
	"cmp"
	"slices"
	"time"
)

// maxStrangers bounds the strangers of a node; a pod has one, rarely more.
const maxStrangers = 4096

// strangerReason is the loss of a container that was named after its records were
// given up.
const strangerReason = "records before the container was known"

// stranger is a container of one of the node's pods that the API server has not
// named in time. One of each pod is its sandbox, which nobody ever names. Another
// may be a container that was gone before the kubelet told of it, or that was
// started while the API server was away.
type stranger struct {
	pod, id string
	since   time.Time
	ended   time.Time // zero while it runs
	missed  loss      // its records
}

// estrange gives up the records of a namespace whose container is not named. What
// is of no pod of this node is nobody's loss.
func (c *Collector) estrange(n *namespace, now time.Time) {
	defer c.drop(n)
	if known, _ := c.pods.pod(n.place.pod); !known || n.place.container == "" {
		return
	}
	s := c.strangers[n.place.container]
	if s == nil {
		if len(c.strangers) >= maxStrangers {
			c.unattributed += n.waiting()
			return
		}
		s = &stranger{pod: n.place.pod, id: n.place.container, since: n.since}
		c.strangers[s.id] = s
	}
	for _, r := range n.pending {
		s.miss(r)
	}
	for _, l := range n.lost {
		s.missed = loss{s.missed.count + l.count, extend(s.missed.span, l.span.First, l.span.Last)}
	}
	s.ended = time.Time{}
	if n.ended {
		s.ended = now
	}
	n.stranger = s
}

func (s *stranger) miss(r Record) {
	s.missed = loss{s.missed.count + 1, extend(s.missed.span, r.Time, r.Time)}
}

// acquaint takes over what was missed of a container that has a name now.
func (c *Collector) acquaint(k *container) {
	s := c.strangers[k.info.id]
	if s == nil {
		return
	}
	delete(c.strangers, s.id)
	k.lose(strangerReason, s.missed.count, s.missed.span.First, s.missed.span.Last)
}

// acquaintAll looks for those that are gone and have a name by now.
func (c *Collector) acquaintAll() {
	for id, s := range c.strangers {
		info, ok := c.pods.container(id)
		if !ok || s.ended.IsZero() {
			continue // resolve does it for one that runs
		}
		from := c.attached
		if info.started.After(from) {
			from = info.started
		}
		k, isNew := c.store.container(info, from)
		if isNew {
			k.to, k.terminated = cmp.Or(info.finished, c.now()), true
		}
		c.acquaint(k)
	}
}

// strange counts records of containers that no pod names: of each pod those of all
// strangers but the one that is its sandbox, the first that goes on with its pod.
func (c *Collector) strange(now time.Time) uint64 {
	all := map[string][]stranger{}
	for _, s := range c.strangers {
		all[s.pod] = append(all[s.pod], *s)
	}
	// Those that may still be named are strangers too, so far.
	add := func(n *namespace) {
		if n.container != nil || n.stranger != nil || n.place.container == "" || c.judge(n, now) != wait {
			return
		}
		if known, _ := c.pods.pod(n.place.pod); known {
			all[n.place.pod] = append(all[n.place.pod], stranger{id: n.place.container, since: n.since, missed: loss{count: n.waiting()}})
		}
	}
	for _, n := range c.spaces {
		add(n)
	}
	for _, n := range c.limbo {
		add(n)
	}
	var total uint64
	for pod, list := range all {
		slices.SortFunc(list, func(a, b stranger) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.id, b.id)) })
		sandbox := ""
		for _, s := range list {
			left := !s.ended.IsZero() && now.Sub(s.ended) >= podGrace && !c.pods.isOver(pod)
			if sandbox == "" && !left {
				sandbox = s.id
			}
			if s.id != sandbox {
				total += s.missed.count
			}
		}
	}
	return total
}
