//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// reference is a path as a task named it to the kernel: a string, and the
// directory that the kernel began at. All of it is raw bytes, and hostile.
type reference struct {
	mountNS   uint64 // as in the kernel's keys: its inode number, and a generation above
	pids      []int  // processes whose root directory may be the task's, best first
	base      string // in the mount namespace
	baseFlags uint8  // bpf.FloorPathFlag
	file      string // for NAME_DESCRIPTOR: what the descriptor is of, escaped
	name      string
	flags     bpf.FloorNameFlag
}

func (r *reference) has(f bpf.FloorNameFlag) bool { return r.flags&f != 0 }

// unresolved states what was named, escaped, in a form that looks like no path.
func (r *reference) unresolved() string {
	return behavior.Escape("unresolved:" + r.joined())
}

// joined is the path from the mount namespace's root, with whatever links it has.
func (r *reference) joined() string {
	if r.has(bpf.FloorNameFlagNAME_DESCRIPTOR) {
		return r.name
	}
	return strings.TrimSuffix(r.base, "/") + "/" + strings.TrimLeft(r.name, "/")
}

// last splits off the name at the end where the kernel did not follow it: then
// only the directory that holds it is to be resolved.
func (r *reference) last() (directory, name string, ok bool) {
	directory, name = splitLast(strings.TrimRight(r.joined(), "/"))
	return directory, name, !r.has(bpf.FloorNameFlagNAME_FOLLOWED) && name != "" && name != "." && name != ".."
}

func splitLast(path string) (directory, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:i+1], path[i+1:]
}

// errUnresolved says that a path leads nowhere any more, or that nobody is left
// who could tell where.
var errUnresolved = errors.New("path is not resolved")

// slowResolve is how long a lookup may take that is not answered from memory. A
// container may have mounted a file system that never answers.
const slowResolve = 100 * time.Millisecond

// resolveCached is RESOLVE_CACHED of linux/openat2.h, since Linux 5.12: fail
// instead of asking a file system.
const resolveCached = 0x20

// resolver finds what references lead to. One goroutine may use it at a time.
type resolver struct {
	slow chan struct{} // holds one token while nobody looks up slowly

	mu         sync.Mutex
	unresolved map[uint64]untold // by mount namespace, as in the kernel's keys
}

// untold is how much was lost, and how much of that somebody was told.
type untold struct{ lost, told uint64 }

const lossUnresolved = "path not resolved: file"

func newResolver() *resolver {
	r := &resolver{slow: make(chan struct{}, 1), unresolved: map[uint64]untold{}}
	r.slow <- struct{}{}
	return r
}

// resolve gives the record's fact the path that its task's name led to, or counts
// that nobody can tell. Records that have a path are left alone.
func (r *resolver) resolve(record *Record) {
	given := record.given
	if given == nil {
		return
	}
	record.given = nil
	path, err := r.path(given)
	if err == nil {
		record.Fact.Path = path
		return
	}
	record.Unresolved = true
	if record.Fact.Runtime {
		return // it prepares a container and is gone; nobody learns from it
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.unresolved[given.mountNS]
	u.lost++
	r.unresolved[given.mountNS] = u
}

// tell adds to l what was not resolved: by mount namespace, and what is of one
// that another has followed under its number to the node's.
func (r *resolver) tell(l Losses) {
	r.mu.Lock()
	defer r.mu.Unlock()
	newest := map[uint32]uint64{}
	for number := range r.unresolved {
		newest[uint32(number)] = max(newest[uint32(number)], number)
	}
	for number, u := range r.unresolved {
		u.told = u.lost
		r.unresolved[number] = u
		if newest[uint32(number)] != number {
			l.Node[lossUnresolved] += u.lost
			continue
		}
		if l.Namespace[uint32(number)] == nil {
			l.Namespace[uint32(number)] = map[string]uint64{}
		}
		l.Namespace[uint32(number)][lossUnresolved] = u.lost
	}
}

// forget drops a mount namespace, and gives what was lost of it and nobody told.
func (r *resolver) forget(number uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.unresolved[number]
	delete(r.unresolved, number)
	return u.lost - u.told
}

// path gives the escaped path.
func (r *resolver) path(given *reference) (string, error) {
	const elsewhere = uint8(bpf.FloorPathFlagPATH_DETACHED | bpf.FloorPathFlagPATH_OUTSIDE)
	switch {
	case given.has(bpf.FloorNameFlagNAME_DESCRIPTOR):
		return r.descriptor(given)
	case given.baseFlags&uint8(bpf.FloorPathFlagPATH_INTERNAL) != 0:
		return "", errUnresolved
	case given.isDirect():
		// The name is in the directory that the kernel began at, wherever that is.
		return qualified(strings.TrimRight(given.joined(), "/"), given.baseFlags), nil
	case given.baseFlags&(truncatedPath|elsewhere) != 0:
		return "", errUnresolved
	}
	for _, pid := range given.pids {
		resolved, err := r.asSeenBy(pid, given)
		if err == nil {
			return behavior.Escape(resolved), nil
		}
	}
	return "", errUnresolved
}

// isDirect tells whether the name is one of the directory itself, so that there
// is nothing to be resolved.
func (r *reference) isDirect() bool {
	name := strings.TrimRight(r.name, "/")
	if r.has(bpf.FloorNameFlagNAME_ABSOLUTE) {
		name = strings.TrimLeft(name, "/")
	}
	return !r.has(bpf.FloorNameFlagNAME_FOLLOWED) && name != "" && name != "." && name != ".." && !strings.Contains(name, "/")
}

// descriptor is for /proc/self/fd/N: what the descriptor is of, if that directory
// is one of the kernel's.
func (r *resolver) descriptor(given *reference) (string, error) {
	for _, pid := range given.pids {
		root, err := openRoot(pid, given.mountNS)
		if err != nil {
			continue
		}
		proc, err := r.open(root, "/proc")
		root.Close()
		if err != nil {
			continue
		}
		var fs unix.Statfs_t
		err = unix.Fstatfs(int(proc.Fd()), &fs)
		proc.Close()
		if err == nil && fs.Type == unix.PROC_SUPER_MAGIC {
			return given.file, nil
		}
	}
	return "", errUnresolved
}

// asSeenBy resolves from the root directory of a process that is in the same
// mount namespace.
func (r *resolver) asSeenBy(pid int, given *reference) (string, error) {
	root, err := openRoot(pid, given.mountNS)
	if err != nil {
		return "", err
	}
	defer root.Close()
	top, err := whereIs(root)
	if err != nil {
		return "", err
	}
	directory, name, held := given.last()
	wanted := given.joined()
	if held {
		wanted = directory
	}
	if top != "/" { // the process has changed its root
		below, ok := strings.CutPrefix(wanted, top)
		if !ok || below != "" && below[0] != '/' {
			return "", errUnresolved
		}
		wanted = below
	}
	file, err := r.open(root, "/"+wanted)
	if err != nil {
		return "", err
	}
	defer file.Close()
	resolved, err := whereIs(file)
	if err != nil {
		return "", err
	}
	if held {
		resolved = strings.TrimSuffix(resolved, "/") + "/" + name
	}
	return resolved, nil
}

// openRoot opens the root directory of a process, if it is in the mount namespace.
func openRoot(pid int, mountNS uint64) (*os.File, error) {
	if pid == 0 {
		return nil, errUnresolved
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	root := os.NewFile(uintptr(fd), "root")
	info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err == nil && uint32(info.Sys().(*syscall.Stat_t).Ino) != uint32(mountNS) {
		err = errUnresolved
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// open opens a path below root without reading, following the container's links
// as the container does and none out of root. What is not in the kernel's memory
// is looked up aside, and given up when it takes long.
func (r *resolver) open(root *os.File, path string) (*os.File, error) {
	how := unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolveCached,
	}
	fd, err := unix.Openat2(int(root.Fd()), path, &how)
	if err == nil {
		return os.NewFile(uintptr(fd), "resolved"), nil
	}
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINVAL) { // EINVAL: before 5.12
		return nil, err
	}
	how.Resolve &^= resolveCached
	select {
	case <-r.slow:
	default:
		return nil, errUnresolved // the last one still waits
	}
	own, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		r.slow <- struct{}{}
		return nil, err
	}
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	expired := make(chan struct{})
	go func() {
		fd, err := unix.Openat2(own, path, &how)
		unix.Close(own)
		r.slow <- struct{}{}
		select {
		case done <- result{fd, err}:
		case <-expired:
			if err == nil {
				unix.Close(fd)
			}
		}
	}()
	timer := time.NewTimer(slowResolve)
	defer timer.Stop()
	select {
	case got := <-done:
		if got.err != nil {
			return nil, got.err
		}
		return os.NewFile(uintptr(got.fd), "resolved"), nil
	case <-timer.C:
		close(expired)
		return nil, errUnresolved
	}
}

// whereIs gives the path of an open file in its mount namespace.
func whereIs(file *os.File) (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return "", err
	}
	if st.Nlink == 0 || !strings.HasPrefix(path, "/") {
		return "", fs.ErrNotExist // the kernel marks it in a way that a name can be mistaken for
	}
	return path, nil
}
