//go:build linux

// Command kernel tests the collector on kernels that this machine does not run: it
// boots Debian's in QEMU, runs the planted workload on each under each family of
// hooks, and on the host, and compares what was found. It needs root, and QEMU.
//
//	kernel [-kernels "5.10 6.12-arm64 host"] [-families "best kprobe"] [-timeout 10m] [-keep FOLDER]
//
// Its last lines are measures: name, value, unit, bound, and ok, short or unmeasured.
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
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/verdict"
	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/vm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	good, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernel:", err)
		os.Exit(2)
	}
	if !good {
		os.Exit(1)
	}
}

// tester has what every kernel needs.
type tester struct {
	out     io.Writer
	work    string // of this run
	cache   string
	keep    string // where consoles are kept; empty for nowhere
	timeout time.Duration
	// families of hooks that are asked for, in probe.Options' words
	families []string
}

func run(ctx context.Context, arguments []string, out io.Writer) (bool, error) {
	flags := flag.NewFlagSet("kernel", flag.ContinueOnError)
	wanted := flags.String("kernels", "", "which to test, separated by spaces; all when empty")
	families := flags.String("families", "", "of hooks, separated by spaces; best and each one when empty")
	timeout := flags.Duration("timeout", 15*time.Minute, "for one kernel")
	keep := flags.String("keep", "", "folder to keep what the consoles showed")
	if err := flags.Parse(arguments); err != nil {
		return false, err
	}
	if os.Geteuid() != 0 {
		return false, errors.New("it loads programs into the host's kernel too: run it as root")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return false, fmt.Errorf("find cache: %w", err)
	}
	work, err := os.MkdirTemp("", "kernel-test-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(work)
	t := tester{out: out, work: work, cache: filepath.Join(cache, "autopolicy-kernels"), keep: *keep, timeout: *timeout}
	if t.families, err = chooseFamilies(strings.Fields(*families)); err != nil {
		return false, err
	}
	kernels, host, err := choose(strings.Fields(*wanted))
	if err != nil {
		return false, err
	}
	var report report
	if host {
		report.add(t.host(ctx))
	}
	for _, k := range kernels {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		report.add(t.emulated(ctx, k))
	}
	return report.write(out), nil
}

// choose finds the kernels by their names.
func choose(names []string) (list []vm.Kernel, host bool, err error) {
	all := vm.Kernels()
	if len(names) == 0 {
		return all, true, nil
	}
	for _, name := range names {
		i := slices.IndexFunc(all, func(k vm.Kernel) bool { return k.String() == name })
		switch {
		case name == "host":
			host = true
		case i < 0:
			return nil, false, fmt.Errorf("no kernel %q: there are host and %v", name, all)
		default:
			list = append(list, all[i])
		}
	}
	return list, host, nil
}

// chooseFamilies turns names of families into what a probe is asked for.
func chooseFamilies(names []string) ([]string, error) {
	if len(names) == 0 {
		return append([]string{""}, probe.Families()...), nil
	}
	for i, name := range names {
		switch {
		case name == "best":
			names[i] = ""
		case !slices.Contains(probe.Families(), name):
			return nil, fmt.Errorf("no family %q: there are best and %v", name, probe.Families())
		}
	}
	return names, nil
}

// outcome is what one kernel came to.
type outcome struct {
	name string
	runs []verdict.Run
	err  error
}

// build compiles the programs for an architecture, and gives their paths by the
// names that the guest expects.
func (t tester) build(ctx context.Context, arch string) (map[string]string, error) {
	dir := filepath.Join(t.work, arch)
	programs := map[string]string{}
	targets := []struct{ name, arch, folder string }{{"init", arch, "guest"}, {"planted", arch, "planted"}}
	if arch == "amd64" {
		targets = append(targets, struct{ name, arch, folder string }{"planted32", "386", "planted"})
	}
	for _, target := range targets {
		path := filepath.Join(dir, target.name)
		command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "./tests/kernel/"+target.folder)
		command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+target.arch)
		if said, err := command.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s for %s: %w: %s", target.folder, target.arch, err, said)
		}
		programs[target.name] = path
	}
	return programs, nil
}

// host runs everything on the kernel that runs this.
func (t tester) host(ctx context.Context) outcome {
	o := outcome{name: "host"}
	fmt.Fprintln(t.out, "host: running")
	programs, err := t.build(ctx, runtime.GOARCH)
	if err != nil {
		o.err = err
		return o
	}
	guest := func(arguments ...string) error {
		command := exec.CommandContext(ctx, programs["init"], arguments...)
		command.Stderr = t.out
		said, err := command.Output()
		if err != nil {
			return fmt.Errorf("guest %v: %w", arguments, err)
		}
		runs, err := verdict.Read(strings.NewReader(string(said)))
		o.runs = append(o.runs, runs...)
		return err
	}
	for _, family := range t.families {
		o.err = errors.Join(o.err, guest("observe", filepath.Dir(programs["init"]), family))
	}
	for _, what := range []string{"btf", "capability", "user"} {
		o.err = errors.Join(o.err, guest("refuse", what))
	}
	return o
}

// emulated boots a kernel.
func (t tester) emulated(ctx context.Context, k vm.Kernel) outcome {
	o := outcome{name: k.String()}
	if _, o.err = exec.LookPath(vm.Needs(k.Arch)); o.err != nil {
		return o
	}
	var image string
	if image, o.err = k.Fetch(ctx, t.cache, t.out); o.err != nil {
		return o
	}
	var programs map[string]string
	if programs, o.err = t.build(ctx, k.Arch); o.err != nil {
		return o
	}
	initial := filepath.Join(t.work, k.Arch, "initial")
	if o.err = vm.Initial(initial, programs); o.err != nil {
		return o
	}
	fmt.Fprintf(t.out, "%s: booting\n", k)
	began := time.Now()
	var console strings.Builder
	machine := vm.Machine{
		Arch: k.Arch, Image: image, Initial: initial, Timeout: t.timeout, Turns: k.Turns(),
		Words: "planted.families=" + strings.Join(t.families, ","),
	}
	o.err = machine.Boot(ctx, &console)
	fmt.Fprintf(t.out, "%s: ended after %s\n", k, time.Since(began).Round(time.Second))
	runs, err := verdict.Read(strings.NewReader(console.String()))
	o.runs, o.err = runs, errors.Join(o.err, err)
	if o.err == nil && !strings.Contains(console.String(), "guest: end") {
		o.err = errors.New("it did not come to its end")
	}
	if t.keep != "" {
		o.err = errors.Join(o.err, os.WriteFile(filepath.Join(t.keep, "console-"+k.String()), []byte(console.String()), 0o644))
	}
	if o.err != nil {
		fmt.Fprintf(t.out, "%s: %v; its console showed at last:\n%s\n", k, o.err, tail(console.String(), 40))
	}
	return o
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range all {
		all[i] = fmt.Sprintf("    %.300q", strings.TrimRight(line, "\r"))
	}
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
