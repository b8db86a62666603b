package cli

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// statusReport is the status of a namespace in the form that programs read.
type statusReport struct {
	Namespace string       `json:"namespace"`
	Git       gitStatus    `json:"git"`
	Live      liveStatus   `json:"live"`
	Synced    syncedStatus `json:"synced"`
	// Drift is what is in the cluster or in git and was not generated.
	Drift       []string         `json:"drift,omitempty"`
	Workloads   []workloadStatus `json:"workloads"`
	PodSecurity *podSecurity     `json:"podSecurity,omitempty"`
}

// gitStatus is where the committed evidence is from.
type gitStatus struct {
	Used       bool   `json:"used"` // there is something of the namespace
	Repository string `json:"repository,omitempty"`
	Branch     string `json:"branch,omitempty"`
	Folder     string `json:"folder,omitempty"`
	Revision   string `json:"revision,omitempty"`
}

// syncedStatus is what the cluster runs of the policies, or why it was not asked.
type syncedStatus struct {
	Asked     bool      `json:"asked"`
	Reason    string    `json:"reason,omitempty"` // why not
	By        string    `json:"by,omitempty"`     // Argo CD's or Flux's object that applies them
	Revision  string    `json:"revision,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Obstacles []string  `json:"obstacles,omitempty"`
}

// liveStatus is whose collectors were asked, or why none was.
type liveStatus struct {
	Used         bool      `json:"used"`
	Reason       string    `json:"reason,omitempty"` // why not
	By           string    `json:"by,omitempty"`
	Since        time.Time `json:"since,omitzero"`
	Nodes        int       `json:"nodes,omitempty"`
	Failing      []string  `json:"failing,omitempty"` // nodes that could not be observed, or not in full
	Unattributed uint64    `json:"unattributed,omitempty"`
}

type workloadStatus struct {
	Workload   string            `json:"workload"`
	Stage      policy.Stage      `json:"stage"`
	Since      time.Time         `json:"since,omitzero"`
	By         string            `json:"by,omitempty"`
	Next       policy.Stage      `json:"next,omitempty"`
	Obstacles  []string          `json:"obstacles"` // in the way of the next stage
	Advice     []string          `json:"advice"`
	Gates      []gateStatus      `json:"gates,omitempty"` // before deny
	Containers []containerStatus `json:"containers"`
}

// gateStatus is one gate, and what it was decided by.
type gateStatus struct {
	Gate     string   `json:"gate"`
	Open     bool     `json:"open"`
	Evidence string   `json:"evidence,omitempty"`
	Reasons  []string `json:"reasons,omitempty"` // why it is closed
}

type containerStatus struct {
	Container string                          `json:"container"`
	Committed bool                            `json:"committed"` // in git
	Live      bool                            `json:"live"`      // by a collector, just now
	From      time.Time                       `json:"from,omitzero"`
	To        time.Time                       `json:"to,omitzero"`
	Seen      lifeStatus                      `json:"seen"`
	Pods      int                             `json:"pods"`
	Replicas  int                             `json:"replicas"`
	Nodes     []string                        `json:"nodes"`
	Images    []string                        `json:"images"`
	Hooks     map[behavior.Kind][]string      `json:"hooks,omitempty"`
	Facts     map[behavior.Kind]int           `json:"facts"` // distinct, of the container itself
	Snapshot  map[behavior.Kind]int           `json:"snapshotOnly,omitempty"`
	Runtime   int                             `json:"ofRuntime,omitempty"`
	Entered   int                             `json:"entered,omitempty"` // of processes that entered it from outside
	Lost      []lossStatus                    `json:"lost"`
	Gaps      []string                        `json:"gaps"`
	Shortfall []string                        `json:"shortfalls"`
	Maps      map[string]behavior.MapUse      `json:"maps,omitempty"`
	Mounts    map[string]behavior.Mount       `json:"mounts,omitempty"`
	NoPod     uint64                          `json:"unattributed"`
	Curve     behavior.Curve                  `json:"curve"`
	ByPod     map[string]behavior.PodCoverage `json:"byPod,omitempty"`
}

// lifeStatus is what of the container's life was seen in some pod.
type lifeStatus struct {
	Start       bool `json:"start"`
	Readiness   bool `json:"readiness"`
	SteadyState bool `json:"steadyState"`
	Termination bool `json:"termination"`
	Restarts    int  `json:"restarts"`
}

type lossStatus struct {
	What  string    `json:"what"` // the node or the pod, and the reason
	Count uint64    `json:"count"`
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
}

// curvePoints are how many signs a curve has.
const curvePoints = 16

func (r *statusReport) add(list []rollout.Status) {
	coverages := map[string][]behavior.Coverage{}
	for _, s := range list {
		for _, c := range s.Containers {
			coverages[s.Workload.String()] = append(coverages[s.Workload.String()], c.Profile.Coverage)
		}
		w := workloadStatus{Workload: s.Workload.String(), Stage: s.Stage, Since: s.Since, By: s.By, Next: s.Next,
			Obstacles: filled(s.Obstacles), Advice: filled(s.Advice), Containers: []containerStatus{}}
		for _, g := range s.Gates {
			w.Gates = append(w.Gates, gateStatus{g.Gate, g.Open, g.Evidence, g.Reasons})
		}
		for _, c := range s.Containers {
			w.Containers = append(w.Containers, containerReport(c))
		}
		r.Workloads = append(r.Workloads, w)
	}
	r.PodSecurity = podSecurityOf(coverages)
}

func filled(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func containerReport(c rollout.ContainerStatus) containerStatus {
	coverage := c.Profile.Coverage
	r := containerStatus{
		Container: c.Name, Committed: c.Committed, Live: c.Live, Pods: len(coverage.Pods), Replicas: max(coverage.Replicas, len(coverage.Pods)),
		Hooks: coverage.Hooks, Facts: map[behavior.Kind]int{}, Gaps: filled(coverage.Gaps), Shortfall: filled(c.Shortfalls), Lost: []lossStatus{},
		Maps: coverage.Maps, Mounts: coverage.Mounts, NoPod: coverage.Unattributed(), Curve: behavior.CurveOf(curvePoints, c.Profile),
		Nodes: []string{}, Images: []string{}, ByPod: coverage.Pods,
	}
	for _, p := range coverage.Pods {
		if r.From.IsZero() || p.From.Before(r.From) {
			r.From = p.From
		}
		if p.To.After(r.To) {
			r.To = p.To
		}
		r.Nodes, r.Images = append(r.Nodes, p.Node), append(r.Images, p.Image)
		r.Seen.Start, r.Seen.Readiness = r.Seen.Start || p.Start, r.Seen.Readiness || p.Ready
		r.Seen.SteadyState, r.Seen.Termination = r.Seen.SteadyState || p.Steady, r.Seen.Termination || p.Terminated
		r.Seen.Restarts = max(r.Seen.Restarts, p.Restarts)
	}
	slices.Sort(r.Nodes)
	slices.Sort(r.Images)
	r.Nodes, r.Images = slices.Compact(r.Nodes), slices.Compact(r.Images)
	for f, e := range c.Profile.Facts.All() {
		switch {
		case f.Runtime:
			r.Runtime++
		case !f.Own():
			r.Entered++
		default:
			r.Facts[f.Kind]++
			if e.Snapshot {
				if r.Snapshot == nil {
					r.Snapshot = map[behavior.Kind]int{}
				}
				r.Snapshot[f.Kind]++
			}
		}
	}
	for _, what := range slices.Sorted(maps.Keys(coverage.Lost)) {
		if n := coverage.Lost[what]; n > 0 {
			at := coverage.LostAt[what]
			r.Lost = append(r.Lost, lossStatus{what, n, at.First, at.Last})
		}
	}
	slices.SortStableFunc(r.Lost, func(a, b lossStatus) int { return cmp.Compare(b.Count, a.Count) })
	return r
}
