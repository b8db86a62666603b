//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// Name is the node's, as its pods and the collector have it.
const Name = "bench"

// CollectorRole is the first argument with which a program that starts collectors
// starts itself; it then calls BecomeCollector with the others.
const CollectorRole = "role:collector"

// Collector is the real one in a mount namespace where it finds a service account
// whose API server is the made-up one.
type Collector struct {
	command *exec.Cmd
	client  *grpc.ClientConn
	closed  bool
}

// Collect starts the collector and waits until it has its pods. It writes the
// server's certificate into the folder work; self is this program. Who starts
// containers from another mount namespace than the host's says that it has one of its
// own: the collector then has to be in it, as it has to be told from containers, and
// a file system is mounted on /run.
func Collect(ctx context.Context, self, binary, work string, api *API, own bool, log io.Writer) (_ *Collector, err error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	ca := filepath.Join(work, "ca.crt")
	if err := os.WriteFile(ca, api.CA, 0o600); err != nil {
		return nil, err
	}
	c := &Collector{command: exec.CommandContext(ctx, self, CollectorRole, ca, api.Port, strconv.FormatBool(own), binary,
		"-node", Name, "-namespace", "", "-port", port, "-deadline", "3h", "-keep", "/run/profile")}
	c.command.Stderr = log
	if err := c.command.Start(); err != nil {
		return nil, fmt.Errorf("start collector: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Kill())
		}
	}()
	if c.client, err = grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage))); err != nil {
		return nil, fmt.Errorf("connect to collector: %w", err)
	}
	err = Within(ctx, 30*time.Second, "the collector is not ready", func() (bool, error) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", c.PID())); err != nil {
			return false, errors.New("the collector ended by itself")
		}
		s, err := c.Status(ctx)
		return err == nil && s.Ready, nil
	})
	return c, err
}

// PID is the collector's process.
func (c *Collector) PID() int { return c.command.Process.Pid }

// Status asks the collector how it is doing.
func (c *Collector) Status(ctx context.Context) (wire.Status, error) {
	reply, err := wirepb.NewCollectorClient(c.client).Status(ctx, &wirepb.StatusRequest{})
	if err != nil {
		return wire.Status{}, fmt.Errorf("ask collector: %w", err)
	}
	return wire.DecodeStatus(reply)
}

// Pull gives what is known of the containers of some namespaces; of all when none
// is named. A container that was split over batches is put together.
func (c *Collector) Pull(ctx context.Context, namespaces ...string) ([]wire.Container, wire.Status, error) {
	stream, err := wirepb.NewCollectorClient(c.client).Pull(ctx, &wirepb.PullRequest{Namespaces: namespaces})
	if err != nil {
		return nil, wire.Status{}, fmt.Errorf("pull: %w", err)
	}
	var list []wire.Container
	at := map[string]int{}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, wire.Status{}, errors.New("pull: no last batch")
		}
		if err != nil {
			return nil, wire.Status{}, fmt.Errorf("pull: %w", err)
		}
		batch, err := wire.DecodeBatch(message)
		if err != nil {
			return nil, wire.Status{}, err
		}
		for _, k := range batch.Containers {
			if i, ok := at[k.ID]; ok {
				k.Facts = append(list[i].Facts, k.Facts...)
				list[i] = k
				continue
			}
			at[k.ID] = len(list)
			list = append(list, k)
		}
		if batch.Status != nil {
			return list, *batch.Status, nil
		}
	}
}

// Stop ends the collector as kubelet does.
func (c *Collector) Stop() error {
	if c.closed {
		return nil
	}
	c.closed = true
	c.client.Close()
	err := c.command.Process.Signal(syscall.SIGTERM)
	if err == nil {
		err = c.command.Wait()
	}
	if err != nil {
		return fmt.Errorf("stop collector: %w", err)
	}
	return nil
}

// Kill ends the collector as the kernel does when memory is short.
func (c *Collector) Kill() error {
	if c.closed {
		return nil
	}
	c.closed = true
	if c.client != nil {
		c.client.Close()
	}
	err := c.command.Process.Kill()
	c.command.Wait() // it was killed: that it says so is no news
	return err
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// Within asks until it is so, and says what is not after the limit.
func Within(ctx context.Context, limit time.Duration, what string, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ask()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s after %s", what, limit)
		case <-tick.C:
		}
	}
}

// BecomeCollector makes the service account appear and becomes the collector. It
// returns only with an error.
func BecomeCollector(args []string) error {
	ca, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	if args[2] != "true" {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
	}
	if err := unix.Mount("node", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	account := "/run/secrets/kubernetes.io/serviceaccount"
	err = errors.Join(os.MkdirAll(account, 0o700), os.WriteFile(account+"/ca.crt", ca, 0o600), os.WriteFile(account+"/token", []byte("node"), 0o600))
	if err != nil {
		return err
	}
	return unix.Exec(args[3], append([]string{"autopolicy-collector"}, args[4:]...),
		[]string{"KUBERNETES_SERVICE_HOST=127.0.0.1", "KUBERNETES_SERVICE_PORT=" + args[1]})
}
