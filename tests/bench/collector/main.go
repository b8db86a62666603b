//go:build linux

// Command collector measures what the collector costs those that it observes,
// and that it misses nothing, side by side with programs that do nothing, with
// bpftrace and with a collector that streams every event: always in the same run
// and in turns. It must not compare numbers of different runs.
//
// It needs root and a kernel with BTF. Its containers have mount and network
// namespaces and control groups of their own, the collector is the real one, and
// only the API server that names the pods is made up.
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
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

func main() {
	// It starts itself as what its containers and helpers begin as.
	roles := map[string]func([]string) error{
		"role:container": enterContainer, node.CollectorRole: node.BecomeCollector, "role:bpftrace": becomeBpftrace, "role:client": becomeClient,
	}
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		err := roles[os.Args[1]](os.Args[2:])
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// lab is where everything happens.
type lab struct {
	self      string // this program
	collector string // the real one
	source    string // the folder of load.c
	work      string // a folder that is removed at the end
	root      string // the unpacked packages
	load      string // the containers' program
	log       io.Writer
	servers   io.Writer // what they say; nil: nobody listens
	started   time.Time

	cgroupRoot string // of version 2
	cgroups    string // ours below it
	api        *node.API
	containers []*container
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("collector", flag.ContinueOnError)
	collector := flags.String("collector", "bin/autopolicy-collector", "the collector's binary")
	source := flags.String("source", "tests/bench/collector", "the folder of this program's sources")
	cache := flags.String("cache", "", "where the Debian packages are unpacked; a folder of the user's cache when empty")
	file := flags.String("write", "", "page to write the tables into, between its markers")
	rounds := flags.Int("rounds", 10, "rounds, in each of which everything takes its turn; 0: only the programs' shares")
	only := flags.String("only", "", "measure only these, separated by commas: deeds, servers, rare, steady, leftovers")
	verbose := flags.Bool("verbose", false, "show what the servers say")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root to load programs into the kernel")
	}
	l, err := newLab(ctx, *collector, *source, *cache)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if *verbose {
		l.servers = l.log
	}
	r := result{rounds: *rounds}
	if r.around, err = surroundings(); err != nil {
		return err
	}
	var failed error // what follows is measured all the same
	for _, step := range []struct {
		name string
		do   func(context.Context, *result) error
	}{
		{"deeds", func(ctx context.Context, r *result) (err error) {
			r.deeds, r.shares, err = l.measureDeeds(ctx, r.rounds)
			return err
		}},
		{"servers", l.measureServers}, {"rare", l.plantRareFacts}, {"steady", l.measureSteady}, {"leftovers", l.measureLeftovers},
	} {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), step.name) {
			continue
		}
		if err := step.do(ctx, &r); err != nil {
			failed = errors.Join(failed, fmt.Errorf("measure %s: %w", step.name, err))
		}
	}
	if failed != nil {
		*file = "" // what is there is worth more
	}
	return errors.Join(failed, r.report(out, *file))
}

func newLab(ctx context.Context, collector, source, cache string) (_ *lab, err error) {
	l := &lab{log: os.Stderr, started: time.Now()}
	if l.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if cache == "" {
		if cache, err = os.UserCacheDir(); err != nil {
			return nil, fmt.Errorf("find a folder for packages: %w", err)
		}
		cache = filepath.Join(cache, "autopolicy-bench")
	}
	if l.collector, err = filepath.Abs(collector); err != nil {
		return nil, err
	}
	l.source, l.root = source, filepath.Join(cache, "root")
	if l.work, err = os.MkdirTemp("", "autopolicy-bench-"); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	l.load = filepath.Join(l.work, "load")
	if err := os.Mkdir(filepath.Join(l.work, "mnt"), 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	for _, command := range [][]string{
		{filepath.Join(source, "rootfs"), cache},
		{"clang", "-O2", "-Wall", "-Werror", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-o", l.load, filepath.Join(source, "load.c")},
		{"clang", "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-c", "-o", filepath.Join(l.work, "stream.o"), filepath.Join(source, "stream.bpf.c")},
	} {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Stdout, cmd.Stderr = l.log, l.log
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("run %s: %w", command[0], err)
		}
	}
	if l.cgroupRoot, err = cgroup2(); err != nil {
		return nil, err
	}
	l.cgroups = filepath.Join(l.cgroupRoot, "autopolicy-bench")
	if err := os.MkdirAll(l.cgroups, 0o755); err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	pods := make([]corev1.Pod, firstSmall+containers)
	for n := range pods {
		pods[n] = podOf(n)
	}
	if l.api, err = node.Serve(); err != nil {
		return nil, err
	}
	l.api.Set(pods...)
	return l, nil
}

// close removes what the lab made.
func (l *lab) close() error {
	var errs []error
	for _, c := range l.containers {
		errs = append(errs, l.stop(c))
	}
	if l.api != nil {
		l.api.Stop()
	}
	if l.cgroups != "" {
		errs = append(errs, os.Remove(l.cgroups))
	}
	return errors.Join(append(errs, os.RemoveAll(l.work))...)
}

// surroundings says what else was there when it began, since numbers of a machine
// that is not quiet are worth little.
func surroundings() (string, error) {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", fmt.Errorf("read load: %w", err)
	}
	others, err := kernelObjects()
	if err != nil {
		return "", err
	}
	minute, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("load average %s and %d links of other BPF programs at its start", minute, len(others.links)), nil
}

// cgroup2 finds where the hierarchy of version 2 is mounted.
func cgroup2() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("find control groups: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("find control groups: version 2 is not mounted")
}

// say tells how far it is.
func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.log, "bench: %4.0fs %s\n", time.Since(l.started).Seconds(), fmt.Sprintf(format, args...))
}
