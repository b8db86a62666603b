//go:build linux

package collector

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// proc is a proc file system in the host's PID namespace.
type proc struct {
	root string
}

// mountNS is what one scan saw of a mount namespace.
type mountNS struct {
	place place
	pids  []int // ascending
}

// gone tells whether an error only says that the process ended meanwhile.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

func (p proc) path(pid int, name string) string {
	return filepath.Join(p.root, strconv.Itoa(pid), name)
}

// mountNSOf reads the mount namespace of a process.
func (p proc) mountNSOf(pid int) (uint32, error) {
	return p.namedMountNS(strconv.Itoa(pid))
}

// placeOf reads the control groups of a process.
func (p proc) placeOf(pid int) (place, error) {
	content, err := os.ReadFile(p.path(pid, "cgroup"))
	if err != nil {
		return place{}, err
	}
	return parseCgroupFile(string(content)), nil
}

// scan lists the mount namespaces of all processes but those of skip, and counts
// the containers' processes that it may not look at; each namespace with its processes and the place of the first of them: it made the namespace, or has
// been in it for longest. Later ones may be visitors, such as the runtime that
// starts another container, or a person with nsenter.
func (p proc) scan(skip func(uint32) bool) (found map[uint32]*mountNS, refused int, err error) {
	dir, err := os.Open(p.root)
	if err != nil {
		return nil, 0, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, 0, fmt.Errorf("list processes: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	found = map[uint32]*mountNS{}
	for _, pid := range pids {
		ns, err := p.mountNSOf(pid)
		if errors.Is(err, fs.ErrPermission) {
			// It may do more than we: of the host that is nothing to us.
			if at, err := p.placeOf(pid); err == nil && at.container != "" {
				refused++
			}
		}
		if err != nil || skip(ns) {
			continue // ended, or on its way out: it holds nothing any more
		}
		m := found[ns]
		if m == nil {
			m = &mountNS{}
			found[ns] = m
		}
		m.pids = append(m.pids, pid)
	}
	for _, m := range found {
		for _, pid := range m.pids {
			if place, err := p.placeOf(pid); err == nil {
				m.place = place
				break
			}
		}
	}
	return found, refused, nil
}

// namedMountNS reads the mount namespace of a process by its name in the proc
// file system, such as self.
func (p proc) namedMountNS(name string) (uint32, error) {
	text, err := os.Readlink(filepath.Join(p.root, name, "ns/mnt"))
	if err != nil {
		return 0, err
	}
	number, ok := strings.CutPrefix(text, "mnt:[")
	n, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32)
	if !ok || err != nil {
		return 0, fmt.Errorf("unexpected %q", text)
	}
	return uint32(n), nil
}
