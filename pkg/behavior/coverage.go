package behavior

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Coverage says how much of the truth about a container a profile can claim to
// hold. Like Evidence it only grows when merged.
type Coverage struct {
	// Pods that were observed, by name.
	Pods map[string]PodCoverage `json:"pods,omitempty"`
	// Replicas is the number of pods that the workload had while it was
	// observed, the highest if it changed. More replicas than pods means that
	// some were never seen.
	Replicas int `json:"replicas,omitempty"`
	// Lost counts facts that were seen to be lost, by node (or pod) and reason,
	// such as "node-1: ring buffer full"; LostAt says when, for the same keys.
	Lost   map[string]uint64 `json:"lost,omitempty"`
	LostAt map[string]Span   `json:"lostAt,omitempty"`
	// Gaps say in words, sorted, what could not be observed at all.
	Gaps []string `json:"gaps,omitempty"`
	// Hooks are the families of kernel hooks that observed each kind of fact,
	// sorted: tracepoint, fentry, kprobe, cgroup, snapshot; or the source where
	// that has none of ours: hubble, kubearmor. A kind that is not among them was
	// not observed.
	Hooks map[Kind][]string `json:"hooks,omitempty"`
	// Maps are the kernel maps' high-water marks, by node and map, such as
	// "node-1: files".
	Maps map[string]MapUse `json:"maps,omitempty"`
	// Mounts are what was mounted in the container, by the path where.
	Mounts map[string]Mount `json:"mounts,omitempty"`
	// Spec is what the workload's newest observed pod was allowed to do by its
	// specification; nil where nobody looked. It is shared, and never changed.
	Spec *SeenSpec `json:"spec,omitempty"`
}

// PodCoverage is what was observed of one pod's container.
type PodCoverage struct {
	Node  string    `json:"node,omitempty"`
	Image string    `json:"image,omitempty"` // with its digest
	From  time.Time `json:"from"`            // UTC, whole seconds
	To    time.Time `json:"to"`
	Start bool      `json:"start,omitempty"` // the container's start was observed
	// Traffic: its traffic was observed since the pod was made, by a source that
	// sees nothing else of it.
	Traffic bool `json:"traffic,omitempty"`
	// Ready, Steady and Terminated: the container was observed becoming ready,
	// being ready for SteadyAfter without a new fact, and ending.
	Ready      bool `json:"ready,omitempty"`
	Steady     bool `json:"steady,omitempty"`
	Terminated bool `json:"terminated,omitempty"`
	// Restarts of the container that were observed.
	Restarts int `json:"restarts,omitempty"`
	// Held are the capabilities that its processes had when it was found running,
	// sorted: which of them they had used before, nobody saw. They are no facts,
	// since what is granted is not yet used, and no policy is to allow it for that.
	Held []string `json:"held,omitempty"`
}

// SteadyAfter is how long a ready container must do nothing new before what was
// seen of it counts as its steady state. Five minutes cover the usual probe,
// reconnect and cache intervals; a nightly job it cannot cover.
const SteadyAfter = 5 * time.Minute

// UnattributedReason is the reason, after the node's name, under which Lost counts
// what was seen in containers that no pod names.
const UnattributedReason = "containers that no pod names"

// Unattributed counts what was seen in containers that no pod names.
func (c Coverage) Unattributed() uint64 {
	var n uint64
	for reason, count := range c.Lost {
		if strings.HasSuffix(reason, ": "+UnattributedReason) {
			n += count
		}
	}
	return n
}

// Span is from when to when something happened, UTC, whole seconds.
type Span struct {
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// MapUse is how full a kernel map has been at most.
type MapUse struct {
	High uint64 `json:"high"` // entries
	Size uint64 `json:"size"` // entries that fit
}

// Mount is one mount in a container: a volume of its pod, or what its runtime
// puts there.
type Mount struct {
	Volume   string `json:"volume,omitempty"` // name in the pod's specification; empty for the runtime's
	Kind     string `json:"kind,omitempty"`   // of the volume: emptyDir, secret, hostPath, ...; else the file system's type
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// MountOf finds the mount that an absolute, escaped path is in, and where that
// is; false for the container's root file system.
func (c Coverage) MountOf(path string) (string, Mount, bool) {
	for at := path; len(at) > 1; at = at[:max(1, strings.LastIndexByte(at, '/'))] {
		if m, ok := c.Mounts[at]; ok {
			return at, m, true
		}
		if strings.LastIndexByte(at, '/') < 0 {
			break
		}
	}
	return "/", Mount{}, false
}

// MergeCoverage joins two coverages of one subject; it shares no memory with
// them.
func MergeCoverage(a, b Coverage) Coverage {
	m := Coverage{Replicas: max(a.Replicas, b.Replicas), Spec: newer(a.Spec, b.Spec)}
	for _, c := range []Coverage{a, b} {
		for name, p := range c.Pods {
			if m.Pods == nil {
				m.Pods = map[string]PodCoverage{}
			}
			old, ok := m.Pods[name]
			if !ok {
				old = p
			}
			m.Pods[name] = PodCoverage{
				Node: max(old.Node, p.Node), Image: max(old.Image, p.Image),
				From: earlier(old.From, p.From), To: later(old.To, p.To),
				Start: old.Start || p.Start, Traffic: old.Traffic || p.Traffic, Ready: old.Ready || p.Ready, Steady: old.Steady || p.Steady,
				Terminated: old.Terminated || p.Terminated, Restarts: max(old.Restarts, p.Restarts),
				Held: union(old.Held, p.Held),
			}
		}
		for reason, n := range c.Lost {
			if m.Lost == nil {
				m.Lost = map[string]uint64{}
			}
			m.Lost[reason] = max(m.Lost[reason], n)
		}
		m.Gaps = append(m.Gaps, c.Gaps...)
		m.LostAt = join(m.LostAt, c.LostAt, func(a, b Span) Span { return Span{earlier(a.First, b.First), later(a.Last, b.Last)} })
		m.Hooks = join(m.Hooks, c.Hooks, union)
		m.Maps = join(m.Maps, c.Maps, func(a, b MapUse) MapUse { return MapUse{max(a.High, b.High), max(a.Size, b.Size)} })
		m.Mounts = join(m.Mounts, c.Mounts, func(a, b Mount) Mount {
			return Mount{max(a.Volume, b.Volume), max(a.Kind, b.Kind), a.ReadOnly && b.ReadOnly}
		})
	}
	slices.Sort(m.Gaps)
	m.Gaps = slices.Compact(m.Gaps)
	return m
}

// join puts b's entries into a, which it may change; nil when both are empty.
func join[K comparable, V any](a, b map[K]V, both func(V, V) V) map[K]V {
	for k, v := range b {
		if a == nil {
			a = map[K]V{}
		}
		old, ok := a[k]
		if !ok {
			old = v
		}
		a[k] = both(old, v)
	}
	return a
}

// Shortfalls say in words what keeps the coverage from being complete as an
// observation: pods that were not seen, facts that were lost, gaps. It is empty
// when nothing is known to be missing. Sorted by weight, then by text.
func (c Coverage) Shortfalls() []string {
	var s []string
	if len(c.Pods) == 0 {
		s = append(s, "no pod was observed")
	} else if len(c.Pods) < c.Replicas {
		s = append(s, fmt.Sprintf("%d of %d pods observed", len(c.Pods), c.Replicas))
	}
	for _, reason := range slices.Sorted(maps.Keys(c.Lost)) {
		if n := c.Lost[reason]; n > 0 {
			s = append(s, fmt.Sprintf("%d facts lost (%s)", n, reason))
		}
	}
	return append(s, c.Gaps...)
}

// Milestones are the parts of the container's life that were observed in some pod,
// in their order: start, ready, steady, restart, end. They only become more.
func (c Coverage) Milestones() []string {
	var all PodCoverage
	for _, p := range c.Pods {
		all.Start, all.Ready, all.Steady = all.Start || p.Start, all.Ready || p.Ready, all.Steady || p.Steady
		all.Terminated, all.Restarts = all.Terminated || p.Terminated, max(all.Restarts, p.Restarts)
	}
	var list []string
	for _, m := range []struct {
		seen bool
		name string
	}{{all.Start, "start"}, {all.Ready, "ready"}, {all.Steady, "steady"}, {all.Restarts > 0, "restart"}, {all.Terminated, "end"}} {
		if m.seen {
			list = append(list, m.name)
		}
	}
	return list
}

// Starts is the number of observed pods whose start was seen.
func (c Coverage) Starts() int {
	n := 0
	for _, p := range c.Pods {
		if p.Start {
			n++
		}
	}
	return n
}

// CurrentImage is the image of the container in the pod that was observed last,
// and of those the one that was found last; empty where no image is known.
func (c Coverage) CurrentImage() string {
	var best PodCoverage
	for _, p := range c.Pods {
		later := p.To.Compare(best.To)
		if later == 0 {
			later = p.From.Compare(best.From)
		}
		if p.Image != "" && (best.Image == "" || later > 0 || later == 0 && p.Image > best.Image) {
			best = p
		}
	}
	return best.Image
}
