package hubble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	relaypb "github.com/cilium/cilium/api/v1/relay"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// Options say whom to ask for what.
type Options struct {
	Connect   func(context.Context) (*grpc.ClientConn, error)
	Namespace string
	// History is how far back to ask for what the nodes still have.
	History time.Duration
	Now     func() time.Time
}

// Source follows the traffic of one namespace. Check comes first, then
// source.Follow with it as the stream, then Result.
type Source struct {
	options Options

	mu       sync.Mutex
	book     *Book
	begun    time.Time // when it was connected first
	latest   int64     // time of the latest flow, in seconds
	cut      time.Time // when the connection ended; zero while it stands
	broken   error
	tooLarge bool // a message was, so that what came up to then is not asked for again
}

var _ source.Stream = (*Source)(nil)

// New makes a Source and calls nobody.
func New(o Options) *Source {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Source{options: o, book: NewBook(o.Namespace)}
}

const (
	// maxMessage is what one flow may take. Hubble's are some 1,000 bytes.
	maxMessage = 16 << 20
	// askTimeout bounds one question, askEvery is the pause between two: that is how
	// a connection is noticed that died without a word.
	askTimeout = 10 * time.Second
	askEvery   = 15 * time.Second
	// overlap is how much is asked for again after a connection ended. A relay sorts
	// what comes from its nodes for a second, and their clocks may differ.
	overlap = 5 * time.Second
)

// Check asks whether there is a Hubble that answers, and how many nodes it speaks
// for.
func (s *Source) Check(ctx context.Context) (version string, nodes int, err error) {
	conn, err := s.options.Connect(ctx)
	if err != nil {
		return "", 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r, err := observerpb.NewObserverClient(conn).ServerStatus(ctx, &observerpb.ServerStatusRequest{}, grpc.WaitForReady(false))
	if err != nil {
		return "", 0, fmt.Errorf("ask Hubble how it is: %w", err)
	}
	return behavior.Escape(r.GetVersion()), int(r.GetNumConnectedNodes().GetValue()), nil
}

// raw passes messages on as they came.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode %T: it is no message", v)
	}
	data, err := proto.Marshal(m)
	return mem.BufferSlice{mem.SliceBuffer(data)}, err
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	to, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("decode %T: want bytes", v)
	}
	n := data.Len()
	if cap(*to) < n {
		*to = make([]byte, n)
	}
	*to = (*to)[:n]
	data.CopyTo(*to)
	return nil
}

// Run implements source.Stream.
func (s *Source) Run(ctx context.Context) error {
	err := s.run(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the stream was ended by Hubble")
	}
	if grpcstatus.Code(err) == codes.ResourceExhausted {
		s.tooLarge = true
		s.book.lose("", "flows larger than a flow can be", 1, s.options.Now().Unix(), 0)
	}
	if s.broken = err; s.cut.IsZero() {
		s.cut = s.options.Now()
	}
	return err
}

func (s *Source) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := s.options.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := observerpb.NewObserverClient(conn)
	if err := s.resume(ctx, client); err != nil {
		return err
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, observerpb.Observer_GetFlows_FullMethodName,
		grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(s.request()); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	go s.watchOver(ctx, client, cancel)
	var message []byte
	for {
		if err := stream.RecvMsg(&message); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return err
		}
		s.take(message)
	}
}

// take hands one message to the book. One that cannot be read is counted there.
func (s *Source) take(message []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken, s.cut = nil, time.Time{}
	if s.book.Add(message) == nil && s.book.r.flow != nil {
		s.latest = max(s.latest, s.book.f.sec)
	}
}

// request asks for the namespace's flows: from the beginning, or from where the
// last connection ended.
func (s *Source) request() *observerpb.GetFlowsRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Now()
	since := now.Add(-s.options.History)
	switch {
	case s.begun.IsZero():
		s.begun = now
		s.book.from = since.Unix()
	case s.tooLarge:
		since = now
	default:
		since = s.begun.Add(-s.options.History)
		if s.latest != 0 {
			since = time.Unix(s.latest, 0).Add(-overlap)
			s.book.again = s.latest
		}
	}
	s.tooLarge = false
	return &observerpb.GetFlowsRequest{Follow: true, Since: timestamppb.New(since), Whitelist: []*flowpb.FlowFilter{
		{SourcePod: []string{s.options.Namespace + "/"}}, {DestinationPod: []string{s.options.Namespace + "/"}},
	}}
}

// resume says, after a connection ended, whether the nodes' rings still have all
// that came meanwhile: one that never was full does.
func (s *Source) resume(ctx context.Context, client observerpb.ObserverClient) error {
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r, err := client.ServerStatus(ask, &observerpb.ServerStatusRequest{})
	if err != nil {
		return fmt.Errorf("ask Hubble how it is: %w", err)
	}
	nodes, err := client.GetNodes(ask, &observerpb.GetNodesRequest{})
	if err != nil && grpcstatus.Code(err) != codes.Unimplemented {
		return fmt.Errorf("ask Hubble for its nodes: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = nil
	if s.begun.IsZero() || s.cut.IsZero() {
		return nil
	}
	cut, now := s.cut.Unix(), s.options.Now().Unix()
	const reason = "Hubble was not connected, and its ring does not reach back"
	if nodes.GetNodes() == nil && r.GetNumFlows() >= r.GetMaxFlows() {
		s.book.lose("", reason, 1, cut, now)
	}
	for _, n := range nodes.GetNodes() {
		if n.GetNumFlows() >= n.GetMaxFlows() {
			s.book.lose(nodeName([]byte(n.GetName())), reason, 1, cut, now)
		}
	}
	s.cut = time.Time{}
	return nil
}

// watchOver ends a connection on which nobody answers any more.
func (s *Source) watchOver(ctx context.Context, client observerpb.ObserverClient, end context.CancelCauseFunc) {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		_, err := client.ServerStatus(ask, &observerpb.ServerStatusRequest{})
		if err == nil {
			var nodes *observerpb.GetNodesResponse
			if nodes, err = client.GetNodes(ask, &observerpb.GetNodesRequest{}); err == nil {
				s.compare(nodes.GetNodes())
			} else if grpcstatus.Code(err) == codes.Unimplemented {
				err = nil // a node's own server knows no others
			}
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			end(fmt.Errorf("no answer from Hubble: %w", err))
			return
		}
	}
}

// compare notes the nodes that are not connected any more. A relay that loses one
// while nothing happens there says nothing in the stream.
func (s *Source) compare(nodes []*observerpb.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := map[string]bool{}
	for _, n := range nodes {
		there[nodeName([]byte(n.GetName()))] = n.GetState() == relaypb.NodeState_NODE_CONNECTED
	}
	for name, n := range s.book.nodes {
		if n.connected && n.missing == "" && !there[name] {
			n.missing = "Hubble's relay is not connected to it any more"
		}
	}
}

// Look implements source.Stream.
func (s *Source) Look() source.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return source.Progress{Events: s.book.Flows(), Facts: s.book.Distinct(), Lost: s.book.Lost(), Broken: s.broken}
}

// Result makes profiles of what came so far. Pods that only the flows know are added
// to the topology.
func (s *Source) Result(t *topology.Cluster) source.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cut.IsZero() {
		s.book.gap = "Hubble was not connected from " + s.cut.UTC().Format(time.RFC3339) + " to the end: " + behavior.Escape(fmt.Sprint(s.broken))
	}
	s.book.to = s.options.Now().Unix()
	if !s.cut.IsZero() {
		s.book.to = s.cut.Unix()
	}
	return s.book.Result(t)
}
