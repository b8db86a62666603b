package behavior

import (
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// Facts are facts with their evidence, each fact once. The zero value is empty and
// ready for use; copies share what they hold, as those of a map do. It must not be
// shared while it is written.
//
// A fact is 450 bytes and a workload may have a million of them, so that they are
// not kept as they are: facts that differ in nothing but their path share all the
// rest, their form, and evidence is kept in tables. One costs about 75 bytes and
// its path.
type Facts struct{ *store }

// store holds the tables.
type store struct {
	records []record
	byKey   index
	forms   []Fact // without a path
	byForm  index
	counts  []podCount
	pods    []string
	podIDs  map[string]int32
	sights  []sight // how facts were seen; the first is nothing said of it
	sightID map[string]int32
	// seed decides where a fact is looked for and nothing else: a store lists its
	// facts in the order in which they came.
	seed maphash.Seed
}

// record is one fact with its evidence.
type record struct {
	path        string
	first, last int64 // seconds since 1970
	form        int32
	hash        uint32
	counts      int32 // first of a list in store.counts; -1 for none
	sight       int32 // in store.sights, negative (its complement) for a snapshot
}

// sight is what many facts share of how they were seen.
type sight struct{ parents, witnesses []string }

// podCount is how often a fact was seen in a pod, and where the next one is.
type podCount struct {
	times uint64
	pod   int32
	next  int32 // -1 for none
}

// index finds places in a table by hash: open addressing, at most three quarters
// full. The zero value is empty.
type index struct {
	slots []int32 // a place plus one; 0 is free
	used  int
}

// find gives the place that is, or its slot if none is.
func (x *index) find(hash uint32, is func(int32) bool) (at int32, slot int) {
	if len(x.slots) == 0 {
		return -1, -1
	}
	mask := len(x.slots) - 1
	for slot = int(hash) & mask; x.slots[slot] != 0; slot = (slot + 1) & mask {
		if at := x.slots[slot] - 1; is(at) {
			return at, slot
		}
	}
	return -1, slot
}

// put enters the next place at a slot that find gave.
func (x *index) put(slot int, hashOf func(int32) uint32) {
	at := int32(x.used)
	x.used++
	if slot >= 0 && x.used*4 <= len(x.slots)*3 {
		x.slots[slot] = at + 1
		return
	}
	x.grow(x.used, hashOf)
}

// grow makes room for so many places and half as many more, and enters those that
// are used anew.
func (x *index) grow(room int, hashOf func(int32) uint32) {
	size := 16
	for size*3 < room*4 {
		size *= 2
	}
	x.slots = make([]int32, size)
	for i := range int32(x.used) {
		slot := int(hashOf(i)) & (size - 1)
		for x.slots[slot] != 0 {
			slot = (slot + 1) & (size - 1)
		}
		x.slots[slot] = i + 1
	}
}

func newStore() *store {
	return &store{podIDs: map[string]int32{}, sights: make([]sight, 1), sightID: map[string]int32{}, seed: maphash.MakeSeed()}
}

func (s *store) clone() *store {
	c := newStore()
	if s == nil {
		return c
	}
	*c = store{seed: s.seed, records: slices.Clone(s.records), forms: slices.Clone(s.forms), counts: slices.Clone(s.counts), pods: slices.Clone(s.pods),
		sights: slices.Clone(s.sights), podIDs: maps.Clone(s.podIDs), sightID: maps.Clone(s.sightID),
		byKey: index{slices.Clone(s.byKey.slots), s.byKey.used}, byForm: index{slices.Clone(s.byForm.slots), s.byForm.used}}
	return c
}

func (s *store) formHash(f *Fact) uint32 { return uint32(maphash.Comparable(s.seed, *f)) }

func (s *store) keyHash(form int32, path string) uint32 {
	return uint32(maphash.String(s.seed, path)) ^ uint32(form)*0x9e3779b1
}

// form gives the number of the fact's form.
func (s *store) form(f Fact) int32 {
	f.Path = ""
	if n := len(s.forms); n > 0 && s.forms[n-1] == f {
		return int32(n - 1)
	}
	hash := s.formHash(&f)
	at, slot := s.byForm.find(hash, func(i int32) bool { return s.forms[i] == f })
	if at >= 0 {
		return at
	}
	s.forms = append(s.forms, f)
	s.byForm.put(slot, func(i int32) uint32 { return s.formHash(&s.forms[i]) })
	return int32(len(s.forms) - 1)
}

// lookup gives the place of a fact, or -1 and the slot for it.
func (s *store) lookup(form int32, path string, hash uint32) (int32, int) {
	return s.byKey.find(hash, func(i int32) bool {
		r := &s.records[i]
		return r.hash == hash && r.form == form && r.path == path
	})
}

// place gives the record of a fact, which it makes if there is none.
func (s *store) place(form int32, path string) (r *record, fresh bool) {
	hash := s.keyHash(form, path)
	at, slot := s.lookup(form, path, hash)
	if at >= 0 {
		return &s.records[at], false
	}
	if len(s.records) == cap(s.records) { // append would grow by a quarter, and copy more often
		s.records = slices.Grow(s.records, max(4, len(s.records)))
	}
	s.records = append(s.records, record{path: path, form: form, hash: hash, counts: -1})
	s.byKey.put(slot, func(i int32) uint32 { return s.records[i].hash })
	return &s.records[len(s.records)-1], true
}

// count raises what a pod was seen to do at least.
func (s *store) count(r *record, pod int32, times uint64) {
	for i := r.counts; i >= 0; i = s.counts[i].next {
		if c := &s.counts[i]; c.pod == pod {
			c.times = max(c.times, times)
			return
		}
	}
	if len(s.counts) == cap(s.counts) {
		s.counts = slices.Grow(s.counts, max(4, len(s.counts)))
	}
	s.counts = append(s.counts, podCount{times, pod, r.counts})
	r.counts = int32(len(s.counts) - 1)
}

func (s *store) pod(name string) int32 {
	id, ok := s.podIDs[name]
	if !ok {
		id = int32(len(s.pods))
		s.pods, s.podIDs[name] = append(s.pods, name), id
	}
	return id
}

// snapshotted splits what a record says of how it was seen.
func snapshotted(sight int32) (at int32, snapshot bool) {
	if sight < 0 {
		return ^sight, true
	}
	return sight, false
}

// saw joins what is said of times, parents and witnesses into a record, before
// the pods are.
func (s *store) saw(r *record, fresh bool, first, last int64, how sight, snapshot, inPods bool) {
	none := time.Time{}.Unix()
	at, before := snapshotted(r.sight)
	if fresh {
		r.first, r.last, before = first, last, true
	}
	if r.first == none || first != none && first < r.first {
		r.first = first
	}
	r.last = max(r.last, last)
	if old := s.sights[at]; !slices.Equal(old.parents, how.parents) || !slices.Equal(old.witnesses, how.witnesses) {
		a, b := Evidence{Witnesses: old.witnesses}, Evidence{Witnesses: how.witnesses}
		if r.counts >= 0 {
			a.Pods = s.anyPod()
		}
		if inPods {
			b.Pods = s.anyPod()
		}
		if fresh {
			a = b
		}
		parents := union(old.parents, how.parents)
		at = s.sight(sight{parents[:min(len(parents), MaxParents)], witnesses(a, b)})
	}
	if r.sight = at; before && snapshot {
		r.sight = ^at
	}
}

// anyPod stands for evidence of some pod.
func (s *store) anyPod() map[string]uint64 { return map[string]uint64{"": 0} }

// sight finds or makes a place in the table for how facts were seen.
func (s *store) sight(how sight) int32 {
	key := strings.Join(how.parents, "\x00") + "\x01" + strings.Join(how.witnesses, "\x00")
	at, ok := s.sightID[key]
	if !ok {
		at = int32(len(s.sights))
		s.sights, s.sightID[key] = append(s.sights, how), at
	}
	return at
}

// Len is the number of facts.
func (f Facts) Len() int {
	if f.store == nil {
		return 0
	}
	return len(f.records)
}

// Add merges one fact with its evidence. Times are kept to the second.
func (f *Facts) Add(fact Fact, e Evidence) {
	if f.store == nil {
		f.store = newStore()
	}
	r, fresh := f.place(f.form(fact), fact.Path)
	f.saw(r, fresh, e.First.Unix(), e.Last.Unix(), sight{e.Parents, e.Witnesses}, e.Snapshot, len(e.Pods) > 0)
	for name, times := range e.Pods {
		f.count(r, f.pod(name), times)
	}
}

// Merge merges all facts of other, which stays as it is.
func (f *Facts) Merge(other Facts) {
	if other.Len() == 0 {
		return
	}
	if f.store == nil {
		f.store = other.clone()
		return
	}
	forms := make([]int32, len(other.forms))
	for i := range other.forms {
		forms[i] = f.form(other.forms[i])
	}
	pods := make([]int32, len(other.pods))
	for i, name := range other.pods {
		pods[i] = f.pod(name)
	}
	for i := range other.records {
		o := &other.records[i]
		r, fresh := f.place(forms[o.form], o.path)
		how, snapshot := snapshotted(o.sight)
		f.saw(r, fresh, o.first, o.last, other.sights[how], snapshot, o.counts >= 0)
		for c := o.counts; c >= 0; c = other.counts[c].next {
			f.count(r, pods[other.counts[c].pod], other.counts[c].times)
		}
	}
}

// Filter gives the facts that keep keeps, in memory of their own.
func (f Facts) Filter(keep func(Fact) bool) Facts {
	var kept Facts
	for fact, e := range f.All() {
		if keep(fact) {
			kept.Add(fact, e)
		}
	}
	return kept
}

// Get gives the evidence for a fact, and whether it is there.
func (f Facts) Get(fact Fact) (Evidence, bool) {
	if f.store == nil {
		return Evidence{}, false
	}
	form := fact
	form.Path = ""
	at, _ := f.byForm.find(f.formHash(&form), func(i int32) bool { return f.forms[i] == form })
	if at < 0 {
		return Evidence{}, false
	}
	i, _ := f.lookup(at, fact.Path, f.keyHash(at, fact.Path))
	if i < 0 {
		return Evidence{}, false
	}
	return f.evidence(i), true
}

// At gives the fact with a number below Len. The numbers stay what they are while
// facts are added.
func (f Facts) At(i int32) Fact {
	r := &f.records[i]
	fact := f.forms[r.form]
	fact.Path = r.path
	return fact
}

// Observed gives the fact with a number below Len, and its evidence.
func (f Facts) Observed(i int32) Observed { return Observed{f.At(i), f.evidence(i)} }

// Forms lists the facts, each without its path, of which all are made. It must not
// be written to.
func (f Facts) Forms() []Fact {
	if f.store == nil {
		return nil
	}
	return f.forms
}

// Form gives the place in Forms and the path of the fact with a number.
func (f Facts) Form(i int32) (form int32, path string) { return f.records[i].form, f.records[i].path }

// evidence gives the evidence of a fact, in memory of its own.
func (f Facts) evidence(i int32) Evidence {
	r := &f.records[i]
	how, snapshot := snapshotted(r.sight)
	e := Evidence{First: time.Unix(r.first, 0).UTC(), Last: time.Unix(r.last, 0).UTC(), Snapshot: snapshot,
		Parents: slices.Clone(f.sights[how].parents), Witnesses: slices.Clone(f.sights[how].witnesses)}
	if r.counts >= 0 {
		e.Pods = map[string]uint64{}
	}
	for c := r.counts; c >= 0; c = f.counts[c].next {
		e.Pods[f.pods[f.counts[c].pod]] = f.counts[c].times
	}
	return e
}

// All goes over the facts with their evidence, in the order in which they came.
func (f Facts) All() iter.Seq2[Fact, Evidence] {
	return func(yield func(Fact, Evidence) bool) {
		for i := range int32(f.Len()) {
			if !yield(f.At(i), f.evidence(i)) {
				return
			}
		}
	}
}

// Keys goes over the facts alone.
func (f Facts) Keys() iter.Seq[Fact] {
	return func(yield func(Fact) bool) {
		for i := range int32(f.Len()) {
			if !yield(f.At(i)) {
				return
			}
		}
	}
}

// Map gives everything as a map; not for many facts.
func (f Facts) Map() map[Fact]Evidence {
	m := make(map[Fact]Evidence, f.Len())
	for fact, e := range f.All() {
		m[fact] = e
	}
	return m
}
