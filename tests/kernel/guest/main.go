//go:build linux

// Command guest observes the planted workload with the real collector, on the
// machine that it runs on: the host, or a kernel in emulation whose first process it
// is. What it found is a verdict.Run on its output.
//
//	guest observe FOLDER [FAMILY]    FOLDER holds planted and planted32
//	guest refuse btf|capability|lockdown
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/verdict"
)

// patience is how long one observation may take: emulation is some 20 times slower
// than the machine.
const patience = 3 * time.Minute

func main() {
	if os.Getpid() == 1 && len(os.Args) < 2 {
		boot()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := act(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func act(ctx context.Context, arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("nothing to do is given")
	}
	rest := append(arguments[1:], "", "", "")
	switch arguments[0] {
	case "observe":
		// The API server in cluster.go lists and watches, and knows no more.
		if err := os.Setenv("KUBE_FEATURE_WatchListClient", "false"); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return verdict.Write(os.Stdout, observe(ctx, rest[0], rest[1]))
	case "refuse":
		return verdict.Write(os.Stdout, refuse(ctx, rest[0]))
	case "open":
		return open()
	case "without":
		return without(rest[0])
	case "runtime":
		return enter(rest[0], rest[1], rest[2])
	case "join":
		return join(rest[0], rest[1], rest[2])
	}
	return fmt.Errorf("unknown: %q", arguments)
}

// kernel is the running kernel's release.
func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

func newRun(family string) verdict.Run {
	return verdict.Run{Kernel: kernel(), Arch: runtime.GOARCH, Family: family}
}
