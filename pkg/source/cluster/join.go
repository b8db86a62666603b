package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// ErrNoCollector says that nobody observes just now.
var ErrNoCollector = errors.New("no collector is in the cluster")

// Joined is the run whose collectors are asked.
type Joined struct {
	By    string // who deployed them, escaped; empty when it does not say
	Since time.Time
	Nodes int // whose collector answers or may do so
}

// Join connects to the collectors of a run that is under way, and changes
// nothing: Pull then gives what they know so far. It is ErrNoCollector when there
// are none. The caller calls Leave, and never Remove.
func (s *Source) Join(ctx context.Context) (Joined, error) {
	n, err := s.api.Resource(resource("", "v1", "namespaces")).Get(ctx, manifests.Namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return Joined{}, ErrNoCollector
	case err != nil:
		return Joined{}, fmt.Errorf("look for collectors: %w", err)
	case n.GetDeletionTimestamp() != nil:
		return Joined{}, fmt.Errorf("%w: it is being removed", ErrNoCollector)
	}
	joined := Joined{By: behavior.Escape(n.GetAnnotations()[byAnnotation]), Since: n.GetCreationTimestamp().UTC()}
	pods, err := s.collectorPods(ctx)
	if err != nil {
		return Joined{}, fmt.Errorf("look for collectors: %w", err)
	}
	for _, p := range pods {
		state := p.state()
		if !state.Ready {
			s.mu.Lock()
			s.nodes[state.Node] = &node{name: state.Node, failure: errors.New(state.Reason)}
			s.mu.Unlock()
			continue
		}
		if _, err := s.attach(state.Node, p.Metadata.Name); err != nil {
			return Joined{}, err
		}
		joined.Nodes++
	}
	if joined.Nodes == 0 {
		return joined, fmt.Errorf("%w that is ready", ErrNoCollector)
	}
	return joined, nil
}

// Leave ends the connections of Join.
func (s *Source) Leave() error {
	var err error
	for _, n := range s.list() {
		if n.conn != nil {
			err = errors.Join(err, n.conn.Close())
		}
	}
	s.mu.Lock()
	s.nodes = map[string]*node{}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("close connections: %w", err)
	}
	return nil
}
