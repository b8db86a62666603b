package cluster

import (
	"hash/maphash"
	"slices"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
)

// rateSpan is the time over which new facts are counted.
const rateSpan = time.Minute

// novelty tells when a workload last did something that none of its pods had done
// before. What another replica did already is nothing new.
type novelty struct {
	entered bool
	seed    maphash.Seed
	known   map[uint64]struct{} // subject and fact; 8 bytes each instead of 500
	last    time.Time           // when something new came, or the beginning
	who     behavior.Subject    // did it
	since   time.Time           // nothing new came since then, while all was observed
	recent  []mark              // new facts of each round of the last minute
}

func newNovelty(begin time.Time, entered bool) *novelty {
	return &novelty{entered: entered, seed: maphash.MakeSeed(), known: map[uint64]struct{}{}, last: begin, since: begin}
}

// add takes a fact, resolved, that came now. What a runtime did is no behaviour
// of the workload, nor, unless asked for, what entered it.
func (n *novelty) add(s behavior.Subject, f behavior.Fact, now time.Time) {
	if f.Runtime || !f.Own() && !n.entered {
		return
	}
	key := maphash.Comparable(n.seed, struct {
		behavior.Subject
		behavior.Fact
	}{s, f})
	if _, ok := n.known[key]; ok {
		return
	}
	n.known[key] = struct{}{}
	n.last, n.since, n.who = now, now, s
	if len(n.recent) > 0 && n.recent[len(n.recent)-1].at.Equal(now) {
		n.recent[len(n.recent)-1].facts++
		return
	}
	n.recent = append(n.recent, mark{now, 1})
}

// complete says whether all is being observed. Silence counts only while it is.
func (n *novelty) complete(now time.Time, all bool) {
	if !all {
		n.since = now
	}
}

// rate is how many new facts came in the last minute.
func (n *novelty) rate(now time.Time) int {
	n.recent = slices.DeleteFunc(n.recent, func(m mark) bool { return now.Sub(m.at) >= rateSpan })
	sum := 0
	for _, m := range n.recent {
		sum += m.facts
	}
	return sum
}

// novel hands what was pulled since the last time to the novelty.
func (s *Source) novel(news *novelty, now time.Time) {
	for _, n := range s.list() {
		n.mu.Lock()
		fresh := n.fresh
		n.fresh = nil
		n.mu.Unlock()
		s.picture.mu.Lock()
		for _, f := range fresh {
			if f.namespace != s.options.Namespace {
				continue
			}
			w, _, ok := s.picture.topology.Workload(f.namespace, f.pod)
			if !ok {
				w = behavior.Workload{Namespace: f.namespace, Kind: "Pod", Name: f.pod}
			}
			for _, resolved := range s.picture.topology.Resolve(f.fact, f.namespace, f.pod, f.last) {
				news.add(behavior.Subject{Workload: w, Container: f.container}, resolved, now)
			}
		}
		s.picture.mu.Unlock()
	}
}

// unseen lists the pods of the namespace that run and that no node told of yet,
// sorted.
func (s *Source) unseen() []string {
	told := map[string]bool{}
	for _, n := range s.list() {
		n.mu.Lock()
		for _, k := range n.containers {
			if k.Namespace == s.options.Namespace {
				told[k.Pod] = true
			}
		}
		n.mu.Unlock()
	}
	s.picture.mu.Lock()
	defer s.picture.mu.Unlock()
	var list []string
	for key := range s.picture.there {
		if key.namespace == s.options.Namespace && s.picture.seen[key].running && !told[key.name] {
			list = append(list, key.name)
		}
	}
	slices.Sort(list)
	return list
}

// blind tells whether one of the nodes runs pods of the namespace.
func (s *Source) blind(failing []source.NodeError) bool {
	s.picture.mu.Lock()
	defer s.picture.mu.Unlock()
	for key := range s.picture.there {
		node := s.picture.seen[key].node()
		if key.namespace == s.options.Namespace && slices.ContainsFunc(failing, func(e source.NodeError) bool { return e.Node == node }) {
			return true
		}
	}
	return false
}
