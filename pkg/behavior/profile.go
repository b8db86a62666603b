package behavior

import (
	"maps"
	"slices"
	"time"
)

// Evidence says how a fact was seen. All of it only grows: merging takes the
// earliest First, the latest Last and the highest count of each pod.
type Evidence struct {
	First time.Time `json:"first"` // UTC, whole seconds
	Last  time.Time `json:"last"`  // UTC, whole seconds
	// Pods holds, by pod name, how often the fact was seen there: at least so
	// often, since counts of one pod that were taken twice are not added up.
	Pods map[string]uint64 `json:"pods"`
	// Parents are the executables of the parents of the processes that were seen
	// doing it, sorted, at most MaxParents; "" for a parent outside the
	// container. Left out where nobody looked.
	Parents []string `json:"parents,omitempty"`
	// Snapshot: it was only found as something that was there before the
	// collector came, never seen being done.
	Snapshot bool `json:"snapshot,omitempty"`
	// Witnesses are the sources that saw it, sorted: collector, hubble, kubearmor.
	// Left out where that was the collector alone.
	Witnesses []string `json:"witnesses,omitempty"`
}

// MaxParents bounds Evidence.Parents.
const MaxParents = 4

// Sources that Evidence.Witnesses and Coverage.Hooks name.
const (
	ByCollector = "collector"
	ByHubble    = "hubble"
	ByKubeArmor = "kubearmor"
)

// Count is how often the fact was seen in all pods together, at least.
func (e Evidence) Count() uint64 {
	var n uint64
	for _, c := range e.Pods {
		n += c
	}
	return n
}

// MergeEvidence joins two pieces of evidence for one fact. It shares no memory
// with them.
func MergeEvidence(a, b Evidence) Evidence {
	m := Evidence{First: earlier(a.First, b.First), Last: later(a.Last, b.Last), Pods: make(map[string]uint64, max(len(a.Pods), len(b.Pods))),
		Snapshot: a.Snapshot && b.Snapshot, Parents: union(a.Parents, b.Parents), Witnesses: witnesses(a, b)}
	if len(m.Parents) > MaxParents {
		m.Parents = m.Parents[:MaxParents]
	}
	for _, pods := range []map[string]uint64{a.Pods, b.Pods} {
		for pod, n := range pods {
			m.Pods[pod] = max(m.Pods[pod], n)
		}
	}
	return m
}

// witnesses joins those of two pieces of evidence. Evidence that names none is the
// collector's, unless it is no evidence at all.
func witnesses(a, b Evidence) []string {
	if len(a.Witnesses)+len(b.Witnesses) == 0 {
		return nil
	}
	named := func(e Evidence) []string {
		if len(e.Witnesses) == 0 && len(e.Pods) > 0 {
			return []string{ByCollector}
		}
		return e.Witnesses
	}
	return union(named(a), named(b))
}

// union joins two lists of strings: sorted, each once; nil when both are empty.
func union(a, b []string) []string {
	if len(a)+len(b) == 0 {
		return nil
	}
	list := slices.Concat(a, b)
	slices.Sort(list)
	return slices.Compact(list)
}

// Observed is a fact with its evidence.
type Observed struct {
	Fact     Fact
	Evidence Evidence
}

// Profile is everything that is known of one container of one workload.
type Profile struct {
	Subject Subject
	// Labels are the stable labels by which a policy selects the workload's
	// pods, in the form of FormatLabels.
	Labels   string
	Facts    Facts
	Coverage Coverage
}

// Add merges one fact into the profile, which must not be shared while it is
// written.
func (p *Profile) Add(f Fact, e Evidence) { p.Facts.Add(f, e) }

// Observed lists the facts in the order of Compare.
func (p Profile) Observed() []Observed {
	return slices.AppendSeq(make([]Observed, 0, p.Facts.Len()), p.Facts.inOrder())
}

// Count is the number of distinct facts of one kind that the container itself
// made, not its runtime or who entered it.
func (p Profile) Count(k Kind) int {
	n := 0
	forms := p.Facts.Forms()
	for i := range int32(p.Facts.Len()) {
		if form, _ := p.Facts.Form(i); forms[form].Kind == k && forms[form].Own() {
			n++
		}
	}
	return n
}

// Merge joins two profiles of one subject. Where they disagree about labels, the
// greater string is taken, so that order does not matter. The result shares no
// memory with its arguments.
func Merge(a, b Profile) Profile { return MergeAll(a, b) }

// MergeAll joins profiles of one subject as Merge does, of which there is at least
// one.
func MergeAll(first Profile, others ...Profile) Profile {
	m := Profile{Subject: first.Subject, Labels: first.Labels, Coverage: MergeCoverage(first.Coverage, Coverage{})}
	m.Facts.Merge(first.Facts)
	for _, p := range others {
		m.Absorb(p)
	}
	return m
}

// Absorb merges another profile of the same subject into p, which must share its
// facts with no other profile.
func (p *Profile) Absorb(other Profile) {
	p.Labels, p.Coverage = max(p.Labels, other.Labels), MergeCoverage(p.Coverage, other.Coverage)
	p.Facts.Merge(other.Facts)
}

// Profiles are profiles by their subject.
type Profiles map[Subject]Profile

// Add merges p into the profile of its subject.
func (ps Profiles) Add(p Profile) {
	if old, ok := ps[p.Subject]; ok {
		p = Merge(old, p)
	}
	ps[p.Subject] = p
}

// Subjects lists the subjects in the order of CompareSubjects.
func (ps Profiles) Subjects() []Subject {
	return slices.SortedFunc(maps.Keys(ps), CompareSubjects)
}

// MergeProfiles joins two collections, subject by subject.
func MergeProfiles(a, b Profiles) Profiles {
	m := make(Profiles, max(len(a), len(b)))
	for _, ps := range []Profiles{a, b} {
		for _, p := range ps {
			m.Add(p)
		}
	}
	return m
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
