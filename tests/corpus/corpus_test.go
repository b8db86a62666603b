//go:build linux && amd64

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestAnAttackIsStoppedWhereOneOfItsFactsIs(t *testing.T) {
	mount := behavior.Fact{Kind: behavior.Syscall, Name: "mount", Arch: "amd64"}
	other := behavior.Fact{Kind: behavior.Syscall, Name: "read", Arch: "amd64"}
	a := attack{name: "mount", is: calls("mount")}
	facts := func(list ...behavior.Fact) (all behavior.Facts) {
		for _, f := range list {
			all.Add(f, behavior.Evidence{})
		}
		return all
	}
	for _, tt := range []struct {
		name    string
		attempt attempt
		facts   behavior.Facts
		known   behavior.Facts
		stopped hits
		aside   map[behavior.Fact]string
		want    string
	}{
		{name: "an engine denies its fact", facts: facts(mount, other), stopped: hits{mount: "seccomp"}, want: fateDenied},
		{name: "an engine denies somebody else's fact", facts: facts(mount, other), stopped: hits{other: "seccomp"}, want: fateMissed},
		{name: "learning sets its fact aside", facts: facts(mount), aside: map[behavior.Fact]string{mount: "mount"}, want: fateAside},
		{name: "the kernel refused it and no policy has a say", attempt: attempt{Error: "EPERM"}, facts: facts(mount), want: fateRefused},
		{name: "nothing of it was recorded though it worked", facts: facts(other), want: fateMissed},
		{name: "it could not be tried", attempt: attempt{Error: "gone", Unknown: true}, want: fateUntried},
		{name: "the service does it itself", facts: facts(mount), known: facts(mount), want: fateMissed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := judgeAttack(a, tt.attempt, tt.facts, tt.known, tt.stopped, tt.aside)
			if got.how != tt.want {
				t.Errorf("%s by %q, want %s", got.how, got.by, tt.want)
			}
		})
	}
}

func TestTheSmallestProgramRuns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tiny")
	if err := os.WriteFile(file, tiny(), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// TestAChildActsAsItsParentWhichGoesOn takes over a process that waits, as in an
// attack.
func TestAChildActsAsItsParentWhichGoesOn(t *testing.T) {
	victim := exec.CommandContext(t.Context(), "cat")
	in, err := victim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	victim.Stdout = &said
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(t.TempDir(), "made")
	var exe string
	err = within(victim.Process.Pid, nil, func(r *remote) error {
		if exe, err = os.Readlink("/proc/" + strconv.Itoa(r.pid) + "/exe"); err != nil {
			return err
		}
		return r.create(made, unix.O_CREAT|unix.O_WRONLY, 0o644, []byte("by the child"))
	})
	if errors.Is(err, unix.EPERM) {
		t.Skip("needs the right to trace its own children")
	}
	if err != nil {
		t.Fatal(err)
	}
	refused := within(victim.Process.Pid, nil, func(r *remote) error { return r.open("/nowhere/at/all", unix.O_RDONLY) })
	if !errors.Is(refused, unix.ENOENT) {
		t.Errorf("a call that fails gives %v", refused)
	}
	if got, err := os.ReadFile(made); err != nil || string(got) != "by the child" {
		t.Errorf("made %q, %v", got, err)
	}
	if filepath.Base(exe) != "cat" && !strings.Contains(exe, "coreutils") {
		t.Errorf("the child is %s", exe)
	}
	if _, err := in.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := victim.Wait(); err != nil || said.String() != "still here" {
		t.Errorf("the parent ended with %v and said %q", err, said.String())
	}
}

func TestEveryProgramIsTrainedAndEvaluated(t *testing.T) {
	names := map[string]bool{}
	for _, p := range programs() {
		if names[p.name] || p.name == "" {
			t.Errorf("program %q is there twice", p.name)
		}
		names[p.name] = true
		if len(p.train) == 0 || len(p.evaluate) <= len(p.train) || p.ready == "" || len(p.args) == 0 {
			t.Errorf("%s: its evaluation must be longer than its training, and it must be known when it is ready", p.name)
		}
	}
	if len(names) < 14 {
		t.Errorf("%d programs", len(names))
	}
	if _, err := choose("nginx,nothing"); err == nil {
		t.Error("a program that is not there was found")
	}
}
