//go:build linux

package collector

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// client serves the bench's collector and connects to it.
func (b *bench) client() wirepb.CollectorClient {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, listener) }()
	conn, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("serve ended with %v", err)
		}
	})
	return wirepb.NewCollectorClient(conn)
}

// pull gives the facts and the last batch of one pull.
func (b *bench) pull(client wirepb.CollectorClient, request *wirepb.PullRequest) (map[behavior.Fact]wire.Observation, wire.Batch) {
	b.t.Helper()
	stream, err := client.Pull(b.t.Context(), request)
	if err != nil {
		b.t.Fatal(err)
	}
	facts := map[behavior.Fact]wire.Observation{}
	var last wire.Batch
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return facts, last
		}
		if err != nil {
			b.t.Fatal(err)
		}
		if last, err = wire.DecodeBatch(m); err != nil {
			b.t.Fatal(err)
		}
		for _, c := range last.Containers {
			for _, o := range c.Facts {
				facts[o.Fact] = o
			}
		}
	}
}

func TestAPullGivesWhatChangedSinceTheLast(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	id := b.sees(77, 100, reads("/a"))
	b.sees(77, 100, reads("/b"))
	b.kern.calls[77] = []SyscallSet{{Arch: "amd64", Names: []string{"read", "write"}}}
	client := b.client()

	facts, batch := b.pull(client, &wirepb.PullRequest{})
	if len(facts) != 4 || batch.Status == nil || batch.Status.Pods != 1 || !batch.Status.Ready {
		t.Fatalf("first pull gives %d facts and %+v", len(facts), batch.Status)
	}
	since := &wirepb.PullRequest{Epoch: batch.Epoch, Since: batch.Revision}
	facts, batch = b.pull(client, since)
	if len(facts) != 0 || len(batch.Containers) != 1 {
		t.Errorf("nothing changed, yet %d facts and %d containers came", len(facts), len(batch.Containers))
	}
	b.kern.counts[id] = 7
	b.sees(77, 100, reads("/c"))
	facts, _ = b.pull(client, since)
	if len(facts) != 2 || facts[reads("/a")].Count != 7 {
		t.Errorf("after a change the pull gives %v", facts)
	}
	facts, _ = b.pull(client, &wirepb.PullRequest{Epoch: "another", Since: since.Since})
	if len(facts) != 5 {
		t.Errorf("a puller of another epoch gets %d facts, want all 5", len(facts))
	}
	facts, batch = b.pull(client, &wirepb.PullRequest{Namespaces: []string{"other"}})
	if len(facts) != 0 || len(batch.Containers) != 0 {
		t.Errorf("another namespace gets %d facts", len(facts))
	}
}

func TestStatusTellsTheStateOfTheNode(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.kern.lost["ring buffer full"] = 3
	b.problem("scan processes", errors.New("no\x1b"))
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, reads("/a"))
	reply, err := b.client().Status(t.Context(), &wirepb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := wire.DecodeStatus(reply)
	if err != nil {
		t.Fatal(err)
	}
	if s.Node != "node-1" || s.Epoch != "e1" || s.Pods != 1 || s.Facts != 1 || s.NewFacts != 1 || s.Lost["ring buffer full"] != 3 || len(s.Missing) != 1 || len(s.Problems) != 1 {
		t.Errorf("status is %+v", s)
	}
	b.clock = b.clock.Add(11 * time.Second)
	if got := b.Status().NewFacts; got != 0 {
		t.Errorf("%d facts are new after 11 seconds", got)
	}
}

// namespaces is an API in which deleting fails some times.
type namespaces struct {
	dynamic.Interface
	dynamic.NamespaceableResourceInterface
	errs    []error
	deleted []string
}

func (n *namespaces) Resource(schema.GroupVersionResource) dynamic.NamespaceableResourceInterface {
	return n
}

func (n *namespaces) Delete(_ context.Context, name string, _ metav1.DeleteOptions, _ ...string) error {
	n.deleted = append(n.deleted, name)
	if len(n.errs) == 0 {
		return nil
	}
	err := n.errs[0]
	n.errs = n.errs[1:]
	return err
}

func TestTheNamespaceIsRemovedHoweverOftenItFails(t *testing.T) {
	missing := apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "x")
	for name, c := range map[string]struct {
		errs     []error
		attempts int
		after    time.Duration
	}{
		"at once":                     {nil, 1, 0},
		"when it is gone already":     {[]error{missing}, 1, 0},
		"when the API server is away": {[]error{errors.New("a"), errors.New("b"), errors.New("c")}, 4, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := &namespaces{errs: c.errs}
				begin, failures := time.Now(), 0
				if err := RemoveNamespace(t.Context(), api, "x", func(error) { failures++ }); err != nil {
					t.Fatal(err)
				}
				if len(api.deleted) != c.attempts || failures != c.attempts-1 || time.Since(begin) != c.after {
					t.Errorf("%d attempts, %d failures, after %s; want %d attempts after %s", len(api.deleted), failures, time.Since(begin), c.attempts, c.after)
				}
			})
		})
	}
}

func TestTheRemovalEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		forever := &namespaces{}
		for range 1000 {
			forever.errs = append(forever.errs, errors.New("away"))
		}
		if err := RemoveNamespace(ctx, forever, "x", func(error) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		// 1+2+4+...+32, then every minute.
		if got := len(forever.deleted); got < 60 || got > 70 {
			t.Errorf("%d attempts in an hour", got)
		}
	})
}

func TestDeadlines(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{"": {}, "90m": now.Add(90 * time.Minute), "2026-01-01T13:00:00Z": now.Add(time.Hour)} {
		if got, err := ParseDeadline(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"soon", "-1h", "0s", "2026-01-01"} {
		if _, err := ParseDeadline(text, now); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
