package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/tests/bench/page"
)

// What learning is held to.
const (
	timeBound  = 2.0  // seconds on one processor
	peakBound  = 500  // MB of 1,000,000 bytes
	ratioBound = 12.0 // of the time for a tenth of the facts
)

// result is what was measured: medians.
type result struct {
	small, large []reading
	different    int // readings of shuffled facts that came out differently
}

func measure(ctx context.Context, facts, rounds int, file string, out io.Writer) error {
	var r result
	for round := range rounds {
		for _, n := range []int{facts / 10, facts} {
			one, err := again(ctx, n, uint64(round)) // the first is in order
			if err != nil {
				return err
			}
			list := &r.large
			if n < facts {
				list = &r.small
			}
			*list = append(*list, one)
			if one.Digest != (*list)[0].Digest {
				r.different++
			}
		}
	}
	text := r.table()
	fmt.Fprintln(out, text)
	if file != "" {
		if err := page.Write(file, "make bench-learn", text); err != nil {
			return err
		}
	}
	for _, m := range r.measures() {
		fmt.Fprintln(out, m.Line())
	}
	return nil
}

// median of one number of every reading.
func median(list []reading, of func(reading) float64) float64 {
	var values []float64
	for _, r := range list {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func seconds(r reading) float64   { return (r.Merge + r.Learn).Seconds() }
func megabytes(r reading) float64 { return float64(r.Peak) * 1024 / 1e6 }

func (r result) measures() []page.Reading {
	large, small := median(r.large, seconds), median(r.small, seconds)
	return []page.Reading{
		{Name: "learn-time", Value: large, Unit: "s", Bound: timeBound, Measured: true},
		{Name: "learn-memory", Value: median(r.large, megabytes), Unit: "MB", Bound: peakBound, Measured: true},
		{Name: "learn-ratio", Value: large / small, Unit: "of-a-tenth", Bound: ratioBound, Measured: true},
		{Name: "learn-shuffled-differ", Value: float64(r.different), Unit: "outputs", Bound: 0, Measured: len(r.large) > 1},
	}
}

// table is the Markdown of everything measured.
func (r result) table() string {
	var b strings.Builder
	b.WriteString(page.Table(r.measures()))
	b.WriteString("\n| distinct facts | merge | learn | peak memory | rules |\n|---|---|---|---|---|\n")
	for _, list := range [][]reading{r.small, r.large} {
		merge := median(list, func(r reading) float64 { return r.Merge.Seconds() })
		learn := median(list, func(r reading) float64 { return r.Learn.Seconds() })
		fmt.Fprintf(&b, "| %d | %s | %s | %.0f MB | %d |\n", list[0].Facts, inMilliseconds(merge), inMilliseconds(learn), median(list, megabytes), list[0].Rules)
	}
	fmt.Fprintf(&b, "\nMedians of %d processes each, all but the first with shuffled facts; %s.\n", len(r.large), system())
	return b.String()
}

func inMilliseconds(seconds float64) string {
	return fmt.Sprintf("%d ms", time.Duration(seconds*float64(time.Second)).Milliseconds())
}
