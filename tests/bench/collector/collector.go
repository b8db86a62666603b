//go:build linux

package main

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
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

const nodeName = "bench"

// collector is the real one, bin/autopolicy-collector, in a mount namespace where
// it finds a service account whose API server is the fake one.
type collector struct {
	command *exec.Cmd
	objects objects // what it put into the kernel
	client  *grpc.ClientConn
	closed  bool
}

// collect starts the collector and waits until it has its pods.
func (l *lab) collect(ctx context.Context) (_ *collector, err error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	c := &collector{command: exec.CommandContext(ctx, l.self, "role:collector", filepath.Join(l.work, "ca.crt"), l.api.port, l.collector,
		"-node", nodeName, "-namespace", "", "-port", port, "-deadline", "1h", "-keep", "/run/profile")}
	c.command.Stderr = l.log
	if err := c.command.Start(); err != nil {
		return nil, fmt.Errorf("start collector: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.kill())
		}
	}()
	if c.client, err = grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage))); err != nil {
		return nil, fmt.Errorf("connect to collector: %w", err)
	}
	err = within(ctx, 30*time.Second, "the collector is not ready", func() (bool, error) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", c.command.Process.Pid)); err != nil {
			return false, errors.New("the collector ended by itself")
		}
		s, err := c.status(ctx)
		return err == nil && s.Ready, nil
	})
	if err != nil {
		return nil, err
	}
	c.objects, err = objectsOf(c.command.Process.Pid)
	return c, err
}

func (c *collector) status(ctx context.Context) (wire.Status, error) {
	reply, err := wirepb.NewCollectorClient(c.client).Status(ctx, &wirepb.StatusRequest{})
	if err != nil {
		return wire.Status{}, fmt.Errorf("ask collector: %w", err)
	}
	return wire.DecodeStatus(reply)
}

// pull gives the facts of every container by pod.
func (c *collector) pull(ctx context.Context) (map[string][]behavior.Fact, wire.Status, error) {
	stream, err := wirepb.NewCollectorClient(c.client).Pull(ctx, &wirepb.PullRequest{})
	if err != nil {
		return nil, wire.Status{}, fmt.Errorf("pull: %w", err)
	}
	facts := map[string][]behavior.Fact{}
	var status wire.Status
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return facts, status, nil
		}
		if err != nil {
			return nil, status, fmt.Errorf("pull: %w", err)
		}
		batch, err := wire.DecodeBatch(message)
		if err != nil {
			return nil, status, err
		}
		for _, k := range batch.Containers {
			for _, o := range k.Facts {
				facts[k.Pod] = append(facts[k.Pod], o.Fact)
			}
		}
		if batch.Status != nil {
			status = *batch.Status
		}
	}
}

// stop ends the collector as kubelet does.
func (c *collector) stop() error {
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

// kill ends the collector as the kernel does when memory is short.
func (c *collector) kill() error {
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

// cpu is what the process used so far, in user space and in the kernel. The
// programs in the kernel are not in it: they run in the time of those observed.
func (c *collector) cpu() (time.Duration, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.command.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read collector's time: %w", err)
	}
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("read collector's time: too few fields")
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, err2) // USER_HZ is 100
}

// resident is the memory of the process in MiB.
func (c *collector) resident() (float64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.command.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read collector's memory: %w", err)
	}
	for line := range strings.Lines(string(content)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			return kib / 1024, nil
		}
	}
	return 0, errors.New("read collector's memory: no VmRSS")
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

// within asks until it is so.
func within(ctx context.Context, limit time.Duration, what string, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
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

// becomeCollector makes the service account appear and becomes the collector.
func becomeCollector(args []string) error {
	ca, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("bench", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	account := "/run/secrets/kubernetes.io/serviceaccount"
	err = errors.Join(os.MkdirAll(account, 0o700), os.WriteFile(account+"/ca.crt", ca, 0o600), os.WriteFile(account+"/token", []byte("bench"), 0o600))
	if err != nil {
		return err
	}
	return unix.Exec(args[2], append([]string{"autopolicy-collector"}, args[3:]...),
		[]string{"KUBERNETES_SERVICE_HOST=127.0.0.1", "KUBERNETES_SERVICE_PORT=" + args[1]})
}
