package behavior

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// learning is a profile that was observed for a while, with a new fact at each of
// the seconds.
func learning(observed time.Duration, seconds ...int) Profile {
	begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	p := Profile{Coverage: Coverage{Pods: map[string]PodCoverage{"web-1": {From: begin, To: begin.Add(observed)}}}}
	for i, s := range seconds {
		at := begin.Add(time.Duration(s) * time.Second)
		p.Add(Fact{Kind: File, Exe: "/app", Path: fmt.Sprint("/", i), Access: Read}, Evidence{First: at, Last: begin.Add(observed)})
	}
	return p
}

func TestACurveSaysWhenFactsWereNew(t *testing.T) {
	for name, c := range map[string]struct {
		profile   Profile
		step      int
		want      []int
		perMinute float64
		quiet     int
	}{
		"it flattens":              {learning(time.Minute, 0, 0, 0, 1, 12, 13, 31), 10, []int{4, 2, 0, 1, 0, 0, 0}, 2, 29},
		"it goes on to the end":    {learning(time.Minute, 0, 59, 60), 10, []int{1, 0, 0, 0, 0, 1, 1}, 4, 0},
		"nothing was done":         {learning(time.Minute), 10, []int{0, 0, 0, 0, 0, 0, 0}, 0, 60},
		"seen before and after":    {learning(time.Minute, -5, 70), 10, []int{1, 0, 0, 0, 0, 0, 1}, 2, 60},
		"a moment":                 {learning(0, 0), 1, []int{1}, 0, 0},
		"an hour, rate of its end": {learning(time.Hour, 0, 0, 0, 3001, 3599), 600, []int{3, 0, 0, 0, 0, 2, 0}, 0.2, 1},
		"a year":                   {learning(365*24*time.Hour, 0, 364*24*3600), 46 * 86400, []int{1, 0, 0, 0, 0, 0, 0, 1}, 0, 86400},
	} {
		t.Run(name, func(t *testing.T) {
			got := CurveOf(8, c.profile)
			if got.Step != c.step || !slices.Equal(got.New, c.want) || got.PerMinute != c.perMinute || got.Quiet != c.quiet {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestWhatWasNeverObservedHasNoCurve(t *testing.T) {
	p := learning(time.Minute, 1)
	p.Coverage.Pods = nil
	if got := CurveOf(8, p); got.New != nil || got.Step != 0 {
		t.Errorf("got %+v", got)
	}
	if got := CurveOf(8); got.New != nil {
		t.Errorf("got %+v", got)
	}
}

func TestACurveCountsEachOwnFactOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		span, most, n := time.Duration(r.Int64N(int64(90*24*time.Hour))).Truncate(time.Second), 1+r.IntN(40), r.IntN(50)
		var at []int
		for range n {
			at = append(at, r.IntN(int(span/time.Second)+1))
		}
		p := learning(span, at...)
		p.Add(Fact{Kind: File, Path: "/runtime", Access: Read, Runtime: true}, Evidence{})
		p.Add(Fact{Kind: Process, Path: "/bin/sh", Origin: OriginExec}, Evidence{})
		c, sum := CurveOf(most, p), 0
		for _, k := range c.New {
			sum += k
		}
		if sum != n || len(c.New) > most || c.Quiet < 0 {
			t.Fatalf("%d facts in %s by %d: %+v", n, span, most, c)
		}
	}
}
