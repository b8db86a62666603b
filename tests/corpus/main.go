//go:build linux && amd64

// Command corpus measures how well policies learned from real programs hold: it
// starts servers from Debian's packages in containers that runc makes, loads them
// under the real collector, learns from some runs, and judges other, longer ones and
// attacks by what was learned, with the rooms that the plugin uses.
//
// It needs root and a kernel with BTF. Only the API server that names the pods is
// made up. What it makes lives in namespaces of its own and ends with it. What was
// observed is kept in a folder, so that -reuse can learn from it and judge it again
// without running anything.
//
// Its last lines are for a program to read, as page.Reading has them.
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
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

func main() {
	// It starts itself in a mount namespace of its own, and as its helpers.
	roles := map[string]func([]string) error{node.CollectorRole: node.BecomeCollector, "role:client": becomeClient}
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		err := roles[os.Args[1]](os.Args[2:])
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	o, err := parse(os.Args[1:])
	if err == nil && !o.reuse && !o.apart {
		err = apart(ctx)
	} else if err == nil {
		err = run(ctx, o, os.Stdout, os.Stderr)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "corpus:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	programs  []program
	phases    []string
	collector string
	source    string
	cache     string
	runs      string
	page      string
	commit    string
	reuse     bool
	apart     bool
	verbose   bool
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("corpus", flag.ContinueOnError)
	names := flags.String("programs", "", "the programs, separated by commas; empty for the subset that CI runs, ALL for all of them")
	phases := flags.String("phases", "learn,attack,enforce", "what to run: learn (training and evaluation), attack, enforce")
	flags.StringVar(&o.collector, "collector", "bin/autopolicy-collector", "the collector's binary")
	flags.StringVar(&o.source, "source", "tests", "the folder of the tests' sources")
	flags.StringVar(&o.cache, "cache", "", "where packages are kept and unpacked; a folder of the user's cache when empty")
	flags.StringVar(&o.runs, "runs", "", "where what was observed is kept; a folder of the cache when empty")
	flags.StringVar(&o.page, "write", "", "page to write the tables into, between its markers")
	flags.StringVar(&o.commit, "commit", "", "what is measured, for the page")
	flags.BoolVar(&o.reuse, "reuse", false, "run nothing: learn from what was observed before")
	flags.BoolVar(&o.apart, "apart", false, "this is the process in the mount namespace (set by itself)")
	flags.BoolVar(&o.verbose, "v", false, "show every fact that is denied, and what the programs say")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.programs, err = choose(*names); err != nil {
		return o, err
	}
	o.phases = strings.Split(*phases, ",")
	if o.cache == "" {
		if o.cache, err = os.UserCacheDir(); err != nil {
			return o, fmt.Errorf("find a folder for packages: %w", err)
		}
		o.cache = filepath.Join(o.cache, "autopolicy-corpus")
	}
	if o.runs == "" {
		o.runs = filepath.Join(o.cache, "runs")
	}
	for _, path := range []*string{&o.collector, &o.source, &o.cache, &o.runs} {
		if *path, err = filepath.Abs(*path); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (o options) does(phase string) bool { return slices.Contains(o.phases, phase) }

// apart runs this program again where its mounts end with it.
func apart(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root to make containers and to load programs into the kernel")
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"-apart"}, os.Args[1:]...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

// run observes what is asked for, and reports on everything that was observed.
func run(ctx context.Context, o options, out, log io.Writer) error {
	var failed error
	if !o.reuse {
		failed = observe(ctx, o, log)
	}
	if ctx.Err() != nil {
		return errors.Join(failed, ctx.Err())
	}
	return errors.Join(failed, report(o, out))
}

// observe runs the programs one after another; one that fails does not keep the
// others from running.
func observe(ctx context.Context, o options, log io.Writer) error {
	l, err := newLab(ctx, o, log)
	if err != nil {
		return err
	}
	var failed error
	for _, p := range o.programs {
		if err := l.observe(ctx, p); err != nil {
			l.say("%s: %v", p.name, err)
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed, l.close())
}
