package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// Whoever is left out of the candidates must not be selected, and the other way
// round everything that may be selected is a candidate.
func TestTheIndexLeavesOutOnlyWhatSelectsNobody(t *testing.T) {
	left := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		labels := func() map[string]string {
			m := map[string]string{}
			for _, k := range []string{"app", "tier", "team"} {
				if r.IntN(2) == 0 {
					m[k] = fmt.Sprint("v", r.IntN(4))
				}
			}
			return m
		}
		var index Index
		var selectors []Selector
		for i := range 40 {
			s := Selector{MatchLabels: labels()}
			if r.IntN(4) == 0 {
				s.MatchExpressions = []Requirement{{Key: "app", Operator: []string{"In", "NotIn"}[r.IntN(2)], Values: []string{"v1"}}}
			}
			selectors = append(selectors, s)
			index.Add(i, s)
		}
		for _, lookup := range []Lookup{Labels(labels()), StableLabels(labels())} {
			candidates := index.Candidates(lookup)
			if !slices.IsSorted(candidates) || len(slices.Compact(slices.Clone(candidates))) != len(candidates) {
				t.Fatalf("seed %d: %v is not in order", seed, candidates)
			}
			for i, s := range selectors {
				if slices.Contains(candidates, i) {
					continue
				}
				left++
				if s.Match(lookup) != No {
					t.Errorf("seed %d: %+v was left out and answers %d", seed, s, s.Match(lookup))
				}
			}
		}
	}
	if left < 1000 {
		t.Errorf("only %d selectors were left out: the index is of no use", left)
	}
}

func TestLabelKeysAreThoseOfTheAPI(t *testing.T) {
	for key, want := range map[string]bool{
		"app": true, "a": true, "app.kubernetes.io/name": true, "A_b.c-d": true, "x/Y": true,
		"": false, "-a": false, "a-": false, "/a": false, "a/": false, "a/b/c": false, "A/b": false, "a b": false, "a\n": false, "k8s:app": false,
	} {
		if got := ValidLabels(map[string]string{key: ""}); got != want {
			t.Errorf("key %q: %v, want %v", key, got, want)
		}
	}
}
