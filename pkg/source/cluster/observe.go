package cluster

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
)

// Watch says how long an observation lasts.
type Watch struct {
	Most time.Duration
	// Quiet, if not zero, ends it earlier: when no workload of the namespace did
	// anything new for so long, and all of its pods that run were observed.
	Quiet time.Duration
	// Entered lets what processes did that entered a container count as new, too.
	Entered bool
	// First, if not nil, is done when facts are being pulled already. The time
	// counts from its end, and its error ends the observation.
	First func(context.Context) error
}

// Ended tells why an observation ended.
type Ended struct {
	Quiet   bool          // nothing new came for so long as was asked for
	Took    time.Duration // without what was done first
	Silence time.Duration // since the last new fact
	// Last is who did the last new thing; the zero value when there was none.
	Last behavior.Subject
}

// Progress is how an observation goes on.
type Progress struct {
	Left      time.Duration
	Pods      int    // of the namespace, with at least one fact
	Facts     int    // distinct by container
	NewFacts  int    // in the last 10 seconds
	PerMinute int    // facts that no pod of their workload had shown before, in the last minute
	Lost      uint64 // on all nodes
	Nodes     int    // that answer
	Failing   []source.NodeError
	// Silence is how long nothing new came from any workload while all was
	// observed; Unseen are pods that run and of which nothing is known yet.
	Silence time.Duration
	Unseen  []string
}

// Rounds of an observation.
const (
	showEvery = time.Second
	pullEvery = 5 * time.Second // also what is lost at most when a collector dies
	freshSpan = 10 * time.Second
)

// Observe lets the collectors collect for a while, pulling what they have now and
// then, and tells the progress every second. It returns the context's error when
// that ends first; Pull then still gives what there is. It is ErrRemoved when
// there is nothing left to pull from.
func (s *Source) Observe(ctx context.Context, w Watch, show func(Progress)) (Ended, error) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { s.picture.follow(ctx, s.api) })
	removed := make(chan error, 1)
	running.Go(func() { removed <- s.pullOften(ctx) })
	if w.First != nil {
		if err := s.first(ctx, w.First, removed); err != nil {
			return Ended{}, err
		}
	}
	begin := s.options.Now()
	news := newNovelty(begin, w.Entered)
	ticker := time.NewTicker(showEvery)
	defer ticker.Stop()
	history := []mark{{begin, 0}}
	for {
		now := s.options.Now()
		p := s.progress()
		history = append(history, mark{now, p.Facts})
		history = slices.DeleteFunc(history, func(m mark) bool { return now.Sub(m.at) > freshSpan })
		p.NewFacts = p.Facts - history[0].facts
		s.novel(news, now)
		p.Unseen = s.unseen()
		news.complete(now, len(p.Unseen) == 0 && !s.blind(p.Failing))
		p.PerMinute, p.Silence = news.rate(now), now.Sub(news.since)
		ended := Ended{Quiet: w.Quiet > 0 && p.Silence >= w.Quiet, Took: now.Sub(begin), Silence: now.Sub(news.last), Last: news.who}
		if p.Left = (w.Most - ended.Took).Round(time.Second); p.Left <= 0 || ended.Quiet {
			return ended, nil
		}
		show(p)
		select {
		case <-ctx.Done():
			return ended, ctx.Err()
		case err := <-removed:
			return ended, err
		case <-ticker.C:
		}
	}
}

// first does what comes first, unless somebody removes the collectors.
func (s *Source) first(ctx context.Context, do func(context.Context) error, removed <-chan error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	select {
	case err := <-done:
		return err
	case err := <-removed:
		cancel()
		<-done
		return err
	}
}

// mark is how many facts there were at a moment.
type mark struct {
	at    time.Time
	facts int
}

// pullOften pulls from every node in rounds until the context ends, or
// somebody removed the collectors.
func (s *Source) pullOften(ctx context.Context) error {
	ticker := time.NewTicker(pullEvery)
	defer ticker.Stop()
	for {
		s.refresh(ctx)
		s.pullAll(ctx, 1) // the next round is the next try
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if err := s.stillThere(ctx); err != nil {
			return err
		}
	}
}

// stillThere tells whether the namespace that Deploy created is there and stays.
func (s *Source) stillThere(ctx context.Context) error {
	if s.uid == "" {
		return nil
	}
	n, err := s.api.Resource(resource("", "v1", "namespaces")).Get(ctx, manifests.Namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return ErrRemoved
	case err != nil:
		return nil // the API server has a moment; the nodes' own failures say more
	case n.GetUID() != s.uid || n.GetDeletionTimestamp() != nil:
		return ErrRemoved
	}
	return nil
}

// pullAll pulls from all nodes side by side. What fails stands in the node.
func (s *Source) pullAll(ctx context.Context, tries int) {
	limit := make(chan struct{}, 64)
	var running sync.WaitGroup
	for _, n := range s.list() {
		running.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			n.busy.Lock()
			defer n.busy.Unlock()
			// The failure is kept in the node, and ends up in the coverage.
			_ = n.pull(ctx, s.options.Namespace, s.options.Now, tries)
		})
	}
	running.Wait()
}

// list gives the nodes in the order of their names.
func (s *Source) list() []*node {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*node, 0, len(s.nodes))
	for _, n := range s.nodes {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return list
}

func (s *Source) progress() Progress {
	var p Progress
	for _, n := range s.list() {
		v := n.view()
		p.Pods += v.pods
		p.Facts += v.facts
		p.Lost += v.lost
		if v.failure != nil {
			p.Failing = append(p.Failing, source.NodeError{Node: n.name, Reason: escape(v.failure)})
		} else {
			p.Nodes++
		}
	}
	return p
}
