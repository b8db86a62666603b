package engine

import "slices"

// Index finds, of many numbered selectors, those that may select somebody,
// without asking each one: a namespace has thousands of policies, and of each
// fact only few have a say. The zero Index is empty. It is safe for concurrent
// use once everything is added.
type Index struct {
	open  []int                       // without a label to find them by
	byKey map[string]map[string][]int // by the one label that they are found by
}

// Add enters the selector under a number. Numbers are added in increasing order.
func (x *Index) Add(number int, s Selector) {
	keys := make([]string, 0, len(s.MatchLabels))
	for k := range s.MatchLabels {
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		x.open = append(x.open, number)
		return
	}
	// The label that keeps selectors best apart is not known; the first key is
	// the same for all that are made alike.
	key := slices.Min(keys)
	if x.byKey == nil {
		x.byKey = map[string]map[string][]int{}
	}
	if x.byKey[key] == nil {
		x.byKey[key] = map[string][]int{}
	}
	value := s.MatchLabels[key]
	x.byKey[key][value] = append(x.byKey[key][value], number)
}

// Candidates lists, in order and without doubles, the numbers of the selectors
// that may select who is looked up; those that are left out do not.
func (x *Index) Candidates(lookup Lookup) []int {
	list := slices.Clone(x.open)
	for key, values := range x.byKey {
		switch value, known := lookup(key); known {
		case Yes:
			list = append(list, values[value]...)
		case Maybe:
			for _, numbers := range values {
				list = append(list, numbers...)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
