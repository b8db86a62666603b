//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

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
