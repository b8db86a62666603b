//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// beforeOthers has a program run before those that others have attached, which may
// translate the addresses that it is to see: BPF_F_PREORDER, since Linux 6.17 for
// links.
const beforeOthers = 1 << 6

// attachCgroup attaches a program to the control group at root and below, before
// those of others where the kernel can do that, else after those that are there.
func attachCgroup(root string, attach ebpf.AttachType, program *ebpf.Program) (link.Link, error) {
	group, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("open control group: %w", err)
	}
	defer group.Close()
	o := link.RawLinkOptions{Target: int(group.Fd()), Program: program, Attach: attach, Flags: beforeOthers}
	if l, err := link.AttachRawLink(o); err == nil {
		return l, nil
	}
	o.Flags = 0
	return link.AttachRawLink(o)
}

// mountCgroup2 gives a directory descriptor of the cgroup v2 hierarchy's root,
// through a mount of its own that no namespace shows. It is the caller's to close.
// It looks from the cgroup namespace of process 1, so that a collector in a
// container sees the machine's root where it shares the host's PID namespace.
func mountCgroup2() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// Not unlocked: the thread, in another namespace now, ends with it.
		runtime.LockOSThread()
		file, err := mountCgroup2Thread()
		done <- result{file, err}
	}()
	r := <-done
	return r.file, r.err
}

func mountCgroup2Thread() (*os.File, error) {
	ns, err := os.Open("/proc/1/ns/cgroup")
	switch {
	case errors.Is(err, fs.ErrPermission):
		// Process 1 may do more than we: then its namespace is taken for ours.
	case err != nil:
		return nil, fmt.Errorf("open cgroup namespace of process 1: %w", err)
	default:
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWCGROUP); err != nil {
			return nil, fmt.Errorf("enter cgroup namespace of process 1: %w", err)
		}
	}
	context, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open cgroup2 file system: %w", err)
	}
	defer unix.Close(context)
	// EBUSY: mounted before, and this is the same instance.
	if err := unix.FsconfigCreate(context); err != nil && !errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("create cgroup2 file system: %w", err)
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount cgroup2 file system: %w", err)
	}
	return os.NewFile(uintptr(fd), "cgroup2"), nil
}
