package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

func at() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) }

// fakeCollector holds facts of one container, the i-th at revision i+1.
type fakeCollector struct {
	wirepb.UnimplementedCollectorServer
	epoch  string
	facts  []wire.Observation
	pulls  atomic.Int32
	since  atomic.Uint64 // of the last pull
	broken bool          // sends a fact that no collector may state
	// send, if not nil, is what a pull sends instead.
	send func(grpc.ServerStreamingServer[wirepb.Batch]) error
}

func (f *fakeCollector) container() wire.Container {
	return wire.Container{Namespace: "shop", Pod: "web-1", UID: "u", Name: "web", ID: "id1", Image: "web:1", From: at(), To: at().Add(time.Minute)}
}

func (f *fakeCollector) Status(context.Context, *wirepb.StatusRequest) (*wirepb.StatusReply, error) {
	return wire.EncodeStatus(wire.Status{Epoch: f.epoch, Ready: true}), nil
}

func (f *fakeCollector) Pull(r *wirepb.PullRequest, stream grpc.ServerStreamingServer[wirepb.Batch]) error {
	f.pulls.Add(1)
	since := r.GetSince()
	if r.GetEpoch() != f.epoch {
		since = 0
	}
	f.since.Store(since)
	if f.send != nil {
		return f.send(stream)
	}
	if f.broken {
		return stream.Send(&wirepb.Batch{Epoch: f.epoch, Containers: []*wirepb.Container{{Namespace: "shop", Pod: "\n", Name: "web"}}})
	}
	w := wire.NewWriter(f.epoch, stream.Send)
	for i := since; i < uint64(len(f.facts)); i++ {
		if err := w.Add(f.container(), f.facts[i], i+1); err != nil {
			return err
		}
	}
	if err := w.Touch(f.container()); err != nil {
		return err
	}
	return w.Close(uint64(len(f.facts)), wire.Status{Epoch: f.epoch, Lost: map[string]uint64{"ring": 2}})
}

// manyFacts are large enough for several batches.
func manyFacts(n int) []wire.Observation {
	var list []wire.Observation
	for i := range n {
		path := fmt.Sprintf("/%04d/%s", i, strings.Repeat("x", 3000))
		list = append(list, wire.Observation{Fact: behavior.Fact{Kind: behavior.File, Exe: "/app", Path: path, Access: behavior.Read}, Count: 1, First: at(), Last: at()})
	}
	return list
}

// serve starts the collector and gives a dialer whose connections break after so
// many bytes, each time, until they were broken so often.
func serve(t *testing.T, f *fakeCollector, breakAfter int, times int32) dialer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	wirepb.RegisterCollectorServer(server, f)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	var broken atomic.Int32
	return func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil || broken.Load() >= times {
			return conn, err
		}
		return &flaky{Conn: conn, left: breakAfter, broken: &broken}, nil
	}
}

// flaky breaks after some bytes were read.
type flaky struct {
	net.Conn
	left   int
	broken *atomic.Int32
}

func (f *flaky) Read(p []byte) (int, error) {
	if f.left <= 0 {
		f.broken.Add(1)
		return 0, errors.Join(errors.New("lost connection to pod"), f.Conn.Close())
	}
	n, err := f.Conn.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, err
}

func TestAPullGoesOnWhereTheConnectionBroke(t *testing.T) {
	f := &fakeCollector{epoch: "e", facts: manyFacts(1000)}
	n, err := connect("node-1", "pod-1", serve(t, f, 1_200_000, 2))
	if err != nil {
		t.Fatal(err)
	}
	defer n.conn.Close()
	if err := n.pull(t.Context(), "shop", at, pullTries); err != nil {
		t.Fatal(err)
	}
	if got := len(n.containers["id1"].facts); got != 1000 {
		t.Errorf("%d facts, want all 1000", got)
	}
	if f.pulls.Load() != 3 || f.since.Load() == 0 {
		t.Errorf("%d pulls, the last since %d: want three, the last from where it broke", f.pulls.Load(), f.since.Load())
	}
	if v := n.view(); v.failure != nil || v.lost != 2 || v.pods != 1 {
		t.Errorf("view is %+v", v)
	}
}

func TestAPullThatKeepsBreakingFailsAndKeepsWhatItHas(t *testing.T) {
	f := &fakeCollector{epoch: "e", facts: manyFacts(4000)}
	n, err := connect("node-1", "pod-1", serve(t, f, 1_200_000, 1000))
	if err != nil {
		t.Fatal(err)
	}
	defer n.conn.Close()
	n.firstTry = time.Millisecond
	if err := n.pull(t.Context(), "shop", at, pullTries); err == nil {
		t.Fatal("pull succeeded over a connection that always breaks")
	}
	if n.failure == nil || len(n.containers["id1"].facts) == 0 {
		t.Errorf("failure %v, %d facts", n.failure, len(n.containers["id1"].facts))
	}
}

func TestACollectorThatStartedAgainIsNoticed(t *testing.T) {
	f := &fakeCollector{epoch: "e1", facts: manyFacts(3)}
	n, err := connect("node-1", "pod-1", serve(t, f, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer n.conn.Close()
	for _, epoch := range []string{"e1", "e2"} {
		f.epoch = epoch
		if err := n.pull(t.Context(), "shop", at, pullTries); err != nil {
			t.Fatal(err)
		}
	}
	if n.restarts != 1 || f.since.Load() != 0 {
		t.Errorf("%d restarts, last pull since %d; want 1 and 0", n.restarts, f.since.Load())
	}
}

func TestAMalformedBatchIsNotAskedForAgain(t *testing.T) {
	f := &fakeCollector{epoch: "e", broken: true}
	n, err := connect("node-1", "pod-1", serve(t, f, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer n.conn.Close()
	if err := n.pull(t.Context(), "shop", at, pullTries); !errors.Is(err, wire.ErrMessage) {
		t.Fatalf("got %v", err)
	}
	if f.pulls.Load() != 1 {
		t.Errorf("%d pulls", f.pulls.Load())
	}
}

func TestErrorsOfTheOtherEndAreEscaped(t *testing.T) {
	if got := plain(status.Error(codes.Unavailable, "\x1b[31mred")).Error(); !behavior.IsEscaped(got) {
		t.Errorf("not safe to print: %q", got)
	}
	if err := plain(status.Error(codes.Canceled, "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
