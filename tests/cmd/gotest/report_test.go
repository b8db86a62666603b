package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The stream is real: go test runs on a small module made for each case.
func TestReport(t *testing.T) {
	never := regexp.MustCompile("^$")
	for name, c := range map[string]struct {
		source    string
		strict    bool
		elsewhere *regexp.Regexp
		good      bool
		want      []string // in the output
		not       []string
	}{
		"tests that pass are counted without the parent": {
			source: `func TestA(t *testing.T) { t.Run("x", func(*testing.T) {}); t.Run("y", func(*testing.T) {}) }`,
			good:   true, want: []string{"\n2 passed, 0 failed, 0 skipped\n"},
		},
		"a failure is shown with all it said": {
			source: `func TestA(t *testing.T) { t.Log("first"); t.Run("x", func(t *testing.T) { t.Error("it broke") }) }
				func TestB(*testing.T) {}`,
			want: []string{"it broke", "first", "FAILED:\n  sample TestA/x\n", "\n1 passed, 1 failed, 0 skipped\n"},
		},
		"a parent that fails by itself counts beside its children": {
			source: `func TestA(t *testing.T) { t.Run("x", func(*testing.T) {}); t.Error("afterwards") }`,
			want:   []string{"afterwards", "\n1 passed, 1 failed, 0 skipped\n"},
		},
		"a panic is a failure with its stack": {
			source: `func TestA(*testing.T) { panic("out of cheese") }`,
			want:   []string{"out of cheese", "0 passed, 1 failed"},
		},
		"a package that exits early is a failure": {
			source: `import "os"; func TestMain(*testing.M) { os.Exit(3) }; func TestA(*testing.T) {}`,
			want:   []string{"FAILED:\n  sample\n", "0 passed, 1 failed"},
		},
		"a package that does not build is a failure with the compiler's words": {
			source: `func TestA(t *testing.T) { undefinedThing() }`,
			want:   []string{"undefined: undefinedThing", "0 passed, 1 failed"},
		},
		"a skipped test is named with its reason": {
			source: `func TestA(t *testing.T) { t.Skip("needs the moon") }; func TestB(*testing.T) {}`,
			good:   true, want: []string{"sample TestA: needs the moon\n", "\n1 passed, 0 failed, 1 skipped\n"},
		},
		"a skipped test fails a strict run": {
			source: `func TestA(t *testing.T) { t.Skip("needs the moon") }; func TestB(*testing.T) {}`,
			strict: true, want: []string{"needs the moon  <- a failure in CI", "1 skipped"},
		},
		"a test that another target runs does not fail a strict run": {
			source: `func TestA(t *testing.T) { t.Skip("set MOON=1: make moon does") }; func TestB(*testing.T) {}`,
			strict: true, elsewhere: regexp.MustCompile("make moon"), good: true,
			want: []string{"sample TestA: set MOON=1"}, not: []string{"a failure in CI"},
		},
		"no test at all is no success": {
			source: `var _ testing.T`,
			want:   []string{"no test ran", "\n0 passed, 0 failed, 0 skipped\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.elsewhere == nil {
				c.elsewhere = never
			}
			var out bytes.Buffer
			r := newReport(&out)
			if err := r.read(bytes.NewReader(goTest(t, c.source))); err != nil {
				t.Fatal(err)
			}
			if good := r.summary(c.strict, c.elsewhere); good != c.good {
				t.Errorf("good = %t", good)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("lacks %q", want)
				}
			}
			for _, not := range c.not {
				if strings.Contains(out.String(), not) {
					t.Errorf("has %q", not)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}

func goTest(t *testing.T, source string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":         "module sample\n\ngo 1.26.0\n",
		"sample_test.go": "package sample\n\nimport \"testing\"\n\n" + source + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-json", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-vet=off", "GOWORK=off")
	out, err := cmd.Output() // a failing test is what some cases are about
	if len(out) == 0 {
		t.Fatalf("go test said nothing: %v", err)
	}
	return out
}

func TestGroupsSplitAtDashes(t *testing.T) {
	var got [][]string
	for g := range groups([]string{".", "./...", "--", "tests/cluster", "."}) {
		got = append(got, g)
	}
	if len(got) != 2 || !slices.Equal(got[0], []string{".", "./..."}) || !slices.Equal(got[1], []string{"tests/cluster", "."}) {
		t.Errorf("groups = %q", got)
	}
}
