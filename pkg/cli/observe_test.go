package cli

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/cluster"
)

func TestProgressSaysHowTheObservationIsGoing(t *testing.T) {
	for name, c := range map[string]struct {
		progress cluster.Progress
		quiet    time.Duration
		want     string
	}{
		"all is well": {
			cluster.Progress{Left: 9 * time.Second, Pods: 1, Nodes: 2, Facts: 30, NewFacts: 4}, 0,
			"9s left, 1 pod on 2 nodes, 30 facts, 4 new in the last 10 s, 0 lost",
		},
		"nodes do not answer, and facts are lost": {
			cluster.Progress{Left: 61 * time.Second, Pods: 2, Nodes: 1, Facts: 1, Lost: 7, Failing: []source.NodeError{{Node: "a", Reason: "gone"}, {Node: "b", Reason: "gone"}}}, 0,
			"1m1s left, 2 pods on 1 node, 1 fact, 0 new in the last 10 s, no answer from a, b, 7 lost",
		},
		"it waits for nothing new": {
			cluster.Progress{Left: time.Hour, Pods: 2, Nodes: 1, Facts: 40, NewFacts: 9, PerMinute: 3, Silence: 130*time.Second + 999*time.Millisecond}, 10 * time.Minute,
			"1h0m0s left, 2 pods on 1 node, 40 facts, 3 new a minute, nothing new for 2m10s of 10m0s, 0 lost",
		},
		"pods are not observed yet": {
			cluster.Progress{Left: time.Hour, Unseen: []string{"a", "b", "c", "d", "e"}}, 10 * time.Minute,
			"1h0m0s left, 0 pods on 0 nodes, 0 facts, 0 new a minute, nothing new for 0s of 10m0s, not observed yet: a, b, c and 2 more, 0 lost",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if text := progressLine(c.progress, c.quiet); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
		})
	}
}

func TestTheEndOfAnObservationSaysWhatEndedIt(t *testing.T) {
	last := behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: "app"}
	watch := cluster.Watch{Most: time.Hour, Quiet: 10 * time.Minute}
	for name, c := range map[string]struct {
		ended cluster.Ended
		want  string
	}{
		"nothing new came":              {cluster.Ended{Quiet: true, Took: 23*time.Minute + 400*time.Millisecond, Last: last}, "observed for 23m0s: nothing new for 10m0s"},
		"something new came until then": {cluster.Ended{Took: time.Hour, Silence: 3 * time.Minute, Last: last}, "observed for 1h0m0s, which is the longest, without 10m0s of nothing new: the last new fact came 3m0s before the end, from deployment/web/app"},
		"nothing ever came":             {cluster.Ended{Took: time.Hour, Silence: time.Hour}, "observed for 1h0m0s, which is the longest, without 10m0s of nothing new"},
	} {
		t.Run(name, func(t *testing.T) {
			if text := endLine(c.ended, watch); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
		})
	}
}

func TestProgramsReadHowAnObservationWent(t *testing.T) {
	web := behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}
	got := observed(cluster.Ended{Quiet: true, Took: 26300 * time.Millisecond, Silence: 20 * time.Second, Last: behavior.Subject{Workload: web, Container: "app"}},
		[]cluster.RolloutState{{Rollout: cluster.Rollout{Workload: web}, Failed: true, Waits: "1 of 2 new pods to be ready", NotReady: []string{"web-2: ErrImagePull"}}})
	data, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"seconds":26,"ended":"quiet","quietSeconds":20,"lastNew":"deployment/web/app","restarted":[{"workload":"deployment/web","done":false,"waitsFor":"1 of 2 new pods to be ready","notReady":["web-2: ErrImagePull"]}]}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
}
