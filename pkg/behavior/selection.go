package behavior

import (
	"iter"
	"slices"
	"time"
)

// Selection are some of a container's facts, such as those that a rule came from.
// It refers to the Facts that it was chosen from.
type Selection struct {
	of Facts
	at []int32
}

// Select chooses the facts with these numbers, each given once. It keeps the list.
func (f Facts) Select(at []int32) Selection { return Selection{f, at} }

// Selected makes a selection of its own of facts.
func Selected(list ...Observed) Selection {
	var s Selection
	for _, o := range list {
		s.of.Add(o.Fact, o.Evidence)
	}
	for i := range int32(s.of.Len()) {
		s.at = append(s.at, i)
	}
	return s
}

// Len is the number of facts.
func (s Selection) Len() int { return len(s.at) }

// All goes over the facts with their evidence in the order of Compare.
func (s Selection) All() iter.Seq[Observed] {
	return func(yield func(Observed) bool) {
		for _, i := range s.of.ordered(slices.Clone(s.at)) {
			if !yield(Observed{s.of.At(i), s.of.evidence(i)}) {
				return
			}
		}
	}
}

// List gives the facts with their evidence in the order of Compare.
func (s Selection) List() []Observed { return slices.AppendSeq(make([]Observed, 0, s.Len()), s.All()) }

// Evidence joins the evidence of all the facts. Parents and witnesses are left out.
func (s Selection) Evidence() Evidence {
	e := Evidence{Pods: map[string]uint64{}, Snapshot: true}
	times := make([]uint64, 0, 8) // and one
	var first, last int64
	for n, i := range s.at {
		r := &s.of.records[i]
		if n == 0 {
			first, last = r.first, r.last
		}
		if none := (time.Time{}).Unix(); first == none || r.first != none {
			first = min(first, r.first)
		}
		last = max(last, r.last)
		_, snapshot := snapshotted(r.sight)
		e.Snapshot = e.Snapshot && snapshot
		for c := r.counts; c >= 0; c = s.of.counts[c].next {
			pod := int(s.of.counts[c].pod)
			for len(times) <= pod {
				times = append(times, 0)
			}
			times[pod] = max(times[pod], s.of.counts[c].times+1)
		}
	}
	e.First, e.Last = time.Unix(first, 0).UTC(), time.Unix(last, 0).UTC()
	for pod, n := range times {
		if n > 0 {
			e.Pods[s.of.pods[pod]] = n - 1
		}
	}
	return e
}

// Count is how often the facts were seen, all together, at least.
func (s Selection) Count() uint64 {
	var n uint64
	for _, i := range s.at {
		for c := s.of.records[i].counts; c >= 0; c = s.of.counts[c].next {
			n += s.of.counts[c].times
		}
	}
	return n
}

// ordered sorts numbers of facts in the order of Compare.
func (f Facts) ordered(at []int32) []int32 {
	slices.SortFunc(at, f.compare)
	return at
}

// compare is Compare of two facts by their numbers.
func (f Facts) compare(a, b int32) int {
	x, y := &f.records[a], &f.records[b]
	if x.form != y.form {
		return Compare(f.At(a), f.At(b))
	}
	switch {
	case x.path < y.path:
		return -1
	case x.path > y.path:
		return 1
	}
	return 0
}

// inOrder goes over all facts in the order of Compare.
func (f Facts) inOrder() iter.Seq[Observed] { return f.everything().All() }

// Evidence joins the evidence of all facts, as Selection.Evidence does.
func (f Facts) Evidence() Evidence { return f.everything().Evidence() }

func (f Facts) everything() Selection {
	all := make([]int32, f.Len())
	for i := range all {
		all[i] = int32(i)
	}
	return f.Select(all)
}
