// Command bench measures what the plugin costs its user: its size and how long
// it takes to start, side by side with stock kubectl. It must not compare runs
// of different times: the two programs run in turns.
//
// Its last lines are for a program to read, with tabs between the fields:
//
//	measure NAME VALUE UNIT BOUND ok|short|unmeasured
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/tests/bench/page"
)

// What the plugin is held to.
const (
	sizeBound       = 70.0 // MB of 1,000,000 bytes, stripped
	compressedBound = 25.0 // MB, gzip -9
	startBound      = 0.33 // of stock kubectl's start
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	plugin := flags.String("plugin", "", "the plugin's binary, stripped")
	kubectl := flags.String("kubectl", "", "stock kubectl, stripped; none: start is not measured")
	runs := flags.Int("runs", 40, "runs of each program")
	file := flags.String("write", "", "page to write the table into, between its markers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *plugin == "" || *runs < 1 {
		return errors.New("-plugin and at least one run are needed")
	}
	r, err := measure(ctx, *plugin, *kubectl, *runs)
	if err != nil {
		return err
	}
	table := r.table()
	fmt.Fprintln(out, table)
	if *file != "" {
		if err := page.Write(*file, "make bench", table); err != nil {
			return err
		}
	}
	for _, m := range r.measures() {
		fmt.Fprintln(out, m.Line())
	}
	return nil
}

// result is what was measured. Sizes are in MB of 1,000,000 bytes.
type result struct {
	size, compressed  float64
	kubectlSize       float64
	plugin, kubectl   []time.Duration // of each run, sorted; empty when not measured
	runs              int
	goVersion, system string
}

func measure(ctx context.Context, plugin, kubectl string, runs int) (*result, error) {
	r := &result{runs: runs, goVersion: runtime.Version(), system: fmt.Sprintf("%s/%s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())}
	var err error
	if r.size, r.compressed, err = sizes(plugin); err != nil {
		return nil, err
	}
	if kubectl == "" {
		return r, nil
	}
	info, err := os.Stat(kubectl)
	if err != nil {
		return nil, fmt.Errorf("measure kubectl: %w", err)
	}
	r.kubectlSize = float64(info.Size()) / 1e6
	home, err := os.MkdirTemp("", "autopolicy-bench-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	err = r.starts(ctx, plugin, kubectl, home)
	return r, errors.Join(err, os.RemoveAll(home))
}

func sizes(file string) (size, compressed float64, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, fmt.Errorf("measure size: %w", err)
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return 0, 0, err
	}
	if _, err := w.Write(data); err != nil {
		return 0, 0, err
	}
	if err := w.Close(); err != nil {
		return 0, 0, err
	}
	return float64(len(data)) / 1e6, float64(packed.Len()) / 1e6, nil
}

// starts runs the two in turns, in a home without configuration. The first
// turn, which reads the binaries from disk, does not count.
func (r *result) starts(ctx context.Context, plugin, kubectl, home string) error {
	for i := range r.runs + 1 {
		p, err := start(ctx, home, plugin, "version")
		if err != nil {
			return err
		}
		k, err := start(ctx, home, kubectl, "version", "--client")
		if err != nil {
			return err
		}
		if i > 0 {
			r.plugin, r.kubectl = append(r.plugin, p), append(r.kubectl, k)
		}
	}
	slices.Sort(r.plugin)
	slices.Sort(r.kubectl)
	return nil
}

func start(ctx context.Context, home, program string, args ...string) (time.Duration, error) {
	program, err := filepath.Abs(program)
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "PATH=/usr/bin:/bin"}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("run %s %s: %w\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return took, nil
}

// quantile gives the value below which the share q of the sorted runs lies.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
