//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/tests/bench/page"
)

// result is what was measured; what was not is nil.
type result struct {
	rounds       int
	around       string // what else was there
	deeds        costs
	shares       map[string]map[string]spent
	throughputs  throughputs
	flood        *flood
	steadyEvents float64 // a second
	steadyCPU    float64 // % of one processor
	left         map[string]left
}

func (r *result) report(out io.Writer, file string) error {
	text := r.text()
	fmt.Fprintln(out, text)
	if file != "" {
		if err := page.Write(file, "make bench-collector", text); err != nil {
			return err
		}
	}
	for _, reading := range r.readings() {
		fmt.Fprintln(out, reading.Line())
	}
	return nil
}

// ratio gives what ours adds to a deed, as a share of what the other adds.
func (r *result) ratio(deed, other string) float64 {
	return r.deeds.added(deed, ours) / r.deeds.added(deed, other)
}

func (r *result) readings() []page.Reading {
	var list []page.Reading
	add := func(name string, measured bool, value func() float64, unit, sign string, bound float64) {
		reading := page.Reading{Name: name, Unit: unit, Bound: bound, AtLeast: sign == ">=", Measured: measured}
		if measured {
			reading.Value = value()
		}
		list = append(list, reading)
	}
	for _, d := range deeds() {
		rival, ofRival, ofEmpty := bpftraceAll, 0.5, 2.5
		if d.word == "syscall" {
			rival, ofRival, ofEmpty = bpftraceSyscalls, 0.65, 2
		}
		// What adds nothing that can be measured is nothing to compare, nor to compare
		// with.
		adds := func(variant string) bool { return r.deeds.added(d.name, variant) > 0 }
		add(d.word+"-of-empty", adds(ours) && adds(emptyPrograms), func() float64 { return r.ratio(d.name, emptyPrograms) }, "of-empty", "<=", ofEmpty)
		add(d.word+"-of-bpftrace", adds(ours) && adds(rival), func() float64 { return r.ratio(d.name, rival) }, "of-bpftrace", "<=", ofRival)
	}
	add("exec-added", r.deeds != nil, func() float64 { return r.deeds.added("exec", ours) / median(r.deeds["exec"][nothing]) * 100 }, "%", "<=", 3)
	for _, s := range servers() {
		add("throughput-"+s.name, r.throughputs != nil, func() float64 { return r.throughputs.ratio(s.name, ours) }, "of-without", ">=", 0.98)
	}
	f := r.flood
	add("rare-facts-planted", f != nil, func() float64 { return float64(f.planted) }, "facts", ">=", 10000)
	add("rare-facts-missing", f != nil, func() float64 { return float64(f.missing) }, "facts", "<=", 0)
	add("rare-facts-rate", f != nil, func() float64 { return float64(f.events) / f.took.Seconds() / 1e6 }, "M-events/s", ">=", 2)
	add("streaming-loss", f != nil, func() float64 { return float64(f.dropped) / float64(f.streamed) * 100 }, "%", ">=", 20)
	add("memory-resident", f != nil, func() float64 { return f.resident }, "MiB", "<=", 60)
	add("memory-per-container", f != nil, func() float64 { return f.perContainer() }, "KiB", "<=", 8)
	add("steady-cpu", r.steadyEvents > 0, func() float64 { return r.steadyCPU }, "%", "<=", 2)
	for _, how := range []string{"stop", "SIGKILL"} {
		add("left-after-"+how, r.left != nil, func() float64 { return r.left[how].sum() }, "objects", "<=", 0)
	}
	return list
}

// ratio is the median of the rounds' ratios to the throughput without anything.
func (t throughputs) ratio(server, variant string) float64 {
	var ratios []float64
	for round, n := range t[server][variant] {
		ratios = append(ratios, n/t[server][nothing][round])
	}
	return median(ratios)
}

// perContainer is what the maps of system calls and capabilities take for the
// containers that were there, in KiB: all of a map that grows,
// otherwise the share that their entries have of it.
func (f *flood) perContainer() float64 {
	total := 0.0
	for _, r := range f.rooms {
		switch {
		case r.name != "namespaces" && r.name != "capabilities":
		case r.grows:
			total += float64(r.bytes)
		default:
			total += float64(r.bytes) / float64(r.max) * float64(r.used)
		}
	}
	return total / containers / 1024
}

func (r *result) text() string {
	var b strings.Builder
	b.WriteString(page.Table(r.readings()))
	if r.deeds != nil {
		r.writeDeeds(&b)
	}
	r.writeShares(&b)
	if r.throughputs != nil {
		b.WriteString("\n| server | requests/s without | with empty programs | with the collector |\n|---|---|---|---|\n")
		for _, s := range servers() {
			t := r.throughputs[s.name]
			fmt.Fprintf(&b, "| %s | %.0f | %.3f of it | %.3f of it |\n", s.name, median(t[nothing]),
				r.throughputs.ratio(s.name, emptyPrograms), r.throughputs.ratio(s.name, ours))
		}
	}
	if r.flood != nil {
		r.flood.write(&b)
	}
	if r.steadyEvents > 0 {
		fmt.Fprintf(&b, "\nSteady state: %.0f events a second of %d containers.\n", r.steadyEvents, containers)
	}
	fmt.Fprintf(&b, "\n%d rounds; Linux %s, %s/%s, %d CPUs, %s; %s.\n", r.rounds, kernelRelease(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), r.around)
	return b.String()
}

func (r *result) writeDeeds(b *strings.Builder) {
	b.WriteString("\n| ns | alone |")
	for _, v := range variants()[1:] {
		fmt.Fprintf(b, " + %s |", v)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(variants())) + "\n")
	for _, d := range deeds() {
		fmt.Fprintf(b, "| %s | %.0f |", d.name, median(r.deeds[d.name][nothing]))
		for _, v := range variants()[1:] {
			fmt.Fprintf(b, " %.0f |", r.deeds.added(d.name, v))
		}
		b.WriteString("\n")
	}
}

func (r *result) writeShares(b *strings.Builder) {
	if r.shares == nil {
		return
	}
	b.WriteString("\n| program | ns of one of | |\n|---|---|---|\n")
	for _, d := range deeds() {
		programs := slices.SortedFunc(maps.Keys(r.shares[d.name]), func(x, y string) int {
			return int(r.shares[d.name][y].time - r.shares[d.name][x].time)
		})
		for _, name := range programs {
			s := r.shares[d.name][name]
			fmt.Fprintf(b, "| %s | %s | %d in %.1f runs |\n", name, d.name, s.time.Nanoseconds(), float64(s.runs)/float64(d.n*d.batches))
		}
	}
}

func (f *flood) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n%d events in %.1f s. The streaming collector's ring of %d KiB refused %d of %d; it has %d of %d rare system calls. "+
		"The collector holds %d facts; it counts as lost: %d.\n", f.events, f.took.Seconds(), ringBytes>>10, f.dropped, f.streamed,
		f.streamFound, f.streamPlanted, f.facts, len(f.lost))
	b.WriteString("\n| map | KiB | entries in use |\n|---|---|---|\n")
	var total uint64
	for _, r := range f.rooms {
		total += r.bytes
		if r.bytes >= 64<<10 {
			fmt.Fprintf(b, "| %s | %d | %d of %d |\n", r.name, r.bytes>>10, r.used, r.max)
		}
	}
	fmt.Fprintf(b, "| all %d | %d | |\n", len(f.rooms), total>>10)
}

func kernelRelease() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		var name unix.Utsname
		if unix.Uname(&name) != nil {
			return "unknown"
		}
		return unix.ByteSliceToString(name.Release[:])
	}
	return strings.TrimSpace(string(release))
}
