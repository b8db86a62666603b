//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// beforeOthers has a program run before those that others have attached, which may
// translate the addresses that it is to see: BPF_F_PREORDER, since Linux 6.17 for
// links.
const beforeOthers = 1 << 6

// cgroupAttach says where the programs that are no tracepoints attach.
func cgroupAttach() map[string]ebpf.AttachType {
	return map[string]ebpf.AttachType{
		"note_made":     ebpf.AttachCGroupInetSockCreate,
		"note_egress":   ebpf.AttachCGroupInetEgress,
		"note_ingress":  ebpf.AttachCGroupInetIngress,
		"note_connect4": ebpf.AttachCGroupInet4Connect,
		"note_connect6": ebpf.AttachCGroupInet6Connect,
		"note_send4":    ebpf.AttachCGroupUDP4Sendmsg,
		"note_send6":    ebpf.AttachCGroupUDP6Sendmsg,
	}
}

// asking are the programs that only see what address is asked for.
func asking() []string {
	return []string{"note_connect4", "note_connect6", "note_send4", "note_send6"}
}

// beforeTranslation is the key in Features.Missing of what programs see that are
// attached, but come too late; noTranslation says what is not seen then.
const (
	beforeTranslation = "address before translation"
	noTranslation     = "addresses before Service translation are not observed"
)

// attachCgroup attaches a program to the control group at root and below, before
// those of others where the kernel can do that, else after those that are there. It
// gives the reason why these may hide from it what it is to see; empty if they do not.
func attachCgroup(root string, attach ebpf.AttachType, program *ebpf.Program) (l link.Link, hidden string, err error) {
	group, err := os.Open(root)
	if err != nil {
		return nil, "", fmt.Errorf("open control group: %w", err)
	}
	defer group.Close()
	o := link.RawLinkOptions{Target: int(group.Fd()), Program: program, Attach: attach, Flags: beforeOthers}
	if l, err := link.AttachRawLink(o); err == nil {
		return l, "", nil
	}
	if isAsking(attach) {
		hidden = hiddenBy(root, attach)
	}
	o.Flags = 0
	l, err = link.AttachRawLink(o)
	return l, hidden, err
}

// isAsking tells whether programs of a type see, and may change, what address is
// asked for.
func isAsking(attach ebpf.AttachType) bool {
	return slices.ContainsFunc(asking(), func(name string) bool { return cgroupAttach()[name] == attach })
}

// hiddenBy says why programs of others may have changed an address before one of ours
// at root sees it, where the kernel runs them in their order; empty if there are none.
func hiddenBy(root string, attach ebpf.AttachType) string {
	switch others, err := hasPrograms(root, attach); {
	case err != nil:
		return "cannot tell whether the network translates them first: " + err.Error()
	case others:
		return "the network's own programs translate them, and the kernel runs those first (ours can be first in kernels since 6.17)"
	}
	return ""
}

// hasPrograms tells whether a program of a type is attached to the control group at
// root or to one below, whose programs run before those of root.
func hasPrograms(root string, attach ebpf.AttachType) (found bool, err error) {
	err = fs.WalkDir(os.DirFS(root), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			return nil
		}
		if err == nil {
			found, err = hasProgramsAt(filepath.Join(root, path), attach)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
			return nil // removed meanwhile, and its programs with it
		case found:
			return fs.SkipAll
		}
		return err
	})
	return found, err
}

// hasProgramsAt tells it of one control group alone.
func hasProgramsAt(path string, attach ebpf.AttachType) (bool, error) {
	group, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer group.Close()
	query, err := link.QueryPrograms(link.QueryOptions{Target: int(group.Fd()), Attach: attach})
	if err != nil {
		return false, fmt.Errorf("control group %s: %w", path, err)
	}
	return len(query.Programs) > 0, nil
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
