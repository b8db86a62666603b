package kubearmor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	pb "github.com/kubearmor/KubeArmor/protobuf"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// Options say whom to ask for what.
type Options struct {
	Connect   func(context.Context) (*grpc.ClientConn, error)
	Namespace string
	Now       func() time.Time
}

// Source follows what KubeArmor tells of one namespace. Check comes first, then
// source.Follow with it as the stream, then Result.
type Source struct {
	options Options

	mu     sync.Mutex
	book   *Book
	cut    time.Time // when the connection ended; zero while it stands
	broken error
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
	// maxMessage is what one event may take. Paths and arguments are some kilobytes.
	maxMessage   = 4 << 20
	checkTimeout = 10 * time.Second
	healthNonce  = 4711
)

// Check asks whether there is a KubeArmor that answers.
func (s *Source) Check(ctx context.Context) error {
	conn, err := s.options.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	r, err := pb.NewLogServiceClient(conn).HealthCheck(ctx, &pb.NonceMessage{Nonce: healthNonce})
	if err != nil {
		return fmt.Errorf("ask KubeArmor how it is: %w", err)
	}
	if r.GetRetval() != healthNonce {
		return fmt.Errorf("ask KubeArmor how it is: it answered %d, want %d", r.GetRetval(), healthNonce)
	}
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
		err = errors.New("KubeArmor ended the stream")
	}
	if s.broken = err; s.cut.IsZero() {
		s.cut = s.options.Now()
	}
	return err
}

func (s *Source) run(ctx context.Context) error {
	conn, err := s.options.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := pb.NewLogServiceClient(conn)
	both, ctx := errgroup.WithContext(ctx)
	logs, err := client.WatchLogs(ctx, &pb.RequestMessage{Filter: "all"}, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return err
	}
	alerts, err := client.WatchAlerts(ctx, &pb.RequestMessage{Filter: "all"}, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return err
	}
	both.Go(func() error { return receive(logs.Recv, take(s, (*Book).Log)) })
	both.Go(func() error { return receive(alerts.Recv, take(s, (*Book).Alert)) })
	return both.Wait()
}

// take hands what came to the book.
func take[T any](s *Source, to func(*Book, T)) func(T) {
	return func(x T) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.cut.IsZero() {
			// What was told meanwhile, nobody kept.
			s.book.Gap("KubeArmor was not connected from " + s.cut.UTC().Format(time.RFC3339) + " to " + s.options.Now().UTC().Format(time.RFC3339))
			s.cut = time.Time{}
		}
		s.broken = nil
		to(s.book, x)
	}
}

func receive[T any](next func() (T, error), take func(T)) error {
	for {
		x, err := next()
		if err != nil {
			return err
		}
		take(x)
	}
}

// Look implements source.Stream.
func (s *Source) Look() source.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return source.Progress{Events: s.book.Events(), Facts: s.book.Distinct(), Lost: s.book.Lost(), Broken: s.broken}
}

// Result makes profiles of what came so far. Pods that only the events know are
// added to the topology.
func (s *Source) Result(t *topology.Cluster) source.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cut.IsZero() {
		s.book.Gap("KubeArmor was not connected from " + s.cut.UTC().Format(time.RFC3339) + " to the end: " + behavior.Escape(fmt.Sprint(s.broken)))
	}
	return s.book.Result(t)
}
