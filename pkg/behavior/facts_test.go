package behavior

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// TestFactsAreAMapOfFacts holds the tables to what a map of facts with
// MergeEvidence gives.
func TestFactsAreAMapOfFacts(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		want := map[Fact]Evidence{}
		var got Facts
		for range r.IntN(30) {
			var part Facts
			for f, e := range random(r).Facts.All() {
				old, ok := want[f]
				if !ok {
					old = e
				}
				want[f] = MergeEvidence(old, e)
				part.Add(f, e)
			}
			got.Merge(part)
		}
		if !reflect.DeepEqual(got.Map(), want) {
			t.Fatalf("seed %d:\ngot  %v\nwant %v", seed, got.Map(), want)
		}
		for f, e := range want {
			if have, ok := got.Get(f); !ok || !reflect.DeepEqual(have, e) {
				t.Fatalf("seed %d: got %v of %s, want %v", seed, have, f, e)
			}
			f.Path += "/other"
			if _, ok := got.Get(f); ok {
				t.Fatalf("seed %d: got what was never added: %s", seed, f)
			}
		}
	}
}

func TestManyFactsAreFoundAgain(t *testing.T) {
	var f Facts
	at := time.Unix(1_700_000_000, 0).UTC()
	for i := range 20_000 {
		f.Add(Fact{Kind: File, Exe: fmt.Sprint("/bin/", i%7), Path: fmt.Sprint("/srv/", i), Access: Read}, Evidence{First: at, Last: at})
	}
	some := f.Filter(func(f Fact) bool { return f.Exe == "/bin/3" })
	if f.Len() != 20_000 || len(f.Forms()) != 7 || some.Len() != 20_000/7 {
		t.Fatalf("%d facts of %d forms, %d filtered", f.Len(), len(f.Forms()), some.Len())
	}
	for i := range 20_000 {
		if _, ok := f.Get(Fact{Kind: File, Exe: fmt.Sprint("/bin/", i%7), Path: fmt.Sprint("/srv/", i), Access: Read}); !ok {
			t.Fatalf("fact %d is gone", i)
		}
	}
}

func TestASelectionIsInOrderAndJoinsItsEvidence(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 4))
		p := random(r)
		var at []int32
		var want Evidence
		var count uint64
		for i := range int32(p.Facts.Len()) {
			if r.IntN(2) == 0 {
				continue
			}
			at = append(at, i)
			e, _ := p.Facts.Get(p.Facts.At(i))
			if len(at) == 1 {
				want = e
			}
			want = MergeEvidence(want, e)
			count += e.Count()
		}
		s := p.Facts.Select(at)
		list := s.List()
		if len(list) != len(at) || !slices.IsSortedFunc(list, func(a, b Observed) int { return Compare(a.Fact, b.Fact) }) {
			t.Errorf("seed %d: not in order: %v", seed, list)
		}
		want.Parents, want.Witnesses = nil, nil
		if got := s.Evidence(); len(at) > 0 && !reflect.DeepEqual(got, want) || s.Count() != count {
			t.Errorf("seed %d: got %v and %d, want %v and %d", seed, got, s.Count(), want, count)
		}
		if again := Selected(list...).List(); len(list) > 0 && !reflect.DeepEqual(again, list) {
			t.Errorf("seed %d: got %v, want %v", seed, again, list)
		}
	}
}
