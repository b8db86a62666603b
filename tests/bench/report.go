package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/tests/bench/page"
)

func (r *result) measures() []page.Reading {
	start := page.Reading{Name: "plugin-start", Unit: "of-kubectl", Bound: startBound}
	if k := quantile(r.kubectl, 0.5); k > 0 {
		start.Value, start.Measured = float64(quantile(r.plugin, 0.5))/float64(k), true
	}
	return []page.Reading{
		{Name: "plugin-size", Value: r.size, Unit: "MB", Bound: sizeBound, Measured: true},
		{Name: "plugin-size-compressed", Value: r.compressed, Unit: "MB", Bound: compressedBound, Measured: true},
		start,
	}
}

// table is the Markdown of everything measured.
func (r *result) table() string {
	var b strings.Builder
	b.WriteString(page.Table(r.measures()))
	if len(r.plugin) > 0 {
		b.WriteString("\n| start | median | fastest | 90 % below |\n|---|---|---|---|\n")
		row(&b, "`kubectl-autopolicy version`", r.plugin)
		row(&b, fmt.Sprintf("stock `kubectl version --client` (%.0f MB)", r.kubectlSize), r.kubectl)
		fmt.Fprintf(&b, "\n%d runs of each, in turns; %s, %s.\n", r.runs, r.system, r.goVersion)
	}
	return b.String()
}

func row(b *strings.Builder, name string, sorted []time.Duration) {
	fmt.Fprintf(b, "| %s |", name)
	for _, q := range []float64{0.5, 0, 0.9} {
		fmt.Fprintf(b, " %.1f ms |", float64(quantile(sorted, q).Microseconds())/1000)
	}
	b.WriteString("\n")
}
