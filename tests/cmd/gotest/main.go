// Command gotest runs go test for several modules and says in one place what
// passed, what failed with its whole output, and what did not run and why. It
// uses the standard library only, and it must never turn a failure, or a run
// in which nothing was tested, into success.
//
//	gotest [-strict] [-elsewhere REGEXP] MODULE-DIR GO-TEST-ARGUMENTS... [-- MODULE-DIR ...]
//
// With -strict, which AUTOPOLICY_CI=1 and CI=true imply, a skipped test is a
// failure, unless the reason it gave matches -elsewhere: such a test is run by
// another make target.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (bool, error) {
	flags := flag.NewFlagSet("gotest", flag.ContinueOnError)
	strict := flags.Bool("strict", os.Getenv("AUTOPOLICY_CI") == "1" || os.Getenv("CI") == "true", "a skipped test is a failure")
	elsewhere := flags.String("elsewhere", "^$", "reasons of skipped tests that another target runs")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	other, err := regexp.Compile(*elsewhere)
	if err != nil {
		return false, fmt.Errorf("read -elsewhere: %w", err)
	}
	began := time.Now()
	r := newReport(out)
	for group := range groups(flags.Args()) {
		if len(group) < 2 {
			return false, errors.New("a module's folder and go test's arguments are needed")
		}
		if err := test(ctx, r, group[0], group[1:]); err != nil {
			return false, err
		}
	}
	fmt.Fprintf(out, "\n%.1f s\n", time.Since(began).Seconds())
	return r.summary(*strict, other), nil
}

// groups splits the arguments at each "--".
func groups(args []string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for {
			i := slices.Index(args, "--")
			if i < 0 {
				yield(args)
				return
			}
			if !yield(args[:i]) {
				return
			}
			args = args[i+1:]
		}
	}
}

// test runs go test in one module. That a test failed is in the report and no
// error here; that go could not run and said nothing is one.
func test(ctx context.Context, r *report, dir string, args []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"-C", dir, "test", "-json"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run go test: %w", err)
	}
	failed := r.failed
	readErr := r.read(events)
	waitErr := cmd.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("run go test in %s: %w", dir, ctx.Err())
	}
	if readErr != nil {
		return fmt.Errorf("read go test's output: %w", readErr)
	}
	if waitErr != nil && r.failed == failed {
		return fmt.Errorf("run go test in %s: %w", dir, waitErr)
	}
	return nil
}
