package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// statusOf is what the tests read of "status -o json".
type statusOf struct {
	Git  struct{ Used bool }
	Live struct {
		Used  bool
		By    string
		Nodes int
	}
	Workloads []struct {
		Workload   string
		Stage      string
		Next       string
		Obstacles  []string
		Containers []struct {
			Container       string
			Committed, Live bool
			Seen            struct{ Start, Readiness bool }
			Pods, Replicas  int
			Nodes           []string
			Hooks           map[string][]string
			Facts           map[string]int
			Entered         int
			Gaps            []string
			Curve           struct {
				New         []int
				StepSeconds int
			}
		}
	}
}

func (w *world) status(t *testing.T, dir string) statusOf {
	t.Helper()
	r := w.plugin(t, dir, "status", "-n", "shop", "-o", "json")
	var s statusOf
	if err := json.Unmarshal([]byte(r.out), &s); err != nil || r.code != 0 {
		t.Fatalf("status: exit code %d, %v", r.code, err)
	}
	return s
}

// Somebody observes through a restart until nothing new comes; meanwhile a
// colleague asks how far it is, people enter a container, and a collector dies.
func TestCoverageOfARestart(t *testing.T) {
	w := needCluster(t)
	dir, _ := w.workspace(t)
	before := w.trace(t)

	r := w.plugin(t, dir, "discover", "-n", "shop", "--restart", "--dry-run", "--duration", "3s")
	for _, want := range []string{"would restart deployment/web: 2 pods", "would restart statefulset/store: 1 pod; it has one pod, which is gone until the new one is ready", "dry run: nothing committed"} {
		if r.code != 0 || !strings.Contains(r.errOut, want) {
			t.Errorf("exit code %d; it does not say %q", r.code, want)
		}
	}
	pods := w.kubectl(t, "-n", "shop", "get", "pods", "-l", "app=web", "-o", "name")

	p := w.start(t, dir, "discover", "-n", "shop", "--restart", "--yes", "--until-stable=20s", "--duration", "4m")
	p.until("restarted 4 of 4 workloads")
	p.until("observing until nothing new")
	if now := w.kubectl(t, "-n", "shop", "get", "pods", "-l", "app=web", "-o", "name"); now == pods {
		t.Error("the pods of web are those of before")
	}
	for range 2 {
		w.kubectl(t, "-n", "shop", "exec", "deployment/web", "--", "/bin/busybox", "ls", "/")
	}
	live := w.status(t, dir)
	if live.Git.Used || !live.Live.Used || live.Live.By == "" || live.Live.Nodes != 2 {
		t.Errorf("status is from %+v, %+v", live.Git, live.Live)
	}
	for _, x := range live.Workloads {
		if x.Stage != "observe" || len(x.Obstacles) == 0 || len(x.Containers) == 0 || !x.Containers[0].Live || x.Containers[0].Committed {
			t.Errorf("live status is %+v", x)
		}
	}
	if result := p.wait(); result.code != 0 || !strings.Contains(result.errOut, "observed for ") ||
		!strings.Contains(result.out, "left out: deployment/web: ") {
		t.Errorf("exit code %d; what ended it or what was left out is not said", result.code)
	}

	committed := w.status(t, dir)
	if !committed.Git.Used || committed.Live.Used {
		t.Errorf("status is from %+v, %+v", committed.Git, committed.Live)
	}
	for _, x := range committed.Workloads {
		for _, c := range x.Containers {
			if x.Stage != "audit" || x.Next != "deny" || !c.Committed || !c.Seen.Start || !c.Seen.Readiness || c.Pods < c.Replicas || len(c.Hooks) == 0 || len(c.Curve.New) == 0 {
				t.Errorf("status is %+v", x)
			}
			if c.Entered > 0 {
				t.Errorf("%s: what entered is in the evidence", x.Workload)
			}
		}
	}
	if len(committed.Workloads) < 4 {
		t.Errorf("status of %d workloads", len(committed.Workloads))
	}
	if left := addedLines(before, w.trace(t)); left != "" {
		t.Errorf("something was left behind:\n%s", left)
	}
}

func TestACollectorThatIsReplacedIsPulledAndSaid(t *testing.T) {
	w := needCluster(t)
	dir, _ := w.workspace(t)
	p := w.start(t, dir, "discover", "-n", "shop", "--duration", "60s", "-o", "json")
	p.until("observing for")
	p.until("new in the last")
	eventually(t, time.Minute, "facts to be pulled", func() bool { return strings.Contains(p.said(), " facts, ") && !strings.Contains(p.said(), ", 0 facts") })
	victim, _, _ := strings.Cut(strings.TrimSpace(w.kubectl(t, "-n", namespace, "get", "pods", "-o", "name")), "\n")
	w.kubectl(t, "-n", namespace, "delete", victim, "--grace-period=1")
	r := p.wait()
	var out struct {
		Workloads []struct {
			Workload string
			Coverage map[string]struct {
				Gaps []string
				Pods map[string]struct{ Node string }
			}
		}
	}
	if err := json.Unmarshal([]byte(r.out), &out); err != nil || r.code != 0 {
		t.Fatalf("exit code %d, %v", r.code, err)
	}
	restarted, nodes := 0, map[string]bool{}
	for _, x := range out.Workloads {
		for _, c := range x.Coverage {
			for _, gap := range c.Gaps {
				if strings.Contains(gap, "collector restarted once") {
					restarted++
				} else {
					t.Errorf("%s: %s", x.Workload, gap)
				}
			}
			for _, pod := range c.Pods {
				nodes[pod.Node] = true
			}
		}
	}
	if restarted == 0 || len(nodes) != 2 {
		t.Errorf("%d workloads have the gap, %d nodes were observed", restarted, len(nodes))
	}
}
