//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

// script is a bpftrace program that keeps in a map what ours keeps.
type script struct {
	name, text string
}

const (
	// The number of the mount namespace, as our keys have it.
	mountNS = `((struct task_struct *)curtask)->nsproxy->mnt_ns->ns.inum`
	// bpftrace's own way to tell containers apart, which costs it less.
	cgroupID = `cgroup`
)

// eventScript keeps which program opened which file, connected to or was
// connected by whom, and started what.
const eventScript = `
tracepoint:syscalls:sys_enter_open, tracepoint:syscalls:sys_enter_openat { @name[tid] = args->filename; }
tracepoint:syscalls:sys_exit_open, tracepoint:syscalls:sys_exit_openat {
	if (args->ret >= 0) { @files[` + mountNS + `, comm, str(@name[tid])] = count(); } delete(@name[tid]); }
tracepoint:sock:inet_sock_set_state { if (args->newstate == 1) { @sockets[` + mountNS + `, comm,
	args->sport, args->dport, args->daddr[0], args->daddr[1], args->daddr[2], args->daddr[3]] = count(); } }
tracepoint:sched:sched_process_exec { @programs[` + mountNS + `, comm, str(args->filename)] = count(); }`

// scripts are what ours is compared with. Storing a 1 costs less than counting
// where the entry is new, more where it is there: both are measured.
func scripts() []script {
	calls := `tracepoint:raw_syscalls:sys_enter { @calls[` + mountNS + `, args->id] = 1; }`
	return []script{
		{bpftraceSyscalls, calls},
		{bpftraceCount, `tracepoint:raw_syscalls:sys_enter { @calls[` + cgroupID + `, args->id] = count(); }`},
		{bpftraceAll, calls + eventScript},
		{bpftraceEvents, eventScript},
	}
}

// trace runs a bpftrace program until what it returns is called.
func (l *lab) trace(ctx context.Context, s script) (func() error, error) {
	command := exec.CommandContext(ctx, l.self, "role:bpftrace", l.root, filepath.Join(l.work, "mnt"), s.text)
	command.Stdout, command.Stderr = nil, l.log
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start bpftrace: %w", err)
	}
	probes := strings.Count(s.text, "tracepoint:")
	err := node.Within(ctx, 30*time.Second, "bpftrace is not attached", func() (bool, error) {
		if err := command.Process.Signal(syscall.Signal(0)); err != nil {
			return false, errors.New("bpftrace ended by itself")
		}
		// Each program is attached to a perf event.
		events, err := perfEvents(command.Process.Pid)
		return events >= probes, err
	})
	stop := func() error {
		err := command.Process.Signal(syscall.SIGKILL) // or it would print its maps
		command.Wait()                                 // it was killed: that it says so is no news
		return err
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// perfEvents counts the tracepoints that a process holds.
func perfEvents(pid int) (int, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return 0, nil // it has just started, or ended
	}
	n := 0
	for _, name := range names {
		if target, err := os.Readlink(filepath.Join(dir, name.Name())); err == nil && strings.Contains(target, "perf_event") {
			n++
		}
	}
	return n - runtime.NumCPU(), nil // one each for what it prints
}

// becomeBpftrace mounts tracefs where nobody else sees it and becomes bpftrace.
func becomeBpftrace(args []string) error {
	root, mnt, text := args[0], args[1], args[2]
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := debianRoot(mnt, root); err != nil {
		return err
	}
	if err := unix.Mount("tracefs", filepath.Join(mnt, "sys/kernel/tracing"), "tracefs", 0, ""); err != nil {
		return fmt.Errorf("mount tracefs: %w", err)
	}
	if err := errors.Join(unix.Chroot(mnt), unix.Chdir("/"), ignoreLimits()); err != nil {
		return err
	}
	return unix.Exec("/usr/bin/bpftrace", []string{"bpftrace", "-e", text}, []string{"PATH=/usr/bin:/bin", "BPFTRACE_STRLEN=64", "BPFTRACE_MAP_KEYS_MAX=65536"})
}

// ignoreLimits has the kernel answer yes to whoever raises a limit on locked
// memory: bpftrace gives up without CAP_SYS_RESOURCE, though since 5.11 maps do
// not count as locked memory.
func ignoreLimits() error {
	const nr, limit = 0, 24 // offsets in struct seccomp_data: nr, args[1]
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_PRLIMIT64, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: limit},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.RLIMIT_MEMLOCK, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("ignore limits: %w", err)
	}
	return seccomp(filter)
}

func seccomp(filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return fmt.Errorf("set filter: %w", err)
	}
	return nil
}
