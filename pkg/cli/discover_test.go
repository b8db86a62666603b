package cli

import (
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestCoverageIsSaidInACell(t *testing.T) {
	noon := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	pod := func(p behavior.PodCoverage) behavior.PodCoverage {
		p.From, p.To = noon, noon.Add(time.Minute)
		return p
	}
	for name, c := range map[string]struct {
		by   map[string]behavior.Coverage
		want string
	}{
		"nothing": {nil, "not observed now"},
		"what ran already": {map[string]behavior.Coverage{"web": {Replicas: 2, Pods: map[string]behavior.PodCoverage{"a": pod(behavior.PodCoverage{})}}},
			"1/2 pods, 1m0s, 0 start, 0 lost"},
		"a life, and what is missing": {map[string]behavior.Coverage{
			"web": {Replicas: 3, Lost: map[string]uint64{"x": 2}, Gaps: []string{"g"}, Pods: map[string]behavior.PodCoverage{
				"a": pod(behavior.PodCoverage{Start: true, Ready: true, Terminated: true}), "b": pod(behavior.PodCoverage{Start: true, Ready: true, Steady: true}), "c": pod(behavior.PodCoverage{})}}},
			"3/3 pods, 1m0s, 2 start, 2 ready, 1 steady, 1 end, 2 lost, 1 gap"},
		"containers of the same pod": {map[string]behavior.Coverage{
			"web": {Replicas: 1, Pods: map[string]behavior.PodCoverage{"a": pod(behavior.PodCoverage{Start: true})}},
			"log": {Replicas: 1, Pods: map[string]behavior.PodCoverage{"a": pod(behavior.PodCoverage{Restarts: 3})}}},
			"1/1 pods, 1m0s, 1 start, 1 restart, 0 lost"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := coverageShort(c.by); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
