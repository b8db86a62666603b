package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
)

// Pull takes over what the collectors have, and resolves it: pods to their
// workloads, addresses to peers. A node that cannot be reached is named in the
// result and in the coverage of every workload that had pods there; it is an
// error only when no node could.
func (s *Source) Pull(ctx context.Context) (source.Result, error) {
	if err := s.picture.list(ctx, s.api); err != nil {
		return source.Result{}, fmt.Errorf("pull: %w", err)
	}
	s.refresh(ctx)
	s.pullAll(ctx, pullTries)
	if err := ctx.Err(); err != nil {
		return source.Result{}, err
	}
	p := s.picture
	p.mu.Lock()
	defer p.mu.Unlock()
	p.topology.Seal()
	a := s.assembly()
	var failures []error
	nodes := s.list()
	for _, n := range nodes {
		n.mu.Lock()
		a.node(n)
		if n.failure != nil {
			failures = append(failures, fmt.Errorf("node %s: %w", n.name, n.failure))
		}
		n.mu.Unlock()
	}
	if len(failures) == len(nodes) {
		return source.Result{}, errors.Join(append([]error{ErrNoNode}, failures...)...)
	}
	return a.result, nil
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// assembly makes profiles of what was pulled.
type assembly struct {
	*Source
	replicas map[behavior.Workload]int
	result   source.Result
}

func (s *Source) assembly() assembly {
	return assembly{Source: s, replicas: s.picture.replicas(s.options.Namespace),
		result: source.Result{Profiles: behavior.Profiles{}, Topology: s.picture.topology}}
}

// node adds everything of one node, what is missing of it included.
func (a *assembly) node(n *node) {
	now := n.status.Coverage()
	if facts := a.unknown(n); facts > 0 {
		now.Lost[unknownReason] = facts
	}
	said := behavior.MergeCoverage(n.former, now)
	a.result.Unattributed += said.Lost[behavior.UnattributedReason]
	whole := behavior.Coverage{Lost: prefixed(n.name, said.Lost), LostAt: prefixed(n.name, said.LostAt), Hooks: n.status.Hooks}
	whole.Maps = prefixed(n.name, n.status.Maps)
	gaps := a.gaps(n)
	for _, reason := range gaps {
		a.result.Nodes = append(a.result.Nodes, source.NodeError{Node: n.name, Reason: reason})
		whole.Gaps = append(whole.Gaps, "node "+n.name+": "+reason)
	}
	for _, k := range n.containers {
		a.container(n, k, whole)
	}
	// Pods of the namespace that the node never told of still have a container
	// each of which nothing is known.
	if len(gaps) > 0 {
		a.unobserved(n.name, whole)
	}
}

// unknownReason is what is lost to everybody when nobody can tell whose it was: a
// pod came and went while the API server showed it to nobody.
const unknownReason = "pods of an unknown workload"

// unknown counts the facts of pods of the namespace whose workload is not known.
func (a *assembly) unknown(n *node) uint64 {
	var facts uint64
	for _, k := range n.containers {
		if k.Namespace != a.options.Namespace {
			continue
		}
		if _, _, ok := a.picture.topology.Workload(k.Namespace, k.Pod); !ok {
			facts += uint64(max(1, len(k.facts)))
		}
	}
	return facts
}

// prefixed gives the entries with who they are about before their names.
func prefixed[V any](by string, entries map[string]V) map[string]V {
	if len(entries) == 0 {
		return nil
	}
	all := make(map[string]V, len(entries))
	for name, v := range entries {
		all[by+": "+name] = v
	}
	return all
}

// gaps say in words, escaped, what the node cannot claim to have seen.
func (a *assembly) gaps(n *node) []string {
	var gaps []string
	if n.failure != nil {
		text := "not observed: "
		if !n.answered.IsZero() {
			text = "not observed after " + n.answered.UTC().Format(time.RFC3339) + ": "
		}
		gaps = append(gaps, text+escape(n.failure))
	}
	if n.restarts > 0 {
		gaps = append(gaps, "collector restarted "+times(n.restarts)+"; what it had not told by then is lost")
	}
	for _, missing := range n.status.Missing {
		gaps = append(gaps, "not seen by this kernel: "+missing)
	}
	for _, problem := range n.status.Problems {
		gaps = append(gaps, "when it was asked last: "+problem)
	}
	return gaps
}

// container adds one container of a node, of which whole is true.
func (a *assembly) container(n *node, k *pulled, whole behavior.Coverage) {
	if k.Namespace != a.options.Namespace {
		return
	}
	workload, labels, ok := a.picture.topology.Workload(k.Namespace, k.Pod)
	if reason := a.doubt(n, k); !ok || reason != "" {
		if !ok {
			// A pod that came and went while the API server showed it to nobody.
			reason = "pod " + k.Pod + " is of an unknown workload"
		}
		a.result.Unattributed += uint64(len(k.facts))
		a.result.Nodes = append(a.result.Nodes, source.NodeError{Node: n.name, Reason: reason})
		return
	}
	said := behavior.MergeCoverage(k.former, behavior.Coverage{Lost: k.Lost, LostAt: k.LostAt})
	own := behavior.Coverage{
		Replicas: a.replicas[workload], Lost: prefixed(k.Pod, said.Lost), LostAt: prefixed(k.Pod, said.LostAt), Mounts: k.Mounts,
		Spec: a.picture.topology.Spec(k.Namespace, k.Pod),
		Pods: map[string]behavior.PodCoverage{k.Pod: {Node: n.name, Image: k.Image, From: k.From, To: k.To,
			Start: k.Start, Ready: k.Ready, Steady: k.Steady, Terminated: k.Terminated, Restarts: k.Restarts, Held: k.Held}},
	}
	profile := behavior.Profile{
		Subject: behavior.Subject{Workload: workload, Container: k.Name}, Labels: behavior.FormatLabels(labels),
		Coverage: behavior.MergeCoverage(whole, own),
	}
	for f, o := range k.facts {
		for _, resolved := range a.picture.topology.Resolve(f, k.Namespace, k.Pod, o.Last) {
			profile.Add(resolved, o.Evidence(k.Pod))
		}
	}
	a.result.Profiles.Add(profile)
}

// doubt says what a node states that cannot be: that a pod of another node's runs
// there, or that a pod has a container that its specification does not name. What
// it says of them is not believed, since a node speaks for itself only.
func (a *assembly) doubt(n *node, k *pulled) string {
	seen, ok := a.picture.seen[podKey{k.Namespace, k.Pod}]
	switch {
	case !ok:
		return ""
	case len(seen.nodes) > 0 && !slices.Contains(seen.nodes, n.name):
		return "states what pod " + k.Pod + " did, which runs on " + seen.node()
	case !slices.Contains(seen.containers, k.Name) && !slices.Contains(seen.others, k.Name):
		return "states what container " + k.Name + " of pod " + k.Pod + " did, which has none of that name"
	}
	return ""
}

// unobserved gives the coverage to every container of the namespace's pods on a
// node.
func (a *assembly) unobserved(node string, coverage behavior.Coverage) {
	for key, seen := range a.picture.seen {
		if key.namespace != a.options.Namespace || seen.node() != node || seen.over {
			continue
		}
		workload, labels, ok := a.picture.topology.Workload(key.namespace, key.name)
		if !ok {
			continue
		}
		coverage.Replicas = a.replicas[workload]
		for _, name := range seen.containers {
			a.result.Profiles.Add(behavior.Profile{
				Subject: behavior.Subject{Workload: workload, Container: name}, Labels: behavior.FormatLabels(labels), Coverage: coverage,
			})
		}
	}
}
