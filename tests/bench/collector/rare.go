//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

const (
	containers = 200
	firstSmall = 4       // containers 0 to 3 are those of deeds and servers
	eventRate  = 2100000 // system calls a second that are asked of all containers together
	rareTime   = 20 * time.Second
	ringBytes  = 8 << 20 // of the streaming collector; 256 KiB is usual
)

// rareCalls are what load.c calls once.
func rareCalls() []string {
	return []string{"sched_yield", "sysinfo", "times", "getuid", "getgid", "geteuid", "getegid", "getppid", "getpgrp", "gettid"}
}

// rareNumbers are theirs on x86-64, as in load.c.
func rareNumbers() map[uint64]bool {
	return map[uint64]bool{24: true, 99: true, 100: true, 102: true, 104: true, 107: true, 108: true, 110: true, 111: true, 186: true}
}

// flood is what came of the rare facts.
type flood struct {
	planted, missing           int
	events                     uint64 // system calls that the containers made
	took                       time.Duration
	streamed, dropped          uint64 // of the streaming collector
	streamPlanted, streamFound int    // rare system calls
	lost                       map[string]uint64
	resident                   float64 // MiB, of the collector at the end
	facts                      uint64
	rooms                      []mapRoom
}

// plantRareFacts has 200 containers make two million system calls a second, and
// each of them 50 things once in between, while the collector and a streaming one
// look on.
func (l *lab) plantRareFacts(ctx context.Context, r *result) (err error) {
	collector, err := l.collect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, collector.Stop()) }()
	l.say("starting %d containers", containers-firstSmall)
	small, err := l.startSmall(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range small {
			err = errors.Join(err, l.stop(c))
		}
	}()
	s, err := l.openStream()
	if err != nil {
		return err
	}
	l.say("planting rare facts for %s", rareTime)
	f := &flood{}
	began := time.Now()
	err = floodAll(small, &f.events)
	f.took = time.Since(began)
	err = errors.Join(err, s.close(f))
	if err != nil {
		return err
	}
	facts, status, err := collector.pull(ctx)
	if err != nil {
		return err
	}
	f.lost, f.facts = status.Lost, status.Facts
	for _, c := range small {
		planted, missing := missingOf(facts[podOf(c.number).Name])
		f.planted, f.missing = f.planted+planted, f.missing+len(missing)
		if len(missing) > 0 {
			l.say("container %d: missing %v", c.number, missing)
		}
	}
	f.streamPlanted = len(small) * len(rareCalls())
	if f.resident, err = collector.resident(); err != nil {
		return err
	}
	f.rooms, err = collector.objects.rooms()
	r.flood = f
	return err
}

// startSmall starts those containers that only run load.c's program.
func (l *lab) startSmall(ctx context.Context) ([]*container, error) {
	var small []*container
	for n := firstSmall; n < firstSmall+containers; n++ {
		c, err := l.start(ctx, n, 0)
		if err != nil {
			return small, err
		}
		small = append(small, c)
	}
	for _, c := range small {
		if _, err := c.ask("syscall", 1, 1); err != nil {
			return small, err
		}
	}
	return small, nil
}

func floodAll(small []*container, events *uint64) error {
	for _, c := range small {
		if err := c.send("flood", eventRate/len(small), int(rareTime.Milliseconds())); err != nil {
			return err
		}
	}
	for _, c := range small {
		made, err := c.answer()
		if err != nil {
			return err
		}
		*events += uint64(made[0])
	}
	return nil
}

// missingOf counts what load.c plants and lists what is not among the facts.
func missingOf(facts []behavior.Fact) (planted int, missing []string) {
	want := func(what string, is func(behavior.Fact) bool) {
		planted++
		if !slices.ContainsFunc(facts, is) {
			missing = append(missing, what)
		}
	}
	for i := range 30 {
		name := fmt.Sprintf("/rare/%02d", i)
		want(name, func(f behavior.Fact) bool { return f.Kind == behavior.File && f.Path == name && f.Exe == "/load" })
	}
	for i := range 10 {
		port := uint16(20000 + i)
		want(fmt.Sprintf("port %d", port), func(f behavior.Fact) bool { return f.Kind == behavior.Network && f.Port == port && f.Exe == "/load" })
	}
	for _, name := range rareCalls() {
		want(name, func(f behavior.Fact) bool { return f.Kind == behavior.Syscall && f.Name == name && !f.Runtime })
	}
	return planted, missing
}

// stream is a collector of the other kind.
type stream struct {
	collection *ebpf.Collection
	link       link.Link
	reader     *ringbuf.Reader
	done       chan error
	seen       map[[2]uint64]uint64 // control group and system call to how often
}

func (l *lab) openStream() (_ *stream, err error) {
	spec, err := ebpf.LoadCollectionSpec(filepath.Join(l.work, "stream.o"))
	if err != nil {
		return nil, fmt.Errorf("load stream: %w", err)
	}
	spec.Maps["events"].MaxEntries = ringBytes
	s := &stream{seen: map[[2]uint64]uint64{}, done: make(chan error, 1)}
	if s.collection, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("load stream: %w", err)
	}
	if s.reader, err = ringbuf.NewReader(s.collection.Maps["events"]); err != nil {
		s.collection.Close()
		return nil, fmt.Errorf("read stream: %w", err)
	}
	go func() { s.done <- s.read() }()
	if s.link, err = link.AttachTracing(link.TracingOptions{Program: s.collection.Programs["stream"]}); err != nil {
		s.reader.Close()
		s.collection.Close()
		return nil, fmt.Errorf("attach stream: %w", err)
	}
	return s, nil
}

// read keeps the distinct events, which is the least that a collector does.
func (s *stream) read() error {
	var record ringbuf.Record
	for {
		err := s.reader.ReadInto(&record)
		if errors.Is(err, ringbuf.ErrClosed) || errors.Is(err, ringbuf.ErrFlushed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		s.seen[[2]uint64{binary.NativeEndian.Uint64(record.RawSample), binary.NativeEndian.Uint64(record.RawSample[8:])}]++
	}
}

// close lets it read what is left, and tells how it fared.
func (s *stream) close(f *flood) error {
	err := errors.Join(s.link.Close(), s.reader.Flush(), <-s.done, s.reader.Close())
	defer s.collection.Close()
	for which, total := range []*uint64{&f.streamed, &f.dropped} {
		var perCPU []uint64
		if err := s.collection.Maps["counts"].Lookup(uint32(which), &perCPU); err != nil {
			return errors.Join(err, fmt.Errorf("read stream's counts: %w", err))
		}
		for _, n := range perCPU {
			*total += n
		}
	}
	rare := rareNumbers()
	for key := range s.seen {
		if rare[key[1]] {
			f.streamFound++
		}
	}
	return err
}
