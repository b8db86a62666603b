package cluster

import (
	"context"
	"errors"
	"fmt"
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
	s.pullAll(ctx)
	if err := ctx.Err(); err != nil {
		return source.Result{}, err
	}
	p := s.picture
	p.mu.Lock()
	defer p.mu.Unlock()
	p.topology.Seal()
	a := assembly{Source: s, result: source.Result{Profiles: behavior.Profiles{}, Topology: p.topology}}
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
	result source.Result
}

// node adds everything of one node, what is missing of it included.
func (a *assembly) node(n *node) {
	lost := map[string]uint64{}
	for reason, count := range n.status.Lost {
		lost[n.name+": "+reason] = count
	}
	if n.status.Unattributed > 0 {
		lost[n.name+": containers that no pod names"] = n.status.Unattributed
		a.result.Unattributed += n.status.Unattributed
	}
	gaps := a.gaps(n)
	for _, reason := range gaps {
		a.result.Nodes = append(a.result.Nodes, source.NodeError{Node: n.name, Reason: reason})
	}
	for i, reason := range gaps {
		gaps[i] = "node " + n.name + ": " + reason
	}
	for _, k := range n.containers {
		a.container(n, k, lost, gaps)
	}
	// Pods of the namespace that the node never told of still have a container
	// each of which nothing is known.
	if len(gaps) > 0 {
		a.unobserved(n.name, behavior.Coverage{Gaps: gaps, Lost: lost})
	}
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
	return gaps
}

func (a *assembly) container(n *node, k *pulled, lost map[string]uint64, gaps []string) {
	if k.Namespace != a.options.Namespace {
		return
	}
	workload, labels, ok := a.picture.topology.Workload(k.Namespace, k.Pod)
	if !ok {
		// A pod that came and went while the API server showed it to nobody.
		a.result.Unattributed += uint64(len(k.facts))
		a.result.Nodes = append(a.result.Nodes, source.NodeError{Node: n.name, Reason: "pod " + k.Pod + " is of an unknown workload"})
		return
	}
	coverage := behavior.Coverage{
		Replicas: a.picture.topology.Replicas(workload), Lost: map[string]uint64{}, Gaps: gaps,
		Pods: map[string]behavior.PodCoverage{k.Pod: {Node: n.name, Image: k.Image, From: k.From, To: k.To, Start: k.Start}},
	}
	for reason, count := range lost {
		coverage.Lost[reason] = count
	}
	for reason, count := range k.Lost {
		coverage.Lost[k.Pod+": "+reason] = count
	}
	profile := behavior.Profile{
		Subject: behavior.Subject{Workload: workload, Container: k.Name}, Labels: behavior.FormatLabels(labels), Coverage: coverage,
	}
	for f, o := range k.facts {
		evidence := behavior.Evidence{First: o.First, Last: o.Last, Pods: map[string]uint64{k.Pod: o.Count}}
		for _, resolved := range a.picture.topology.Resolve(f, k.Namespace, k.Pod, o.Last) {
			profile.Add(resolved, evidence)
		}
	}
	a.result.Profiles.Add(profile)
}

// unobserved gives the coverage to every container of the namespace's pods on a
// node.
func (a *assembly) unobserved(node string, coverage behavior.Coverage) {
	for key, seen := range a.picture.seen {
		if key.namespace != a.options.Namespace || seen.node != node {
			continue
		}
		workload, labels, ok := a.picture.topology.Workload(key.namespace, key.name)
		if !ok {
			continue
		}
		coverage.Replicas = a.picture.topology.Replicas(workload)
		for _, name := range seen.containers {
			a.result.Profiles.Add(behavior.Profile{
				Subject: behavior.Subject{Workload: workload, Container: name}, Labels: behavior.FormatLabels(labels), Coverage: coverage,
			})
		}
	}
}
