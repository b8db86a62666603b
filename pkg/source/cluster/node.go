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
	"google.golang.org/protobuf/proto"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// node is one node's collector and everything that was pulled from it.
type node struct {
	name string

	firstTry time.Duration // pause after the first try that failed
	most     limits

	busy sync.Mutex // held while it is pulled from; guards the connection
	pod  string
	conn *grpc.ClientConn
	// client is nil when there is no collector to speak to.
	client wirepb.CollectorClient

	mu sync.Mutex // guards what follows

	epoch      string
	since      uint64
	containers map[string]*pulled // by container ID
	facts      int                // of all containers
	weight     int                // bytes of their texts
	fresh      []novel            // what was not known before, until somebody takes it
	status     wire.Status
	former     behavior.Coverage // what collectors that are no more said that they lost
	restarts   int               // of the collector, while it was observing
	answered   time.Time         // last
	failure    error             // of the last pull, or why there is no collector
	cutOff     bool              // it broke the limits: nothing is asked of it any more
}

// pulled is one container as it was pulled so far.
type pulled struct {
	wire.Container
	former behavior.Coverage // as in node
	facts  map[behavior.Fact]wire.Observation
}

// novel is a fact of a container that was not known before.
type novel struct {
	namespace, pod, container string
	fact                      behavior.Fact
	last                      time.Time
}

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
	return &node{name: name, pod: pod, conn: conn, client: wirepb.NewCollectorClient(conn), firstTry: firstTry,
		most: limits{maxPullBytes, maxPullFacts, maxNodeWeight, maxPullTime}, containers: map[string]*pulled{}}, nil
}

// serves tells whether the node's connection is to this pod.
func (n *node) serves(pod string) bool {
	n.busy.Lock()
	defer n.busy.Unlock()
	return n.client != nil && n.pod == pod
}

// replace goes on with another collector of the node, which need not know what
// the one before knew: its epoch tells. What was pulled stays.
func (n *node) replace(by *node) error {
	n.busy.Lock()
	defer n.busy.Unlock()
	old := n.conn
	n.pod, n.conn, n.client, n.firstTry, n.most = by.pod, by.conn, by.client, by.firstTry, by.most
	n.mu.Lock()
	if n.containers == nil {
		n.containers = map[string]*pulled{}
	}
	n.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.Close()
}

// ready asks the collector whether it collects.
func (n *node) ready(ctx context.Context) (wire.Status, error) {
	reply, err := n.client.Status(ctx, &wirepb.StatusRequest{})
	if err != nil {
		return wire.Status{}, plain(err)
	}
	return wire.DecodeStatus(reply)
}

// pull takes over what is new, and tries so often, each time from where it broke
// off. Its failure is kept until a later pull succeeds. A collector that breaks a
// limit is not asked again: it would do the same, and may mean to.
func (n *node) pull(ctx context.Context, namespace string, now func() time.Time, tries int) error {
	n.mu.Lock()
	off := n.cutOff
	n.mu.Unlock()
	if off || n.client == nil {
		return nil // why is kept already
	}
	var err error
	wait := n.firstTry
	for try := range tries {
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
		if errors.Is(err, errOverdue) {
			break // the next pull goes on from here
		}
		if errors.Is(err, wire.ErrMessage) {
			n.mu.Lock()
			n.cutOff = true
			n.mu.Unlock()
			err = fmt.Errorf("cut off: %w", err)
			break
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
	most, epoch, since := n.most, n.epoch, n.since
	ctx, cancel := context.WithTimeoutCause(ctx, most.time, fmt.Errorf("%w %s", errOverdue, most.time))
	defer cancel()
	stream, err := n.client.Pull(ctx, &wirepb.PullRequest{Epoch: n.epoch, Since: n.since, Namespaces: []string{namespace}})
	if err != nil {
		return overdue(ctx, plain(err))
	}
	bytes, facts := 0, 0
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("collector ended before the last batch")
		}
		if err != nil {
			return overdue(ctx, plain(err))
		}
		batch, err := wire.DecodeBatch(message)
		if err != nil {
			return err
		}
		bytes += proto.Size(message)
		for _, c := range batch.Containers {
			facts += len(c.Facts)
		}
		switch {
		case bytes > most.bytes:
			return fmt.Errorf("%w: more than %d bytes in one pull", wire.ErrMessage, most.bytes)
		case facts > most.facts:
			return fmt.Errorf("%w: more than %d facts in one pull", wire.ErrMessage, most.facts)
		}
		if err := n.take(batch); err != nil {
			return err
		}
		if batch.Status != nil {
			if batch.Epoch == epoch && batch.Revision < since {
				return n.wentBack()
			}
			return nil
		}
	}
}

// wentBack begins anew with a collector that has less than it once told, as one
// does that went on from an older copy of its profile.
func (n *node) wentBack() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.since = 0
	n.restarts++
	return errors.New("collector went on from an older copy of what it knew")
}

// take merges one batch. Only then the revision moves on, so what was not merged
// is asked for again.
func (n *node) take(b wire.Batch) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.epoch != "" && b.Epoch != n.epoch {
		n.restarts++
		n.remember()
	}
	for _, c := range b.Containers {
		if err := n.takeContainer(c); err != nil {
			return err
		}
	}
	n.epoch, n.since = b.Epoch, b.Revision
	if b.Status != nil {
		n.status = *b.Status
	}
	return nil
}

// remember keeps what a collector said that it lost, now that another one follows,
// which need not know of it.
func (n *node) remember() {
	n.former = behavior.MergeCoverage(n.former, n.status.Coverage())
	for _, k := range n.containers {
		k.former = behavior.MergeCoverage(k.former, behavior.Coverage{Lost: k.Lost, LostAt: k.LostAt})
	}
}

func (n *node) takeContainer(c wire.Container) error {
	k := n.containers[c.ID]
	if k == nil {
		if len(n.containers) >= maxNodeContainers {
			return fmt.Errorf("%w: more than %d containers", wire.ErrMessage, maxNodeContainers)
		}
		k = &pulled{Container: c, facts: map[behavior.Fact]wire.Observation{}}
		k.Facts = nil
		n.containers[c.ID] = k
		n.weight += k.Weight()
	}
	if k.Namespace != c.Namespace || k.Pod != c.Pod || k.Name != c.Name {
		return fmt.Errorf("%w: container %s is of two pods", wire.ErrMessage, c.ID)
	}
	n.weight -= k.Weight()
	k.merge(c)
	n.weight += k.Weight()
	for _, o := range c.Facts {
		if old, ok := k.facts[o.Fact]; ok {
			n.weight -= old.Weight()
			o = mergeObservations(old, o)
		} else {
			n.facts++
			n.fresh = append(n.fresh, novel{k.Namespace, k.Pod, k.Name, o.Fact, o.Last})
		}
		k.facts[o.Fact] = o
		n.weight += o.Weight()
		switch {
		case len(k.facts) > wire.MaxFacts:
			return fmt.Errorf("%w: more than %d facts of one container", wire.ErrMessage, wire.MaxFacts)
		case n.facts > maxNodeFacts:
			return fmt.Errorf("%w: more than %d facts", wire.ErrMessage, maxNodeFacts)
		}
	}
	if n.weight > n.most.weight {
		return fmt.Errorf("%w: more than %d bytes of text", wire.ErrMessage, n.most.weight)
	}
	return nil
}

// merge takes over what a later message says of the container. What was seen
// once stays seen.
func (k *pulled) merge(c wire.Container) {
	was := k.Container
	k.Container = c // losses too: some are made good later
	k.Facts = nil
	if was.From.Before(k.From) {
		k.From = was.From
	}
	k.Start, k.Ready = k.Start || was.Start, k.Ready || was.Ready
	k.Steady, k.Terminated = k.Steady || was.Steady, k.Terminated || was.Terminated
	k.Restarts = max(k.Restarts, was.Restarts)
}

func mergeObservations(a, b wire.Observation) wire.Observation {
	e := behavior.MergeEvidence(a.Evidence(""), b.Evidence(""))
	return wire.Observation{Fact: b.Fact, Count: max(a.Count, b.Count), First: e.First, Last: e.Last, Parents: e.Parents, Snapshot: e.Snapshot}
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
