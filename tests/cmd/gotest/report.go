package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// event is one line of go test -json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string
	Output     string
	Elapsed    float64
}

// running is a test, or with the empty name a package, that has begun.
type running struct {
	output   strings.Builder
	parent   bool // has subtests
	badChild bool // one of its subtests has failed
	cached   bool
	passed   int // of a package: its tests
	failed   int
	skipped  int
}

// skip is a test that did not run.
type skip struct{ name, reason string }

// report gathers what the tests of all modules did. A test with subtests
// counts only when it failed by itself.
type report struct {
	out     io.Writer
	tests   map[string]*running // by package and test
	passed  int
	failed  int
	skips   []skip
	failing []string
}

func newReport(out io.Writer) *report {
	return &report{out: out, tests: map[string]*running{}}
}

// read takes events until the stream ends. A line that is no event, such as
// what a child of a test wrote, is passed on.
func (r *report) read(events io.Reader) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if trimmed := bytes.TrimSpace(line); len(trimmed) > 0 {
			var e event
			if trimmed[0] == '{' && json.Unmarshal(trimmed, &e) == nil && e.Action != "" {
				r.event(e)
			} else {
				fmt.Fprintf(r.out, "%s\n", trimmed)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) event(e event) {
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "run":
		r.get(e.Package, e.Test)
		for parent := parentOf(e.Test); parent != ""; parent = parentOf(parent) {
			r.get(e.Package, parent).parent = true
		}
	case "output":
		r.write(e)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e)
		}
	}
}

func (r *report) get(pkg, test string) *running {
	key := pkg + " " + test
	t := r.tests[key]
	if t == nil {
		t = &running{}
		r.tests[key] = t
	}
	return t
}

func (r *report) write(e event) {
	t := r.get(e.Package, e.Test)
	text := strings.TrimSpace(e.Output)
	switch {
	case strings.HasPrefix(text, "=== "):
		return
	case e.Test == "" && (text == "PASS" || text == "FAIL" || strings.HasPrefix(text, "ok  \t") || strings.HasPrefix(text, "FAIL\t") || strings.HasPrefix(text, "?   \t")):
		t.cached = strings.HasSuffix(text, "(cached)")
		return
	}
	t.output.WriteString(e.Output)
}

func (r *report) endTest(e event) {
	t, pkg := r.get(e.Package, e.Test), r.get(e.Package, "")
	delete(r.tests, e.Package+" "+e.Test)
	name := short(e.Package) + " " + e.Test
	switch {
	case e.Action == "fail":
		if parent := parentOf(e.Test); parent != "" {
			r.get(e.Package, parent).badChild = true
		}
		if !t.badChild {
			pkg.failed++
			r.fail(name)
		}
		fmt.Fprintf(r.out, "\nFAIL %s\n%s", name, t.output.String())
	case e.Action == "skip":
		pkg.skipped++
		r.skips = append(r.skips, skip{name, reason(t.output.String())})
	case !t.parent:
		pkg.passed++
		r.passed++
	}
}

func (r *report) endPackage(e event) {
	pkg := r.get(e.Package, "")
	delete(r.tests, e.Package+" ")
	// What had begun and never ended is what the package died of.
	if e.Action == "fail" {
		for key, t := range r.tests {
			if test, ok := strings.CutPrefix(key, e.Package+" "); ok {
				name := short(e.Package) + " " + test
				fmt.Fprintf(r.out, "\nFAIL %s (did not end)\n%s", name, t.output.String())
				delete(r.tests, key)
				pkg.failed++
				r.fail(name)
			}
		}
		if pkg.failed == 0 {
			pkg.failed++
			r.fail(short(e.Package))
		}
		fmt.Fprint(r.out, pkg.output.String())
	}
	if pkg.passed+pkg.failed+pkg.skipped == 0 {
		return // no tests
	}
	verdict, cached := "ok  ", ""
	if e.Action == "fail" {
		verdict = "FAIL"
	}
	if pkg.cached {
		cached = ", cached"
	}
	fmt.Fprintf(r.out, "%s %-44s %5.1f s  %d passed, %d failed, %d skipped%s\n", verdict, short(e.Package), e.Elapsed, pkg.passed, pkg.failed, pkg.skipped, cached)
}

func (r *report) fail(name string) {
	r.failed++
	r.failing = append(r.failing, name)
}

// summary prints what was skipped and what failed, and the counts alone on the
// last line. It gives whether the run is good.
func (r *report) summary(strict bool, elsewhere *regexp.Regexp) bool {
	good := r.failed == 0
	if len(r.skips) > 0 {
		fmt.Fprintf(r.out, "\nSKIPPED: %d did not run here\n", len(r.skips))
	}
	for _, s := range r.skips {
		mark := ""
		if strict && !elsewhere.MatchString(s.reason) {
			mark, good = "  <- a failure in CI", false
		}
		fmt.Fprintf(r.out, "  %s: %s%s\n", s.name, s.reason, mark)
	}
	if len(r.failing) > 0 {
		fmt.Fprintln(r.out, "\nFAILED:")
	}
	for _, name := range r.failing {
		fmt.Fprintln(r.out, "  "+name)
	}
	if r.passed+r.failed == 0 {
		fmt.Fprintln(r.out, "\nno test ran")
		good = false
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skips))
	return good
}

var location = regexp.MustCompile(`^\s*\S+\.go:\d+: `)

// reason is what a skipped test said, on one line.
func reason(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "--- SKIP") {
			said = append(said, location.ReplaceAllString(line, ""))
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

func parentOf(test string) string {
	if i := strings.LastIndexByte(test, '/'); i >= 0 {
		return test[:i]
	}
	return ""
}

// short is a package's path within the project.
func short(pkg string) string {
	if rest, ok := strings.CutPrefix(pkg, "github.com/autopolicy/kubectl-autopolicy/"); ok {
		return rest
	}
	return pkg
}
