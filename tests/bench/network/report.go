package main

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/tests/bench/page"
)

func rate(c cost, flows int) float64 { return float64(flows) / c.time.Seconds() }

func (r *result) readings() []page.Reading {
	var list []page.Reading
	for _, n := range []int{small, large} {
		list = append(list,
			page.Reading{Name: fmt.Sprintf("flows-to-policies-%d", n), Value: rate(r.ours[n], n) / rate(r.theirs[n], n), Unit: "of-advisor", Bound: fasterBound, AtLeast: true, Measured: true},
			page.Reading{Name: fmt.Sprintf("flows-to-policies-%d-allocations", n), Value: r.ours[n].mallocs / r.theirs[n].mallocs, Unit: "of-advisor", Bound: fewerBound, Measured: true})
	}
	return append(list,
		page.Reading{Name: "hubble-flows", Value: rate(r.whole, more), Unit: "flows/s", Bound: decodedBound, AtLeast: true, Measured: true},
		page.Reading{Name: "ten-times-the-flows", Value: r.whole.time.Seconds() / r.tenth.time.Seconds(), Unit: "times", Bound: scalingBound, Measured: true},
		page.Reading{Name: "ten-times-the-flows-memory", Value: r.whole.bytesHeld / r.tenth.bytesHeld, Unit: "times", Bound: memoryBound, Measured: true})
}

func (r *result) table() string {
	var b strings.Builder
	b.WriteString(page.Table(r.readings()))
	b.WriteString("\n| flows | policies | ours, from protobuf | advisor " + rival + ", from its JSON | advisor, events in memory | allocations, ours and the advisor's |\n|---|---|---|---|---|---|\n")
	for _, n := range []int{small, large} {
		fmt.Fprintf(&b, "| %d | %d | %.0f flows/s | %.0f flows/s | %.0f flows/s | %.0f, %.0f |\n", n, r.ours[n].policies,
			rate(r.ours[n], n), rate(r.theirs[n], n), rate(r.generated[n], n), r.ours[n].mallocs, r.theirs[n].mallocs)
	}
	fmt.Fprintf(&b, "\nKept of %d flows: %.1f MB, of %d: %.1f MB.\n", large, r.tenth.bytesHeld/1e6, more, r.whole.bytesHeld/1e6)
	fmt.Fprintf(&b, "Medians of %d turns each, in processor time on one processor; %s/%s, %s.\n", r.rounds, runtime.GOOS, runtime.GOARCH, runtime.Version())
	return b.String()
}
