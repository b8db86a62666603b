package behavior

import (
	"fmt"
	"maps"
	"slices"
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
	// Lost counts facts that were seen to be lost, by node and reason, such as
	// "node-1: ring buffer full".
	Lost map[string]uint64 `json:"lost,omitempty"`
	// Gaps say in words, sorted, what could not be observed at all.
	Gaps []string `json:"gaps,omitempty"`
}

// PodCoverage is what was observed of one pod's container.
type PodCoverage struct {
	Node  string    `json:"node,omitempty"`
	Image string    `json:"image,omitempty"` // with its digest
	From  time.Time `json:"from"`            // UTC, whole seconds
	To    time.Time `json:"to"`
	Start bool      `json:"start,omitempty"` // the container's start was observed
}

// MergeCoverage joins two coverages of one subject; it shares no memory with
// them.
func MergeCoverage(a, b Coverage) Coverage {
	m := Coverage{Replicas: max(a.Replicas, b.Replicas)}
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
				Start: old.Start || p.Start,
			}
		}
		for reason, n := range c.Lost {
			if m.Lost == nil {
				m.Lost = map[string]uint64{}
			}
			m.Lost[reason] = max(m.Lost[reason], n)
		}
		m.Gaps = append(m.Gaps, c.Gaps...)
	}
	slices.Sort(m.Gaps)
	m.Gaps = slices.Compact(m.Gaps)
	return m
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
