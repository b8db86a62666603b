package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// commits counts what is in the repository.
func commits(t *testing.T, repository string) int {
	t.Helper()
	return len(strings.Fields(git(t, "-C", repository, "rev-list", "--all")))
}

// wants fails for each text that is not in what the plugin said.
func (r result) wants(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.out+r.errOut, text) {
			t.Errorf("the plugin does not say %q", text)
		}
	}
}

func (r result) wantsCode(t *testing.T, code int) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
}

func (r *running) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

func TestAnInterruptedRunLeavesNothing(t *testing.T) {
	w := needCluster(t)
	for _, c := range []struct {
		name, when string
		signals    []syscall.Signal
	}{
		{"while it deploys", "deploying the collector", []syscall.Signal{syscall.SIGINT}},
		{"while it waits for the collector", "waiting for the collector", []syscall.Signal{syscall.SIGINT}},
		{"while it observes, twice", "observing", []syscall.Signal{syscall.SIGINT, syscall.SIGINT}},
		{"while it pulls", "pulling", []syscall.Signal{syscall.SIGINT}},
		{"while the terminal is closed", "observing", []syscall.Signal{syscall.SIGHUP}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, repository := w.workspace(t)
			before := w.trace(t)
			p := w.start(t, dir, "discover", "-n", "shop", "--duration", "6s")
			p.until(c.when)
			for i, s := range c.signals {
				if i > 0 {
					p.until("removing")
				}
				p.signal(s)
			}
			r := p.wait()
			r.wantsCode(t, 130)
			r.wants(t, "interrupted", "collector removed")
			w.nothingLeft(t, before)
			if n := commits(t, repository); n > 0 {
				t.Errorf("%d commits", n)
			}
			if strings.Contains(r.errOut, "error:") {
				t.Error("an interrupt is shown as an error")
			}
		})
	}
}

// Somebody pipes the progress into a program that ends early.
func TestARunWhoseReaderWentAwayLeavesNothing(t *testing.T) {
	w := needCluster(t)
	dir, repository := w.workspace(t)
	before := w.trace(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.command(filepath.Join(w.root, "bin/kubectl-autopolicy"), "discover", "-n", "shop", "--duration", "30s")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, writer, writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	if _, err := io.ReadFull(reader, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	reader.Close()
	// The error is the exit code, and nobody is left to be told more.
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("%v, want exit code 130", cmd.ProcessState)
	}
	w.nothingLeft(t, before)
	if commits(t, repository) > 0 {
		t.Error("a commit was made")
	}
}

func TestACollectorThatNobodyRemovesGoesByItself(t *testing.T) {
	w := needCluster(t)
	dir, _ := w.workspace(t)
	before := w.trace(t)
	p := w.start(t, dir, "discover", "-n", "shop", "--duration", "8s", "--collector-wait", "15s", "--collector-grace", "1s")
	p.until("observing")
	p.signal(syscall.SIGKILL)
	p.wait().wantsCode(t, -1)
	left := w.trace(t)
	for _, want := range []string{"namespace/autopolicy-collector", "clusterrole.rbac.authorization.k8s.io/autopolicy-collector", "daemonset.apps/collector", "prog "} {
		if !strings.Contains(left, want) {
			t.Errorf("right after the plugin was killed there is no %s: the test shows nothing", want)
		}
	}
	eventually(t, 90*time.Second, "the collector to remove itself", func() bool {
		return !strings.Contains(w.trace(t), "autopolicy-collector")
	})
	w.nothingLeft(t, before)
}
