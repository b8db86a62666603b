//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// What is measured in turns, in each round.
const (
	nothing          = "nothing"
	emptyPrograms    = "empty programs"
	ours             = "the collector"
	bpftraceSyscalls = "bpftrace, the same key"
	bpftraceCount    = "bpftrace, counting by cgroup"
	bpftraceAll      = "bpftrace, the same facts"
	bpftraceEvents   = "bpftrace, without system calls"
)

func variants() []string {
	return []string{nothing, emptyPrograms, ours, bpftraceSyscalls, bpftraceCount, bpftraceAll, bpftraceEvents}
}

// deed is something that a container does again and again: n times a batch.
type deed struct {
	word, name string
	n, batches int
}

func deeds() []deed {
	return []deed{
		{"syscall", "getpid", 50000, 7},
		{"open", "open+close", 10000, 7},
		{"connect", "connect+accept", 300, 21},
		{"exec", "exec", 50, 40},
	}
}

// costs are the nanoseconds of one deed: by deed and variant, of each round.
type costs map[string]map[string][]float64

// measureDeeds has one container do each deed under each variant, in turns.
func (l *lab) measureDeeds(ctx context.Context, rounds int) (_ costs, _ map[string]map[string]spent, err error) {
	c, err := l.start(ctx, 0, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, l.stop(c)) }()
	hooks, shares, err := l.shares(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if rounds == 0 {
		return nil, shares, nil
	}
	all := costs{}
	for _, d := range deeds() {
		all[d.name] = map[string][]float64{}
	}
	order := variants()
	for round := range rounds {
		l.say("time added, round %d of %d", round+1, rounds)
		for _, variant := range order {
			if err := l.under(ctx, variant, hooks, func() error { return doDeeds(c, variant, all) }); err != nil {
				return nil, nil, fmt.Errorf("under %s: %w", variant, err)
			}
		}
		order = append(order[1:], order[0])
	}
	return all, shares, nil
}

func doDeeds(c *container, variant string, all costs) error {
	for _, d := range deeds() {
		if _, err := do(c, deed{d.word, d.name, d.n / 10, 1}); err != nil { // known from here on
			return err
		}
		took, err := do(c, d)
		if err != nil {
			return err
		}
		all[d.name][variant] = append(all[d.name][variant], took)
	}
	return nil
}

// do gives the nanoseconds of one deed, of the fastest batch: what disturbs only adds.
func do(c *container, d deed) (float64, error) {
	var took []float64
	for len(took) < d.batches {
		n := d.batches
		if d.word == "exec" {
			n = 1 // it does not come back to count
		}
		numbers, err := c.ask(d.word, d.n, n)
		if err != nil {
			return 0, err
		}
		took = append(took, numbers...)
	}
	return slices.Min(took) / float64(d.n), nil
}

// under does something while a variant is in the kernel.
func (l *lab) under(ctx context.Context, variant string, hooks []hook, do func() error) (err error) {
	switch variant {
	case nothing:
		return do()
	case emptyPrograms:
		remove, err := attachEmpty(hooks, l.cgroupRoot)
		if err != nil {
			return err
		}
		defer remove()
		return do()
	case ours:
		collector, err := l.collect(ctx)
		if err != nil {
			return err
		}
		return errors.Join(do(), collector.check(ctx), collector.Stop())
	}
	i := slices.IndexFunc(scripts(), func(s script) bool { return s.name == variant })
	stop, err := l.trace(ctx, scripts()[i])
	if err != nil {
		return err
	}
	return errors.Join(do(), stop())
}

// check refuses a collector that saw nothing of what it was to cost something
// for, or that lost something.
func (c *collector) check(ctx context.Context) error {
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if s.Containers == 0 || s.Facts == 0 {
		return fmt.Errorf("the collector observed %d facts of %d containers", s.Facts, s.Containers)
	}
	return nil
}

// shares lets the container do each deed once while the kernel keeps statistics,
// and tells what each program had of it, by deed and program, for one deed. It
// also gives the hooks that the collector uses.
func (l *lab) shares(ctx context.Context, c *container) (_ []hook, _ map[string]map[string]spent, err error) {
	collector, err := l.collect(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, collector.Stop()) }()
	hooks, err := collector.objects.hooks()
	if err != nil {
		return nil, nil, err
	}
	statistics, err := ebpf.EnableStats(uint32(0)) // BPF_STATS_RUN_TIME
	if err != nil {
		return nil, nil, fmt.Errorf("enable statistics: %w", err)
	}
	defer statistics.Close()
	shares := map[string]map[string]spent{}
	for _, d := range deeds() {
		if _, err := do(c, d); err != nil { // known from here on
			return nil, nil, err
		}
		for range 5 {
			before, err := collector.objects.spentBy()
			if err != nil {
				return nil, nil, err
			}
			if _, err := do(c, d); err != nil {
				return nil, nil, err
			}
			after, err := collector.objects.spentBy()
			if err != nil {
				return nil, nil, err
			}
			shares[d.name] = least(shares[d.name], perDeed(before, after, d.n*d.batches))
		}
	}
	return hooks, shares, nil
}

// least keeps of two the lower time of each program.
func least(a, b map[string]spent) map[string]spent {
	for name, s := range a {
		if t, ok := b[name]; !ok || s.time < t.time {
			b[name] = s
		}
	}
	return b
}

// perDeed gives the time that each program spent on one deed, and its runs of all.
func perDeed(before, after map[string]spent, deeds int) map[string]spent {
	share := map[string]spent{}
	for name, s := range after {
		if runs := s.runs - before[name].runs; runs*10 > uint64(deeds) { // rarer ones are others'
			share[name] = spent{runs, (s.time - before[name].time) / time.Duration(deeds)}
		}
	}
	return share
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// added is what variant adds to a deed, in nanoseconds: the median of what it
// added to the same round's time under nothing.
func (k costs) added(deed, variant string) float64 {
	var list []float64
	for round, took := range k[deed][variant] {
		list = append(list, took-k[deed][nothing][round])
	}
	return median(list)
}
