// Package page holds what the benchmarks say: readings with their bounds, and the
// part of a documentation page that they write. It must not measure anything.
package page

import (
	"fmt"
	"os"
	"strings"
)

// Reading is one number and the bound that it is held to: not to be exceeded, or
// not to be fallen below when AtLeast is set. It has no verdict unless Measured.
type Reading struct {
	Name     string
	Value    float64
	Unit     string
	Bound    float64
	AtLeast  bool
	Measured bool
}

// Verdict is ok, short or unmeasured.
func (r Reading) Verdict() string {
	switch {
	case !r.Measured:
		return "unmeasured"
	case r.AtLeast && r.Value >= r.Bound, !r.AtLeast && r.Value <= r.Bound:
		return "ok"
	}
	return "short"
}

func (r Reading) value() string {
	if !r.Measured {
		return "-"
	}
	if r.Value >= 1000 {
		return fmt.Sprintf("%.0f", r.Value)
	}
	return fmt.Sprintf("%.3g", r.Value)
}

// Line is the reading for a program to read, with tabs between the fields:
//
//	measure NAME VALUE UNIT BOUND ok|short|unmeasured
func (r Reading) Line() string {
	sign := "<="
	if r.AtLeast {
		sign = ">="
	}
	return strings.Join([]string{"measure", r.Name, r.value(), r.Unit, fmt.Sprintf("%s%g", sign, r.Bound), r.Verdict()}, "\t")
}

// Table is the Markdown of the readings.
func Table(readings []Reading) string {
	var b strings.Builder
	b.WriteString("| measure | value | bound | |\n|---|---|---|---|\n")
	for _, r := range readings {
		value, bound := r.value(), "at most"
		if r.Measured {
			value += " " + r.Unit
		}
		if r.AtLeast {
			bound = "at least"
		}
		fmt.Fprintf(&b, "| %s | %s | %s %g %s | %s |\n", r.Name, value, bound, r.Bound, r.Unit, r.Verdict())
	}
	return b.String()
}

// Write puts text between the markers that a page has for a command and leaves
// the rest of the page alone.
func Write(file, command, text string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read page: %w", err)
	}
	changed, err := Between(string(page), command, text)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// Between gives the page with text between the markers of a command, which are
// lines: <!-- begin: COMMAND --> and <!-- end: COMMAND -->.
func Between(page, command, text string) (string, error) {
	begin, end := "<!-- begin: "+command+" -->\n", "<!-- end: "+command+" -->\n"
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
