//go:build linux

package collector

import (
	"context"
	"net"

	"google.golang.org/grpc"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// server answers the plugin.
type server struct {
	wirepb.UnimplementedCollectorServer
	collector *Collector
}

// observeAtOnce is how many entries are read under one lock: the probe's reader
// waits meanwhile.
const observeAtOnce = 1024

// Serve answers on the listener, which it closes, until the context ends. The
// listener must be on loopback: whoever reaches it reads everything.
func (c *Collector) Serve(ctx context.Context, listener net.Listener) error {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(1<<20), grpc.MaxConcurrentStreams(32))
	wirepb.RegisterCollectorServer(s, &server{collector: c})
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	err := s.Serve(listener)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Status implements wirepb.CollectorServer.
func (s *server) Status(context.Context, *wirepb.StatusRequest) (*wirepb.StatusReply, error) {
	return wire.EncodeStatus(s.collector.Status()), nil
}

// Pull implements wirepb.CollectorServer.
func (s *server) Pull(request *wirepb.PullRequest, stream grpc.ServerStreamingServer[wirepb.Batch]) error {
	c := s.collector
	c.release(false)
	c.problem("refresh counts", c.refresh())
	since := request.GetSince()
	if request.GetEpoch() != c.options.Epoch {
		since = 0
	}
	namespaces := map[string]bool{}
	for _, name := range request.GetNamespaces() {
		namespaces[name] = true
	}
	list, all, revision := c.changes(since, namespaces)
	w := wire.NewWriter(c.options.Epoch, stream.Send)
	if err := c.write(w, list, all); err != nil {
		return err
	}
	return w.Close(revision, c.Status())
}
