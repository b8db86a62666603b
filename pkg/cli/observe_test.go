package cli

import (
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/cluster"
)

func TestProgressSaysHowTheObservationIsGoing(t *testing.T) {
	for name, c := range map[string]struct {
		progress cluster.Progress
		want     string
	}{
		"all is well": {
			cluster.Progress{Left: 9 * time.Second, Pods: 1, Nodes: 2, Facts: 30, NewFacts: 4},
			"9s left, 1 pod on 2 nodes, 30 facts, 4 new in the last 10 s, 0 lost",
		},
		"nodes do not answer, and facts are lost": {
			cluster.Progress{Left: 61 * time.Second, Pods: 2, Nodes: 1, Facts: 1, Lost: 7, Failing: []source.NodeError{{Node: "a", Reason: "gone"}, {Node: "b", Reason: "gone"}}},
			"1m1s left, 2 pods on 1 node, 1 fact, 0 new in the last 10 s, no answer from a, b, 7 lost",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if text := progressLine(c.progress); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
		})
	}
}
