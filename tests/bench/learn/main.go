// Command learn measures what merging and learning costs: a million distinct facts
// of one container, as they come from twenty pods, on one processor. It runs itself
// once for each reading, since a process's peak of memory cannot be taken back.
//
// Its last lines are for a program to read, with tabs between the fields:
//
//	measure NAME VALUE UNIT BOUND ok|short|unmeasured
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-learn:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench-learn", flag.ContinueOnError)
	facts := flags.Int("facts", 1_000_000, "facts of the large reading; the small one has a tenth")
	rounds := flags.Int("rounds", 3, "readings of each")
	file := flags.String("write", "", "page to write the table into, between its markers")
	one := flags.Uint64("one", 0, "take one reading, with its facts shuffled by this number if it is above 1, and print it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *facts < 10*pods || *rounds < 1 {
		return fmt.Errorf("at least %d facts and one round are needed", 10*pods)
	}
	if *one > 0 {
		r, err := read(world{*facts, *one - 1})
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(r)
	}
	return measure(ctx, *facts, *rounds, *file, out)
}

// reading is what one process measured. Times are processor time.
type reading struct {
	Facts  int
	Merge  time.Duration
	Learn  time.Duration
	Peak   int // KiB, resident
	Rules  int
	Digest string // of the rules, the evidence and the policy
}

// read merges and learns once. Making the facts is not timed, but what it takes of
// memory counts.
func read(w world) (reading, error) {
	var r reading
	all := behavior.Profile{Subject: behavior.Subject{Workload: workload(), Container: "web"}}
	for pod := range pods {
		p := w.profile(pod)
		began := processorTime()
		all.Absorb(p)
		r.Merge += processorTime() - began
	}
	r.Facts = all.Facts.Len()
	began := processorTime()
	set, err := learn.Rules([]behavior.Profile{all}, learn.Options{})
	r.Learn = processorTime() - began
	if err != nil {
		return r, err
	}
	if r.Peak, err = peak(); err != nil {
		return r, err
	}
	r.Rules = len(set.Rules)
	r.Digest, err = digest(set)
	return r, err
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is the most memory that this process ever had resident, in KiB.
func peak() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	return 0, errors.New("read memory: no peak is told")
}

// digest names everything that comes out: each rule with its reasons and its facts
// in order, and the policy made of it.
func digest(set policy.Set) (string, error) {
	h := sha256.New()
	for _, r := range set.Rules {
		spell(h, r)
	}
	rendered, err := kubearmor.Engine{}.Render(set)
	if err != nil {
		return "", err
	}
	h.Write(rendered.Base)
	fmt.Fprintf(h, "%v", rendered.Notes)
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

func spell(h hash.Hash, r policy.Rule) {
	facts := r.Facts
	r.Facts = behavior.Selection{}
	fmt.Fprintf(h, "%+v\n", r)
	for o := range facts.All() {
		fmt.Fprintf(h, "%s %v\n", o.Fact, o.Evidence)
	}
}

// again runs this program for one reading on one processor.
func again(ctx context.Context, facts int, shuffle uint64) (reading, error) {
	var r reading
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, self, "-facts", strconv.Itoa(facts), "-one", strconv.FormatUint(shuffle+1, 10))
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("take a reading: %w", err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("read a reading: %w", err)
	}
	return r, nil
}

// system says where this was measured, and how busy it was with other things: what
// shares a processor's caches makes its time longer.
func system() string {
	load := "an unknown load"
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(text), " ")
	}
	return fmt.Sprintf("%s/%s, %d CPUs of which one was used, %s, load average %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), load)
}
