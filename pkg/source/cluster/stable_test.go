package cluster

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func TestAnObservationEndsWhenNothingNewComes(t *testing.T) {
	for name, c := range map[string]struct {
		pods   []string // that run
		broken bool     // the node does not answer as it should
		quiet  bool
	}{
		"all was observed":                 {[]string{"web-1"}, false, true},
		"a pod runs that nobody told of":   {[]string{"web-1", "web-2"}, false, false},
		"its node does not answer rightly": {[]string{"web-1"}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting for the next round
			objects := map[string]values{}
			for _, pod := range c.pods {
				objects["Pod/"+pod] = values{"spec": values{"nodeName": "node-1", "containers": []any{values{"name": "web"}}}, "status": values{"phase": "Running"}}
			}
			s := shopOf(t, objects)
			// The clock goes on with each round that is shown; where the observation is to
			// end by itself, not before the machine has got to observing all.
			var rounds atomic.Int64
			s.options.Now = func() time.Time { return at().Add(20 * time.Second * time.Duration(rounds.Load())) }
			s.picture.now = at
			n, err := connect("node-1", "pod-1", serve(t, &fakeCollector{epoch: "e", facts: manyFacts(3), broken: c.broken}, 0, 0))
			if err != nil {
				t.Fatal(err)
			}
			defer n.conn.Close()
			s.nodes["node-1"] = n
			first := false
			var last Progress
			ended, err := s.Observe(t.Context(), Watch{Most: 3 * time.Minute, Quiet: time.Minute, First: func(context.Context) error {
				first = true
				return nil
			}}, func(p Progress) {
				if last = p; !c.quiet || p.Facts == 3 && len(p.Unseen) == 0 {
					rounds.Add(1)
				}
			})
			if err != nil || !first {
				t.Fatal(err, first)
			}
			if ended.Quiet != c.quiet || !ended.Quiet && ended.Took < 3*time.Minute {
				t.Errorf("ended with %+v, last %+v", ended, last)
			}
			if c.quiet && (ended.Last.Workload.Name != "web-1" || ended.Last.Container != "web" || last.Facts != 3) {
				t.Errorf("ended with %+v, last %+v", ended, last)
			}
			if len(c.pods) > 1 && !slices.Equal(last.Unseen, []string{"web-2"}) {
				t.Errorf("unseen are %q", last.Unseen)
			}
		})
	}
}

func TestWhatFailsFirstEndsTheObservation(t *testing.T) {
	s := shopOf(t, nil)
	if _, err := s.Observe(t.Context(), Watch{Most: time.Hour, First: func(context.Context) error { return ErrNoPods }}, func(Progress) {}); err != ErrNoPods {
		t.Errorf("got %v", err)
	}
}
