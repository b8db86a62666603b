//go:build linux

// Command autopolicy-collector observes the containers of one node and serves
// what they did on loopback in its pod, until its deadline.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/collector"
)

var version = "dev" // set by the linker

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // memory is dearer here than time: it makes little garbage
	}
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "autopolicy-collector:", err)
		var hinted interface{ Hint() string }
		if errors.As(err, &hinted) {
			fmt.Fprintln(os.Stderr, "hint:", hinted.Hint())
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	d := collector.Daemon{Version: version}
	flags := flag.NewFlagSet("autopolicy-collector", flag.ContinueOnError)
	flags.StringVar(&d.Node, "node", os.Getenv("NODE_NAME"), "name of the node that it runs on")
	flags.StringVar(&d.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace to remove at the deadline")
	flags.IntVar(&d.Port, "port", 9847, "port to serve on, on loopback")
	flags.StringVar(&d.Cgroups, "cgroups", "", "where the machine's control groups are mounted")
	flags.StringVar(&d.Keep, "keep", "", "file in which the profile outlives a restart of this program")
	deadline := flags.String("deadline", "", "when to stop: a time (RFC 3339) or a duration; never when empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if d.Deadline, err = collector.ParseDeadline(*deadline, time.Now()); err != nil {
		return err
	}
	if err := d.Validate(); err != nil {
		return err
	}
	return d.Run(ctx, os.Stderr)
}
