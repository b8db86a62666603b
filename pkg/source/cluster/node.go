package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// node is one collector and everything that was pulled from it.
type node struct {
	name, pod string
	conn      *grpc.ClientConn
	client    wirepb.CollectorClient // nil when there is no collector

	firstTry time.Duration // pause after the first try that failed

	busy sync.Mutex // held while it is pulled from
	mu   sync.Mutex // guards what follows

	epoch      string
	since      uint64
	containers map[string]*pulled // by container ID
	status     wire.Status
	restarts   int       // of the collector, while it was observing
	answered   time.Time // last
	failure    error     // of the last pull, or why there is no collector
}

// pulled is one container as it was pulled so far.
type pulled struct {
	wire.Container
	facts map[behavior.Fact]wire.Observation
}

// Bounds of what one collector may make the plugin hold.
const (
	maxNodeContainers = 20000
	maxNodeFacts      = 1 << 20
)

// Tries of one pull, and the pauses between them.
const (
	pullTries = 5
	firstTry  = 500 * time.Millisecond
)

// connect prepares the connection to a collector; it is made when first used, and
// again when it broke.
func connect(name, pod string, dial dialer) (*node, error) {
	conn, err := grpc.NewClient("passthrough:///"+pod,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // inside the API server's TLS
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, pod) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 20 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDisableServiceConfig(),
		// What the plugin talks through is the API server, never a proxy to a pod.
		grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to collector on %s: %w", name, err)
	}
	return &node{name: name, pod: pod, conn: conn, client: wirepb.NewCollectorClient(conn), firstTry: firstTry, containers: map[string]*pulled{}}, nil
}

// ready asks the collector whether it collects.
func (n *node) ready(ctx context.Context) (wire.Status, error) {
	reply, err := n.client.Status(ctx, &wirepb.StatusRequest{})
	if err != nil {
		return wire.Status{}, plain(err)
	}
	return wire.DecodeStatus(reply)
}

// pull takes over what is new, and tries again from where it broke off. Its
// failure is kept until a later pull succeeds.
func (n *node) pull(ctx context.Context, namespace string, now func() time.Time) error {
	var err error
	wait := n.firstTry
	for try := range pullTries {
		if try > 0 {
			if pause(ctx, wait) != nil {
				break
			}
			wait *= 2
		}
		if err = n.pullOnce(ctx, namespace); err == nil {
			n.settle(nil, now())
			return nil
		}
		if errors.Is(err, wire.ErrMessage) {
			break // it would say the same again
		}
	}
	err = fmt.Errorf("pull: %w", err)
	n.settle(err, now())
	return err
}

func (n *node) settle(failure error, at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failure = failure; failure == nil {
		n.answered = at
	}
}

func (n *node) pullOnce(ctx context.Context, namespace string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := n.client.Pull(ctx, &wirepb.PullRequest{Epoch: n.epoch, Since: n.since, Namespaces: []string{namespace}})
	if err != nil {
		return plain(err)
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("collector ended before the last batch")
		}
		if err != nil {
			return plain(err)
		}
		batch, err := wire.DecodeBatch(message)
		if err != nil {
			return err
		}
		if err := n.take(batch); err != nil {
			return err
		}
		if batch.Status != nil {
			return nil
		}
	}
}

// take merges one batch. Only then the revision moves on, so what was not merged
// is asked for again.
func (n *node) take(b wire.Batch) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.epoch != "" && b.Epoch != n.epoch {
		n.restarts++
	}
	total := 0
	for _, k := range n.containers {
		total += len(k.facts)
	}
	for _, c := range b.Containers {
		k := n.containers[c.ID]
		if k == nil {
			if len(n.containers) >= maxNodeContainers {
				return fmt.Errorf("%w: more than %d containers", wire.ErrMessage, maxNodeContainers)
			}
			k = &pulled{Container: c, facts: map[behavior.Fact]wire.Observation{}}
			n.containers[c.ID] = k
		}
		k.merge(c)
		for _, o := range c.Facts {
			if old, ok := k.facts[o.Fact]; ok {
				o = mergeObservations(old, o)
			} else if total++; total > maxNodeFacts {
				return fmt.Errorf("%w: more than %d facts", wire.ErrMessage, maxNodeFacts)
			}
			k.facts[o.Fact] = o
		}
	}
	n.epoch, n.since = b.Epoch, b.Revision
	if b.Status != nil {
		n.status = *b.Status
	}
	return nil
}

// merge takes over what a later message says of the container.
func (k *pulled) merge(c wire.Container) {
	from := k.From
	if c.From.Before(from) {
		from = c.From
	}
	start := k.Start || c.Start
	k.Container = c // losses too: some are made good later
	k.From, k.Start, k.Facts = from, start, nil
}

func mergeObservations(a, b wire.Observation) wire.Observation {
	b.Count = max(a.Count, b.Count)
	if a.First.Before(b.First) {
		b.First = a.First
	}
	if a.Last.After(b.Last) {
		b.Last = a.Last
	}
	return b
}

// view is a node in numbers.
type view struct {
	pods, facts int
	lost        uint64
	failure     error
}

func (n *node) view() view {
	n.mu.Lock()
	defer n.mu.Unlock()
	v := view{failure: n.failure}
	pods := map[string]bool{}
	for _, k := range n.containers {
		if len(k.facts) > 0 {
			pods[k.Pod] = true
		}
		v.facts += len(k.facts)
		for _, lost := range k.Lost {
			v.lost += lost
		}
	}
	for _, lost := range n.status.Lost {
		v.lost += lost
	}
	v.pods = len(pods)
	return v
}

// plain takes gRPC's wrapping off an error, and escapes what the other end says.
func plain(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	}
	return errors.New(escapeText(unwrapped(s.Message())))
}

// unwrapped takes off what gRPC puts around the reason why there is no connection.
func unwrapped(message string) string {
	if quoted, ok := strings.CutPrefix(message, "connection error: desc = "); ok {
		if reason, err := strconv.Unquote(quoted); err == nil {
			return strings.TrimPrefix(reason, "transport: Error while dialing: ")
		}
	}
	return message
}
