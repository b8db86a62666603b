// Command git measures what a commit costs, side by side with the git program
// and with go-git's worktree, in repositories of 10,000 and 100,000 files, and
// what a plan for 2,000 policies costs. What is compared is run in turns, each in
// a clone of its own of the same repository.
//
// Its last lines are for a program to read, with tabs between the fields:
//
//	measure NAME VALUE UNIT BOUND ok|short|unmeasured
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
	"github.com/autopolicy/kubectl-autopolicy/tests/bench/page"
)

const (
	changed = 50 // files of one commit
	small   = 10_000
	big     = 100_000
	// goGitRounds are few: one commit of go-git's takes half a minute.
	goGitRounds = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-git:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("bench-git", flag.ContinueOnError)
	rounds := flags.Int("rounds", 10, "commits of each kind")
	file := flags.String("write", "", "page to write the table into, between its markers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 {
		return errors.New("at least one round is needed")
	}
	dir, err := os.MkdirTemp("", "bench-git-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var r result
	if r.small, err = commits(ctx, filepath.Join(dir, "small"), small, *rounds, goGitRounds); err != nil {
		return err
	}
	if r.big, err = commits(ctx, filepath.Join(dir, "big"), big, *rounds, 0); err != nil {
		return err
	}
	if r.plans, err = plans(ctx); err != nil {
		return err
	}
	r.rounds = *rounds
	table := r.table()
	fmt.Fprintln(out, table)
	if *file != "" {
		if err := page.Write(*file, "make bench-git", table); err != nil {
			return err
		}
	}
	for _, m := range r.measures() {
		fmt.Fprintln(out, m.Line())
	}
	return nil
}

// times are how long commits took, sorted.
type times struct{ ours, git, goGit []time.Duration }

// commits makes a repository of so many files, and commits 50 to clones of it.
func commits(ctx context.Context, dir string, files, rounds, slow int) (t times, err error) {
	origin := filepath.Join(dir, "origin.git")
	if err := create(ctx, origin, files); err != nil {
		return t, err
	}
	clones := map[string]string{}
	for _, name := range []string{"ours", "git", "go-git"} {
		clones[name] = filepath.Join(dir, name)
		if _, err := git(ctx, dir, nil, "clone", "-q", origin, clones[name]); err != nil {
			return t, err
		}
	}
	for i := range rounds + 1 {
		for _, c := range []struct {
			name string
			do   func(context.Context, string, map[string][]byte) (time.Duration, error)
			into *[]time.Duration
			most int
		}{{"ours", ours, &t.ours, rounds}, {"git", theirs, &t.git, rounds}, {"go-git", goGit, &t.goGit, slow}} {
			if i > c.most || c.most == 0 {
				continue
			}
			took, err := c.do(ctx, clones[c.name], contents(i))
			if err != nil {
				return t, fmt.Errorf("commit with %s to %d files: %w", c.name, files, err)
			}
			if i > 0 { // the first one warms the caches
				*c.into = append(*c.into, took)
			}
		}
	}
	for name, clone := range clones {
		if out, err := git(ctx, clone, nil, "status", "--porcelain"); err != nil || len(out) > 0 {
			return t, fmt.Errorf("the clone of %s is not clean: %w %s", name, err, out)
		}
	}
	for _, list := range [][]time.Duration{t.ours, t.git, t.goGit} {
		slices.Sort(list)
	}
	return t, nil
}

// create makes a bare repository with files of 1 KiB, a hundred in each folder.
func create(ctx context.Context, dir string, files int) error {
	var in bytes.Buffer
	in.WriteString("commit refs/heads/main\ncommitter Ada <ada@example.com> 1772597167 +0000\ndata 1\nx\n")
	for i := range files {
		data := fmt.Sprintf("%-1023d\n", i)
		fmt.Fprintf(&in, "M 100644 inline apps/%d/%d.yaml\ndata %d\n%s\n", i/100, i, len(data), data)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if _, err := git(ctx, filepath.Dir(dir), nil, "init", "-q", "--bare", "-b", "main", dir); err != nil {
		return err
	}
	_, err := git(ctx, dir, &in, "fast-import", "--quiet")
	return err
}

// contents are the changed policies of one round, by path in the repository.
func contents(round int) map[string][]byte {
	files := map[string][]byte{}
	for k := range changed {
		files[fmt.Sprintf("autopolicy/shop/workloads/deployment-%d/base/kubearmor.yaml", k)] = []byte(strings.Repeat(fmt.Sprintf("# %d of round %d\n", k, round), 100))
	}
	return files
}

func ours(ctx context.Context, clone string, files map[string][]byte) (time.Duration, error) {
	change := gitops.Change{Dir: "autopolicy/shop", Files: map[string][]byte{}, Message: "Bench\n", When: time.Now()}
	for p, data := range files {
		change.Files[strings.TrimPrefix(p, "autopolicy/shop/")] = data
	}
	began := time.Now()
	r, err := gitops.Open(ctx, gitops.Options{URL: clone, Author: gitops.Signature{Name: "Ada", Email: "ada@example.com"}, Signing: gitops.Signing{Key: gitops.NoSigning}})
	if err != nil {
		return 0, err
	}
	if change.Base, err = r.Head(); err == nil {
		_, err = r.Commit(ctx, change, nil)
	}
	took := time.Since(began)
	return took, errors.Join(err, r.Close())
}

// put writes the files; that is not measured, for what is measured beside it
// writes them itself.
func put(clone string, files map[string][]byte) ([]string, error) {
	var paths []string
	for p, data := range files {
		name := filepath.Join(clone, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	return paths, nil
}

func theirs(ctx context.Context, clone string, files map[string][]byte) (time.Duration, error) {
	paths, err := put(clone, files)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err = git(ctx, clone, nil, append([]string{"add", "--"}, paths...)...); err == nil {
		_, err = git(ctx, clone, nil, "commit", "-q", "-m", "Bench")
	}
	return time.Since(began), err
}

func goGit(_ context.Context, clone string, files map[string][]byte) (time.Duration, error) {
	paths, err := put(clone, files)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	r, err := gogit.PlainOpen(clone)
	if err != nil {
		return 0, err
	}
	w, err := r.Worktree()
	if err != nil {
		return 0, err
	}
	for _, p := range paths {
		if _, err := w.Add(p); err != nil {
			return 0, err
		}
	}
	_, err = w.Commit("Bench", &gogit.CommitOptions{Author: &object.Signature{Name: "Ada", Email: "ada@example.com", When: time.Now()}})
	return time.Since(began), err
}

func git(ctx context.Context, dir string, in io.Reader, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgSign=false", "-c", "gc.auto=0"}, args...)...)
	cmd.Dir, cmd.Stdin = dir, in
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return out, nil
}

// plans runs pkg/rollout's benchmarks, and gives the seconds of one run by name.
func plans(ctx context.Context) (map[string]float64, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^(BenchmarkPromoteRealEngines|BenchmarkProof)$", "-benchtime", "3x", "-timeout", "30m", "./pkg/rollout")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test -bench: %w: %s", err, out)
	}
	seconds := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(\d+) ns/op`).FindAllStringSubmatch(string(out), -1) {
		ns, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, err
		}
		seconds[m[1]] = ns / 1e9
	}
	return seconds, nil
}

type result struct {
	small, big times
	plans      map[string]float64
	rounds     int
}

const (
	fewPlans   = "PromoteRealEngines/200_policies,_10000_facts"
	manyPlans  = "PromoteRealEngines/2000_policies,_100000_facts"
	proof      = "Proof/overlay"
	bareKrusty = "Proof/krusty"
)

func (r result) measures() []page.Reading {
	ratio := func(name string, a, b, bound float64, unit string) page.Reading {
		m := page.Reading{Name: name, Unit: unit, Bound: bound, Measured: a > 0 && b > 0}
		if m.Measured {
			m.Value = a / b
		}
		return m
	}
	ours := median(r.small.ours)
	return []page.Reading{
		ratio("commit-50-of-10000", ours, median(r.small.git), 1.0, "of-git"),
		ratio("commit-50-of-10000-beside-go-git", ours, median(r.small.goGit), 0.05, "of-go-git"),
		ratio("commit-50-of-100000", median(r.big.ours), ours, 2, "of-10000"),
		{Name: "plan-2000-policies-100000-facts", Value: r.plans[manyPlans], Unit: "s", Bound: 2, Measured: r.plans[manyPlans] > 0},
		ratio("plan-10-times-as-much", r.plans[manyPlans], r.plans[fewPlans], 12, "times"),
		ratio("proof-2000-policies", r.plans[proof], r.plans[bareKrusty], 1.15, "of-krusty"),
	}
}

func (r result) table() string {
	var b strings.Builder
	b.WriteString(page.Table(r.measures()))
	b.WriteString("\n| commit of 50 files | 10,000 files | 100,000 files |\n|---|---|---|\n")
	for _, row := range []struct {
		name       string
		small, big []time.Duration
	}{
		{"this", r.small.ours, r.big.ours}, {"`git add` and `git commit`, without writing the files", r.small.git, r.big.git},
		{"go-git's worktree, without writing the files", r.small.goGit, r.big.goGit},
	} {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", row.name, milliseconds(row.small), milliseconds(row.big))
	}
	fmt.Fprintf(&b, "\nThe proof of 2,000 policies takes %.2f s, kustomize on the same files %.2f s.\n", r.plans[proof], r.plans[bareKrusty])
	fmt.Fprintf(&b, "\nMedian of %d rounds (go-git %d), in turns; %s/%s, %d CPUs, %s.\n", r.rounds, len(r.small.goGit), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	return b.String()
}

func milliseconds(sorted []time.Duration) string {
	if len(sorted) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f ms", median(sorted)*1000)
}

// median is in seconds; 0 without any.
func median(sorted []time.Duration) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)/2].Seconds()
}
