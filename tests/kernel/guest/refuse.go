//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/collector"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/verdict"
)

const lockdown = "/sys/kernel/security/lockdown"

// refuse takes away what the probe needs and sees how a collector ends.
func refuse(ctx context.Context, what string) verdict.Run {
	run := newRun("")
	want := map[string]error{"btf": probe.ErrNoBTF, "capability": probe.ErrPermission, "user": probe.ErrPermission, "lockdown": probe.ErrLockdown}[what]
	if want == nil {
		run.Error = fmt.Sprintf("unknown refusal %q", what)
		return run
	}
	run.Refusal = &verdict.Refusal{Why: what, Want: want.Error()}
	if what == "lockdown" {
		// Until the next boot: only where the machine is ours.
		if err := os.WriteFile(lockdown, []byte("confidentiality"), 0); err != nil {
			run.Error = fmt.Sprintf("lock the kernel down: %v", err)
			return run
		}
	}
	output, err := exec.CommandContext(ctx, "/proc/self/exe", "without", what).CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		run.Error = err.Error()
		return run
	}
	run.Refusal.Output = string(output)
	if ended != nil {
		run.Refusal.Exit = ended.ExitCode()
	}
	return run
}

// without gives something up and becomes a program that opens the probe.
func without(what string) error {
	runtime.LockOSThread()
	switch what {
	case "btf":
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare mounts: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("none", "/sys/kernel/btf", "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("hide type information: %w", err)
		}
	case "capability":
		for _, number := range []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON} {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, number, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", number, err)
			}
		}
	}
	self, err := os.Open("/proc/self/exe") // its path may not be another user's to read
	if err != nil {
		return err
	}
	attributes := &syscall.SysProcAttr{}
	if what == "user" {
		attributes.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	command := exec.Command(fmt.Sprintf("/proc/self/fd/%d", 3), "open")
	command.ExtraFiles = []*os.File{self}
	command.SysProcAttr, command.Stdout, command.Stderr = attributes, os.Stdout, os.Stderr
	var ended *exec.ExitError
	if err := command.Run(); errors.As(err, &ended) {
		os.Exit(ended.ExitCode())
	} else if err != nil {
		return err
	}
	return nil
}

// open is what cmd/autopolicy-collector does with a kernel.
func open() error {
	kernel, err := collector.Attach("")
	if err == nil {
		return errors.Join(errors.New("the probe opened"), kernel.Close())
	}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		err = fmt.Errorf("%w\nhint: %s", err, hinted.Hint())
	}
	return err
}

// refusals are what is tried on a machine; a lock-down lasts until it boots again,
// and only a kernel in emulation may be locked.
func refusals(emulated bool) []string {
	list := []string{"btf", "capability", "user"}
	if emulated {
		list = append(list, "lockdown")
	}
	return slices.Clip(list)
}
