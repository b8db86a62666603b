package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

type pullStream = grpc.ServerStreamingServer[wirepb.Batch]

// many is a batch of distinct facts of a container; from is the number of the first.
func many(id string, from, n int) *wirepb.Batch {
	c := wire.Container{Namespace: "shop", Pod: "web-1", Name: "web", ID: id}
	for i := range n {
		f := behavior.Fact{Kind: behavior.File, Exe: "/app", Path: fmt.Sprintf("/%d", from+i), Access: behavior.Read}
		c.Facts = append(c.Facts, wire.Observation{Fact: f, Count: 1, First: at(), Last: at()})
	}
	return &wirepb.Batch{Epoch: "e", Containers: []*wirepb.Container{wire.EncodeContainer(c)}}
}

// forEver sends until the other end has had enough.
func forEver(stream pullStream, batch func(i int) *wirepb.Batch) error {
	for i := 0; ; i++ {
		if err := stream.Send(batch(i)); err != nil {
			return err
		}
	}
}

func TestACollectorThatFloodsIsCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		most limits // of one pull; the zero value leaves them as they are
		send func(pullStream) error
		want string
	}{
		"the same fact again and again": {limits{1 << 30, 500, 1 << 30, time.Minute}, func(s pullStream) error {
			return forEver(s, func(int) *wirepb.Batch { return many("id", 0, 1) })
		}, "more than 500 facts in one pull"},
		"containers without a fact": {limits{100_000, 500, 1 << 30, time.Minute}, func(s pullStream) error {
			return forEver(s, func(int) *wirepb.Batch { return many("id", 0, 0) })
		}, "more than 100000 bytes in one pull"},
		"ever more containers": {limits{}, func(s pullStream) error {
			return forEver(s, func(i int) *wirepb.Batch { return many(fmt.Sprint(i), 0, 0) })
		}, "more than 20000 containers"},
		"ever more facts of one container": {limits{}, func(s pullStream) error {
			return forEver(s, func(i int) *wirepb.Batch { return many("id", i*4096, 4096) })
		}, "more than 65536 facts of one container"},
		"ever longer names": {limits{1 << 30, 1 << 20, 5_000_000, time.Minute}, func(s pullStream) error {
			return forEver(s, func(i int) *wirepb.Batch {
				b := many("id", i*200, 200)
				for _, f := range b.Containers[0].Facts {
					f.Path += strings.Repeat("x", wire.MaxText-20)
				}
				return b
			})
		}, "more than 5000000 bytes of text"},
		"a container of two pods": {limits{}, func(s pullStream) error {
			return forEver(s, func(i int) *wirepb.Batch {
				b := many("id", 0, 1)
				b.Containers[0].Pod = fmt.Sprint("web-", i)
				return b
			})
		}, "container id is of two pods"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeCollector{epoch: "e", send: c.send}
			n, err := connect("node-1", "pod-1", serve(t, f, 0, 0))
			if err != nil {
				t.Fatal(err)
			}
			defer n.conn.Close()
			if c.most != (limits{}) {
				n.most = c.most
			}
			if err := n.pull(t.Context(), "shop", at, pullTries); !errors.Is(err, wire.ErrMessage) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if err := n.pull(t.Context(), "shop", at, pullTries); err != nil || f.pulls.Load() != 1 || n.view().failure == nil {
				t.Errorf("it was asked %d times (%v), and has the failure %v", f.pulls.Load(), err, n.view().failure)
			}
		})
	}
}

func TestACollectorThatNeverEndsIsLeftAndAskedAgain(t *testing.T) {
	f := &fakeCollector{epoch: "e", send: func(s pullStream) error {
		if err := s.Send(many("id", 0, 1)); err != nil {
			return err
		}
		<-s.Context().Done()
		return s.Context().Err()
	}}
	n, err := connect("node-1", "pod-1", serve(t, f, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer n.conn.Close()
	// As long as the machine needs for the first fact; it ends by nothing else.
	n.most.time = 5 * time.Second
	if err := n.pull(t.Context(), "shop", at, pullTries); !errors.Is(err, errOverdue) || f.pulls.Load() != 1 {
		t.Errorf("got %v after %d pulls", err, f.pulls.Load())
	}
	if n.cutOff {
		t.Error("it is not asked again")
	}
}
