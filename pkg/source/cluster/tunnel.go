package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
)

// dialer connects to the collector in a pod.
type dialer func(ctx context.Context, pod string) (net.Conn, error)

// tunnelDialer connects through the API server's port-forward, over WebSocket
// where the server knows it, else over SPDY. No local port is opened.
func tunnelDialer(config *rest.Config) dialer {
	return portDialer(config, manifests.Namespace, manifests.Port)
}

// portDialer connects to a port of a namespace's pods.
func portDialer(config *rest.Config, namespace string, port int) dialer {
	return func(ctx context.Context, pod string) (net.Conn, error) {
		type result struct {
			conn net.Conn
			err  error
		}
		// The client's dialers take no context, so a late connection is closed.
		done := make(chan result, 1)
		go func() {
			conn, err := openTunnel(config, namespace, pod, port)
			done <- result{conn, err}
		}()
		select {
		case r := <-done:
			return r.conn, r.err
		case <-ctx.Done():
			go func() {
				if r := <-done; r.conn != nil {
					r.conn.Close()
				}
			}()
			return nil, ctx.Err()
		}
	}
}

func openTunnel(config *rest.Config, namespace, pod string, port int) (net.Conn, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("port-forward to %s: %w", pod, err)
	}
	target := *base
	target.Path = strings.TrimSuffix(base.Path, "/") + "/api/v1/namespaces/" + url.PathEscape(namespace) + "/pods/" + url.PathEscape(pod) + "/portforward"
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, fmt.Errorf("port-forward to %s: %w", pod, err)
	}
	old := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, &target)
	web, err := portforward.NewSPDYOverWebsocketDialer(&target, config)
	if err != nil {
		return nil, fmt.Errorf("port-forward to %s: %w", pod, err)
	}
	both := portforward.NewFallbackDialer(web, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	connection, protocol, err := both.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fmt.Errorf("port-forward to %s: %w", pod, err)
	}
	if protocol != portforward.PortForwardProtocolV1Name {
		return nil, errors.Join(fmt.Errorf("port-forward to %s: server chose protocol %q", pod, protocol), connection.Close())
	}
	t, err := newTunnel(connection, pod, port)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("port-forward to %s: %w", pod, err), connection.Close())
	}
	return t, nil
}

// tunnel is a net.Conn over one stream of a port-forward. It has no deadlines.
type tunnel struct {
	connection httpstream.Connection
	data       httpstream.Stream
	pod        string

	mu     sync.Mutex
	remote error // what the other end says went wrong
}

// Headers of port-forward's streams, from the Kubernetes API.
const (
	streamTypeHeader = "streamType"
	portHeader       = "port"
	requestHeader    = "requestID"
)

func newTunnel(connection httpstream.Connection, pod string, port int) (*tunnel, error) {
	headers := http.Header{}
	headers.Set(streamTypeHeader, "error")
	headers.Set(portHeader, strconv.Itoa(port))
	headers.Set(requestHeader, "0")
	failures, err := connection.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	// Nothing is written to it.
	if err := failures.Close(); err != nil {
		return nil, err
	}
	headers.Set(streamTypeHeader, "data")
	data, err := connection.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	t := &tunnel{connection: connection, data: data, pod: pod}
	go t.listen(failures)
	return t, nil
}

// listen ends the tunnel when the other end reports an error.
func (t *tunnel) listen(failures io.Reader) {
	message, err := io.ReadAll(io.LimitReader(failures, 4096))
	if len(message) == 0 {
		return // it ended well, or Read meets the same error
	}
	t.mu.Lock()
	t.remote = errors.Join(errors.New(strings.TrimSpace(string(message))), err)
	t.mu.Unlock()
	t.connection.Close()
}

func (t *tunnel) explain(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && t.remote != nil {
		return t.remote
	}
	return err
}

// Read implements net.Conn.
func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.data.Read(p)
	return n, t.explain(err)
}

// Write implements net.Conn.
func (t *tunnel) Write(p []byte) (int, error) {
	n, err := t.data.Write(p)
	return n, t.explain(err)
}

// Close implements net.Conn.
func (t *tunnel) Close() error {
	// Without the reset, data that nobody reads would hold up the connection.
	return errors.Join(t.data.Reset(), t.connection.Close())
}

// SetDeadline and its kind do nothing: gRPC's keepalive ends a dead tunnel.
func (t *tunnel) SetDeadline(time.Time) error      { return nil }
func (t *tunnel) SetReadDeadline(time.Time) error  { return nil }
func (t *tunnel) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr implements net.Conn.
func (t *tunnel) LocalAddr() net.Addr { return tunnelAddr("here") }

// RemoteAddr implements net.Conn.
func (t *tunnel) RemoteAddr() net.Addr { return tunnelAddr(t.pod) }

type tunnelAddr string

func (tunnelAddr) Network() string  { return "port-forward" }
func (a tunnelAddr) String() string { return string(a) }
