package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// What a page has before and after the part that bench writes.
const (
	begin = "<!-- begin: make bench -->\n"
	end   = "<!-- end: make bench -->\n"
)

// reading is one number and the bound it must not exceed.
type reading struct {
	name     string
	value    float64
	unit     string
	bound    float64
	measured bool
}

func (m reading) verdict() string {
	switch {
	case !m.measured:
		return "unmeasured"
	case m.value <= m.bound:
		return "ok"
	}
	return "short"
}

func (m reading) line() string {
	value := "-"
	if m.measured {
		value = fmt.Sprintf("%.3g", m.value)
	}
	return strings.Join([]string{"measure", m.name, value, m.unit, fmt.Sprintf("<=%g", m.bound), m.verdict()}, "\t")
}

func (r *result) measures() []reading {
	start := reading{name: "plugin-start", unit: "of-kubectl", bound: startBound}
	if k := quantile(r.kubectl, 0.5); k > 0 {
		start.value, start.measured = float64(quantile(r.plugin, 0.5))/float64(k), true
	}
	return []reading{
		{"plugin-size", r.size, "MB", sizeBound, true},
		{"plugin-size-compressed", r.compressed, "MB", compressedBound, true},
		start,
	}
}

// table is the Markdown of everything measured.
func (r *result) table() string {
	var b strings.Builder
	b.WriteString("| measure | value | bound | |\n|---|---|---|---|\n")
	for _, m := range r.measures() {
		value := "-"
		if m.measured {
			value = fmt.Sprintf("%.3g %s", m.value, m.unit)
		}
		fmt.Fprintf(&b, "| %s | %s | at most %g %s | %s |\n", m.name, value, m.bound, m.unit, m.verdict())
	}
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

// writePage puts text between the page's markers and leaves the rest alone.
func writePage(file, text string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read page: %w", err)
	}
	changed, err := between(string(page), text)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

func between(page, text string) (string, error) {
	before, rest, ok := strings.Cut(page, begin)
	if !ok {
		return "", fmt.Errorf("no line %q", strings.TrimSpace(begin))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("no line %q", strings.TrimSpace(end))
	}
	return before + begin + "\n" + strings.TrimSpace(text) + "\n\n" + end + after, nil
}
