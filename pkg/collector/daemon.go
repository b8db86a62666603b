//go:build linux

package collector

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// Daemon is a collector in its pod.
type Daemon struct {
	Node      string // the node that the pod runs on
	Namespace string // that it removes at its deadline; none when empty
	Version   string
	Port      int       // on loopback
	Deadline  time.Time // zero for none
	// Cgroups is where the machine's control groups are mounted; empty when the
	// collector may mount what it needs of them by itself.
	Cgroups string
	// Keep is as in Options.
	Keep string
}

// Validate tells what is missing before anything is touched.
func (d Daemon) Validate() error {
	switch {
	case d.Node == "":
		return errors.New("no node name: set --node or NODE_NAME")
	case d.Port < 1 || d.Port > 65535:
		return fmt.Errorf("port %d: want 1 to 65535", d.Port)
	}
	return nil
}

// Run collects and serves until the context ends or the deadline has come, and
// then removes the namespace that it was deployed in. It ends when the context
// does, since a pod whose program ends is started again.
func (d Daemon) Run(ctx context.Context, log io.Writer) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return fmt.Errorf("find API server: %w", err)
	}
	config.UserAgent = "autopolicy-collector/" + d.Version
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connect to API server: %w", err)
	}
	until := ctx
	if !d.Deadline.IsZero() {
		var cancel context.CancelFunc
		until, cancel = context.WithDeadline(ctx, d.Deadline)
		defer cancel()
	}
	if until.Err() == nil {
		if err := d.collect(until, api, log); err != nil {
			return err
		}
	}
	if ctx.Err() != nil || d.Namespace == "" {
		return nil
	}
	fmt.Fprintf(log, "deadline %s has come: removing namespace %s\n", d.Deadline.Format(time.RFC3339), d.Namespace)
	err = RemoveNamespace(ctx, api, d.Namespace, func(err error) { fmt.Fprintln(log, err) })
	if err == nil {
		<-ctx.Done()
	}
	return nil
}

// collect attaches the programs, collects and serves until the context ends.
func (d Daemon) collect(ctx context.Context, api dynamic.Interface, log io.Writer) (err error) {
	root, err := cgroup2(d.Cgroups)
	if err != nil {
		return err
	}
	kernel, err := Attach(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	if err := dropCapabilities(kernel.readable); err != nil {
		return err
	}
	c, err := New(kernel, Options{Node: d.Node, Version: d.Version, Epoch: rand.Text(), Deadline: d.Deadline, API: api, Keep: d.Keep})
	if err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(d.Port))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve on %s: %w", address, err)
	}
	fmt.Fprintf(log, "collecting on node %s, serving on %s\n", d.Node, address)
	for _, missing := range kernel.Missing() {
		fmt.Fprintf(log, "not seen: %s\n", missing)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.Run(ctx) })
	group.Go(func() error { return c.Serve(ctx, listener) })
	return group.Wait()
}
