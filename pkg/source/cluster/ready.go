package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
)

// NodeState is how far a node's collector has come.
type NodeState struct {
	Node   string // empty for what holds up all nodes
	Ready  bool
	Reason string // in words, escaped; why it is not ready yet
	// Hopeless says that waiting alone would not help.
	Hopeless bool
}

// ReadyError says why no node's collector works. It is an ErrNoNode.
type ReadyError struct {
	Nodes []NodeState
}

// Error implements error.
func (e *ReadyError) Error() string {
	reasons := map[string][]string{}
	for _, n := range e.Nodes {
		reasons[n.Reason] = append(reasons[n.Reason], n.Node)
	}
	var list []string
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		if names := strings.Trim(strings.Join(reasons[reason], ", "), ", "); names != "" {
			reason = names + ": " + reason
		}
		list = append(list, reason)
	}
	return ErrNoNode.Error() + ": " + strings.Join(list, "; ")
}

// Is tells that a ReadyError is an ErrNoNode.
func (e *ReadyError) Is(target error) bool { return target == ErrNoNode }

// Hint says what a user can do.
func (e *ReadyError) Hint() string {
	for _, n := range e.Nodes {
		switch {
		case strings.HasPrefix(n.Reason, imageReason):
			return "name an image that the nodes can pull: --collector-image"
		case strings.HasPrefix(n.Reason, refusedReason):
			return "the collector needs pods with host processes and capabilities in namespace " + manifests.Namespace + ": exempt it where an admission policy forbids them"
		case strings.Contains(n.Reason, "BTF"):
			return "the nodes need a kernel of 5.10 or later that is built with CONFIG_DEBUG_INFO_BTF=y"
		}
	}
	return ""
}

// noAnswer is the reason of a node whose program runs and cannot be reached, as
// long as that is to be expected.
const noAnswer = "starting, does not answer yet"

// How often nodes are looked at, and how long one answer may take.
const (
	readyEvery    = 500 * time.Millisecond
	answerTimeout = 10 * time.Second
)

// WaitReady waits until every node's collector collects, and tells how far they
// are whenever that changes. It stops waiting for a node when that is hopeless,
// or at the timeout of Options: the node then is a gap in the coverage. It is a
// ReadyError when no node is left.
func (s *Source) WaitReady(ctx context.Context, show func([]NodeState)) error {
	give := s.options.Now().Add(s.options.NodeTimeout)
	ticker := time.NewTicker(readyEvery)
	defer ticker.Stop()
	var last []NodeState
	for {
		states, err := s.states(ctx)
		if err != nil {
			return fmt.Errorf("wait for collectors: %w", err)
		}
		if !slices.Equal(states, last) {
			show(states)
			last = states
		}
		late := s.options.Now().After(give)
		open := slices.ContainsFunc(states, func(n NodeState) bool { return !n.Ready && !n.Hopeless })
		if late || !open {
			return s.settle(states)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// settle takes the nodes as they are. A node that is not ready is kept, with why.
func (s *Source) settle(states []NodeState) error {
	ready := 0
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, state := range states {
		if state.Ready {
			ready++
		} else if n := s.nodes[state.Node]; n != nil {
			if v := n.view(); v.failure != nil && state.Reason == noAnswer {
				states[i].Reason = escape(v.failure) // more than was worth showing while it went on
			} else {
				n.settle(errors.New(state.Reason), time.Time{})
			}
		} else if state.Node != "" {
			s.nodes[state.Node] = &node{name: state.Node, failure: errors.New(state.Reason)}
		}
	}
	if ready == 0 {
		return &ReadyError{Nodes: states}
	}
	return nil
}

// states looks at every node's collector.
func (s *Source) states(ctx context.Context) ([]NodeState, error) {
	set, err := s.daemonSet(ctx)
	if err != nil {
		return nil, err
	}
	pods, err := s.collectorPods(ctx)
	if err != nil {
		return nil, err
	}
	var states []NodeState
	for _, p := range pods {
		state := p.state()
		if state.Ready {
			state = s.ask(ctx, state.Node, p.Metadata.Name)
		}
		states = append(states, state)
	}
	slices.SortFunc(states, func(a, b NodeState) int { return strings.Compare(a.Node, b.Node) })
	switch {
	case !set.seen():
		states = append(states, NodeState{Reason: "waiting for the cluster to see the collector"})
	case set.Status.Desired == 0:
		states = append(states, NodeState{Reason: "no node takes the collector", Hopeless: true})
	case len(pods) < set.Status.Desired:
		states = append(states, s.refused(ctx, set.Status.Desired-len(pods)))
	}
	return states, nil
}

// attach gives the node with a connection to the collector in the pod.
func (s *Source) attach(name, pod string) (*node, error) {
	s.mu.Lock()
	n := s.nodes[name]
	s.mu.Unlock()
	if n != nil && n.serves(pod) {
		return n, nil
	}
	made, err := connect(name, pod, s.dial)
	if err != nil {
		return n, err
	}
	if n != nil {
		// A pod that was replaced is another collector; what the one before it told
		// stays.
		return n, n.replace(made)
	}
	s.mu.Lock()
	s.nodes[name] = made
	s.mu.Unlock()
	return made, nil
}

// refresh connects to the collectors that came since: those of nodes that joined,
// and those whose pod was replaced.
func (s *Source) refresh(ctx context.Context) {
	if s.api == nil {
		return
	}
	pods, err := s.collectorPods(ctx)
	if err != nil {
		return // the API server has a moment; the nodes' own failures say more
	}
	for _, p := range pods {
		state := p.state()
		if !state.Ready {
			continue
		}
		if n, err := s.attach(state.Node, p.Metadata.Name); err != nil && n != nil {
			n.settle(err, time.Time{})
		}
	}
}

// ask connects to a collector whose program runs.
func (s *Source) ask(ctx context.Context, name, pod string) NodeState {
	n, err := s.attach(name, pod)
	if err != nil {
		return NodeState{Node: name, Reason: escape(err)}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	status, err := n.ready(ctx)
	switch {
	case err != nil:
		n.settle(fmt.Errorf("does not answer: %w", err), time.Time{})
		return NodeState{Node: name, Reason: noAnswer}
	case !status.Ready:
		return NodeState{Node: name, Reason: strings.Join(append([]string{"reads the list of pods"}, status.Problems...), ": ")}
	}
	n.settle(nil, s.options.Now())
	return NodeState{Node: name, Ready: true}
}

// refused says why pods of the DaemonSet are not there.
func (s *Source) refused(ctx context.Context, missing int) NodeState {
	state := NodeState{Reason: fmt.Sprintf("waiting for %d pods", missing)}
	list, err := s.api.Resource(resource("", "v1", "events")).Namespace(manifests.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "reason=FailedCreate,involvedObject.kind=DaemonSet",
	})
	if err != nil {
		state.Reason += "; " + escape(err)
		return state
	}
	for _, event := range list.Items {
		if text, ok := event.Object["message"].(string); ok {
			return NodeState{Reason: refusedReason + escapeText(text), Hopeless: true}
		}
	}
	return state
}
