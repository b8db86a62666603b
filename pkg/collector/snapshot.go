//go:build linux

package collector

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Bounds of one snapshot. A process that holds more is counted as lost.
const (
	maxSnapshotPIDs  = 4096
	maxOpenFiles     = 65536 // of one process
	maxMappings      = 65536
	maxSocketEntries = 262144 // of one network namespace
)

// snapshot is what a container's processes held when it was first met.
type snapshot struct {
	facts map[behavior.Fact]bool
	// parents are the executables of the parents of those whose facts they are.
	parents      map[behavior.Fact]map[string]bool
	capabilities uint64 // that its own processes held
	lost         map[string]uint64
}

// add states a fact of a process.
func (s *snapshot) add(h held, f behavior.Fact) {
	f.Origin = h.origin
	s.facts[f] = true
	if f.Kind == behavior.Process {
		return // the parent is a part of it
	}
	if s.parents[f] == nil {
		s.parents[f] = map[string]bool{}
	}
	s.parents[f][h.parent] = true
}

// miss counts what could not be read, unless the process only ended meanwhile.
func (s *snapshot) miss(what string, err error) {
	if err != nil && !gone(err) {
		s.lost["snapshot of "+what]++
	}
}

// held is one process of a container.
type held struct {
	pid    int
	exe    string // escaped
	parent string // its parent's executable, as in behavior.Fact
	origin behavior.Origin
}

// snapshot reads what the processes of one container hold: what they run, which
// files they have open or mapped, which sockets they listen on or are connected
// by. What a container's own names say is escaped, and never followed outside of
// its root. What is read of a process counts if still says afterwards that it is
// one of the container's: its number may have been given to another one.
func (p proc) snapshot(info containerInfo, pids []int, still func(pid int) bool) snapshot {
	s := newSnapshot()
	if len(pids) > maxSnapshotPIDs {
		s.lost["snapshot of processes"] += uint64(len(pids) - maxSnapshotPIDs)
		pids = pids[:maxSnapshotPIDs]
	}
	exes := map[int]string{}
	for _, pid := range pids {
		exe, ok := p.exe(pid)
		switch {
		case ok:
			exes[pid] = exe
		case p.wasHere(pid) && still(pid):
			// The runtime's are on their way in, and seen when they act.
			s.lost["snapshot of a process whose program is no file of its container"]++
		}
	}
	tree := p.tree(pids)
	sockets := map[uint64]map[socket]bool{} // by network namespace
	for _, pid := range slices.Sorted(maps.Keys(exes)) {
		one := newSnapshot()
		parent, err := p.parent(pid)
		one.miss("a process's parent", err)
		h := held{pid, exes[pid], exes[parent], tree.origin(pid, &info)}
		one.add(h, behavior.Fact{Kind: behavior.Process, Path: h.exe, Parent: h.parent})
		if h.origin != behavior.OriginExec {
			one.capabilities, err = p.heldCapabilities(pid)
			one.miss("a process's capabilities", err)
		}
		inodes := p.openFiles(&one, h)
		p.mappings(&one, h)
		if len(inodes) > 0 {
			p.sockets(&one, h, inodes, sockets)
		}
		if still(pid) {
			s.join(one)
		}
	}
	return s
}

func newSnapshot() snapshot {
	return snapshot{facts: map[behavior.Fact]bool{}, parents: map[behavior.Fact]map[string]bool{}, lost: map[string]uint64{}}
}

// join takes over what another one holds.
func (s *snapshot) join(other snapshot) {
	maps.Copy(s.facts, other.facts)
	for f, parents := range other.parents {
		if s.parents[f] == nil {
			s.parents[f] = map[string]bool{}
		}
		maps.Copy(s.parents[f], parents)
	}
	s.capabilities |= other.capabilities
	for reason, n := range other.lost {
		s.lost[reason] += n
	}
}

// wasHere tells whether a process is older than this one, as far as the table of
// processes tells: then nobody has seen what it did before.
func (p proc) wasHere(pid int) bool {
	began, err := p.began(strconv.Itoa(pid))
	if err != nil {
		return false // it is gone
	}
	own, err := p.began("self")
	return err != nil || began <= own
}

// began gives when a process began, in the kernel's ticks since boot.
func (p proc) began(name string) (uint64, error) {
	content, err := os.ReadFile(filepath.Join(p.root, name, "stat"))
	if err != nil {
		return 0, err
	}
	// From the state on, which is the third; the time is the 22nd.
	fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("read start of process %s: short line", name)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// exe reads the escaped path of a process's executable in its container. It
// gives none for a process whose executable is not a file of the container: the
// container runtime on its way in, or a program without a file.
func (p proc) exe(pid int) (string, bool) {
	link := p.path(pid, "exe")
	path, err := os.Readlink(link)
	if err != nil || !strings.HasPrefix(path, "/") {
		return "", false
	}
	var running, named unix.Stat_t
	if unix.Stat(link, &running) != nil {
		return "", false
	}
	if running.Nlink == 0 {
		// Removed while it runs, so nothing to compare with.
		return behavior.Escape(strings.TrimSuffix(path, deleted)), !internal(path)
	}
	fd, err := openIn(p.path(pid, "root"), path)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	if unix.Fstat(fd, &named) != nil || named.Ino != running.Ino || named.Dev != running.Dev {
		return "", false
	}
	return behavior.Escape(path), true
}

// deleted is what the kernel puts after the path of a file that was removed.
const deleted = " (deleted)"

// internal tells whether a path is one that the kernel makes up for what is in no
// file system of the container.
func internal(path string) bool {
	for _, prefix := range []string{"/memfd:", "/SYSV", "/[aio]", "/anon_hugepage", "/dmabuf:"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return !strings.HasPrefix(path, "/")
}

// openIn opens a path inside a root directory without following anything out of
// it and without side effects on devices and FIFOs. The caller closes the file.
func openIn(root, path string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return unix.Openat2(dir, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// parent reads the PID of a process's parent.
func (p proc) parent(pid int) (int, error) {
	content, err := os.ReadFile(p.path(pid, "stat"))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything, also parentheses.
	fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("read parent of process %d: short line", pid)
	}
	return strconv.Atoi(fields[1])
}

// openFiles states the files that a process has open, and gives the inodes of its
// sockets.
func (p proc) openFiles(s *snapshot, h held) map[uint64]bool {
	inodes := map[uint64]bool{}
	dir := p.path(h.pid, "fd")
	names, err := readNames(dir, maxOpenFiles)
	s.miss("open files", err)
	for _, name := range names {
		path, err := os.Readlink(filepath.Join(dir, name))
		if err != nil {
			s.miss("an open file", err)
			continue
		}
		if inode, ok := strings.CutPrefix(path, "socket:["); ok {
			if n, err := strconv.ParseUint(strings.TrimSuffix(inode, "]"), 10, 64); err == nil {
				inodes[n] = true
			}
			continue
		}
		if internal(path) {
			continue
		}
		path = p.named(h.pid, filepath.Join(dir, name), path)
		access, err := p.access(h.pid, name)
		if err != nil || access == 0 {
			s.miss("an open file", err)
			continue
		}
		s.add(h, behavior.Fact{Kind: behavior.File, Exe: h.exe, Path: behavior.Escape(path), Access: access})
	}
	return inodes
}

// access reads what a descriptor was opened for; 0 for one that can neither be
// read nor written.
func (p proc) access(pid int, fd string) (behavior.Access, error) {
	content, err := os.ReadFile(filepath.Join(p.path(pid, "fdinfo"), fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		text, ok := strings.CutPrefix(line, "flags:")
		if !ok {
			continue
		}
		flags, err := strconv.ParseUint(strings.TrimSpace(text), 8, 64)
		if err != nil {
			return 0, err
		}
		switch {
		case flags&unix.O_PATH != 0:
			return 0, nil
		case flags&syscall.O_ACCMODE == syscall.O_WRONLY:
			return behavior.Write, nil
		case flags&syscall.O_ACCMODE == syscall.O_RDWR:
			return behavior.Read | behavior.Write, nil
		}
		return behavior.Read, nil
	}
	return 0, fmt.Errorf("read access of descriptor %s of process %d: no flags", fd, pid)
}

// readNames lists a directory up to a limit.
func readNames(dir string, limit int) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if len(names) > limit {
		return names[:limit], fmt.Errorf("list %s: more than %d entries", dir, limit)
	}
	return names, err
}

// takeSnapshots reads what the containers held that ran before they were met.
func (c *Collector) takeSnapshots(now time.Time) error {
	c.mu.Lock()
	due := c.snapshots
	c.snapshots = nil
	pids := map[*container][]int{}
	spaces := map[*container]*namespace{}
	numbers := map[uint32]*container{}
	for _, n := range c.spaces {
		if n.container != nil {
			pids[n.container] = append(pids[n.container], n.pids...)
			spaces[n.container] = n
			numbers[n.number] = n.container
		}
	}
	// Of one whose start was seen, by a collector before this one too, all is known.
	due = slices.DeleteFunc(due, func(k *container) bool { return k.start && k.from.After(c.hole.Last) })
	c.mu.Unlock()
	for _, k := range due {
		list := slices.Sorted(slices.Values(pids[k]))
		s := c.proc.snapshot(k.info, list, func(pid int) bool {
			ns, err := c.proc.mountNSOf(pid)
			return err == nil && numbers[ns] == k
		})
		c.mu.Lock()
		for reason, n := range s.lost {
			k.lose(reason, n, now, now)
		}
		k.held = slices.Compact(slices.Sorted(slices.Values(append(capabilityNames(s.capabilities), k.held...))))
		for f := range s.facts {
			c.store.add(k, sighting{fact: f, at: now, snapshot: true})
			for _, parent := range sortedKeys(s.parents[f]) {
				c.store.add(k, sighting{fact: f, at: now, snapshot: true, parent: parent, hasParent: true})
			}
			if n := spaces[k]; n != nil {
				c.ask(n, list, program{fact: f, at: now, snapshot: true})
			}
		}
		c.mu.Unlock()
	}
	return nil
}
