package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
)

var web = behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "StatefulSet", Name: "web"}, Container: "web"}

// A collector was killed, and the one that followed knows of no loss.
func TestWhatAKilledCollectorHadLostStaysLost(t *testing.T) {
	s := planted(t)
	n := s.plant("node-1", "web-1", "web", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	n.most.weight = maxNodeWeight
	span := behavior.Span{First: at(), Last: at().Add(time.Second)}
	first := wire.Status{Lost: map[string]uint64{"ring buffer full: file": 3}, LostAt: map[string]behavior.Span{"ring buffer full: file": span}, Unattributed: 2}
	container := n.containers["web-1"].Container
	hit := container
	hit.Lost, hit.LostAt = map[string]uint64{"limit of facts of a container": 5}, map[string]behavior.Span{"limit of facts of a container": span}
	for _, b := range []wire.Batch{
		{Epoch: "first", Revision: 9, Containers: []wire.Container{hit}, Status: &first},
		{Epoch: "second", Revision: 1, Containers: []wire.Container{container}, Status: &wire.Status{}},
	} {
		if err := n.take(b); err != nil {
			t.Fatal(err)
		}
	}
	c := s.assembled().Profiles[web].Coverage
	for reason, want := range map[string]uint64{
		"node-1: ring buffer full: file": 3, "node-1: " + behavior.UnattributedReason: 2, "web-1: limit of facts of a container": 5,
	} {
		if c.Lost[reason] != want {
			t.Errorf("lost %d for %q, want %d", c.Lost[reason], reason, want)
		}
	}
	if c.LostAt["node-1: ring buffer full: file"] != span || c.LostAt["web-1: limit of facts of a container"] != span {
		t.Errorf("lost at %v", c.LostAt)
	}
	if !strings.Contains(strings.Join(c.Gaps, "\n"), "collector restarted once") {
		t.Errorf("gaps are %q", c.Gaps)
	}
}

func TestWhatACollectorCannotDoJustNowIsAGap(t *testing.T) {
	s := planted(t)
	n := s.plant("node-1", "web-1", "web", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	n.status.Problems = []string{"list pods: connection refused"}
	c := s.assembled().Profiles[web].Coverage
	if len(c.Gaps) != 1 || !strings.HasSuffix(c.Gaps[0], "list pods: connection refused") || len(c.Shortfalls()) == 0 {
		t.Errorf("gaps are %q, shortfalls %q", c.Gaps, c.Shortfalls())
	}
}

// A pod was deleted before anybody could tell whose it was: then no profile of that
// node is complete.
func TestAPodThatNobodyKnowsIsALossOfAllOnItsNode(t *testing.T) {
	s := planted(t)
	n := s.plant("node-1", "web-1", "web", nil, behavior.Fact{Kind: behavior.Process, Path: "/app"})
	ghost := wire.Container{Namespace: "shop", Pod: "ghost", Name: "x", ID: "ghost", From: at(), To: at()}
	n.containers["ghost"] = &pulled{Container: ghost}
	if got := s.assembled().Profiles[web].Coverage.Lost["node-1: "+unknownReason]; got != 1 {
		t.Errorf("lost %d, want 1", got)
	}
}
