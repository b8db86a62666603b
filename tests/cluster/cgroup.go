package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroupFS is where cgroup hierarchies are mounted, and cgroup2Magic the
// file system type that says there is one unified hierarchy (statfs(2)).
const (
	cgroupFS     = "/sys/fs/cgroup"
	cgroup2Magic = 0x63677270
)

// cgroups finds the hierarchies of this machine. tracking is the one whose
// membership tells which processes are the cluster's: every child inherits
// it, also one that made itself a daemon, and containers get a group below.
type cgroups struct {
	roots    []string
	tracking string
	unified  bool
}

func findCgroups() (cgroups, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(cgroupFS, &st); err != nil {
		return cgroups{}, fmt.Errorf("look at %s: %w", cgroupFS, err)
	}
	if int64(st.Type) == cgroup2Magic {
		return cgroups{roots: []string{cgroupFS}, tracking: cgroupFS, unified: true}, nil
	}
	entries, err := os.ReadDir(cgroupFS)
	if err != nil {
		return cgroups{}, err
	}
	var g cgroups
	for _, e := range entries {
		dir := filepath.Join(cgroupFS, e.Name())
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil && e.IsDir() {
			g.roots = append(g.roots, dir)
		}
	}
	for _, name := range []string{"pids", "freezer", "systemd"} {
		if dir := filepath.Join(cgroupFS, name); slices.Contains(g.roots, dir) {
			g.tracking = dir
			return g, nil
		}
	}
	return g, fmt.Errorf("no cgroup hierarchy of pids, freezer or systemd below %s", cgroupFS)
}

// make makes the cluster's groups: control for the control plane, NODE for a
// node's pods (the kubelet's cgroupRoot) and NODE-system for its programs,
// because in a unified hierarchy a group with children may hold no process.
func (g cgroups) make(name string, nodes int) error {
	groups := []string{name, name + "/control"}
	for n := range nodes {
		groups = append(groups, name+"/"+nodeName(n), name+"/"+nodeName(n)+"-system")
	}
	for _, root := range g.roots {
		if g.unified {
			if err := delegate(root); err != nil {
				return err
			}
		}
		for _, group := range groups {
			dir := filepath.Join(root, group)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if g.unified && group == name {
				if err := delegate(dir); err != nil {
					return err
				}
			}
			if err := fillCPUSet(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate lets the children of dir use all controllers that dir has.
func delegate(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(have)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("delegate %s of %s: %w", controller, dir, err)
		}
	}
	return nil
}

// fillCPUSet copies the parent's processors and memory nodes into a version
// 1 cpuset group, which can hold no process while they are empty.
func fillCPUSet(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(bytes.TrimSpace(own)) > 0 {
			continue // not a cpuset group, or filled
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil || len(bytes.TrimSpace(parent)) == 0 {
			continue // the unified hierarchy inherits without being told
		}
		if err := os.WriteFile(filepath.Join(dir, name), parent, 0o644); err != nil {
			return fmt.Errorf("fill %s of %s: %w", name, dir, err)
		}
	}
	return nil
}

// join moves process pid into a group of the cluster.
func (g cgroups) join(group string, pid int) error {
	file := filepath.Join(g.tracking, group, "cgroup.procs")
	if err := os.WriteFile(file, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("move process %d into cgroup %s: %w", pid, group, err)
	}
	return nil
}

// processes lists the processes in a group and below it. A group that is not
// there has none.
func (g cgroups) processes(group string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(filepath.Join(g.tracking, group), func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		data, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil // removed meanwhile
		} else if err != nil {
			return err
		}
		for _, line := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(line)
			if err != nil {
				return fmt.Errorf("read processes of %s: %w", p, err)
			}
			if pid > 0 { // 0 is a process outside of our PID namespace
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// kill ends all processes of a group and returns when they are gone: with
// the last of them its namespaces, mounts and links.
func (g cgroups) kill(ctx context.Context, group string) error {
	killed := map[int]string{} // start time by process number
	return poll(ctx, 20*time.Millisecond, func() (bool, error) {
		pids, err := g.processes(group)
		if err != nil {
			return false, err
		}
		for _, pid := range pids {
			killed[pid] = startTime(pid)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return false, fmt.Errorf("end process %d: %w", pid, err)
			}
		}
		// A process leaves its group before it has let go of everything.
		for pid, start := range killed {
			if start != "" && startTime(pid) == start {
				return false, nil
			}
		}
		return len(pids) == 0, nil
	})
}

// startTime tells a process from a later one of the same number. It is ""
// for one that is gone, or a zombie and so holds nothing any more.
func startTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is a name in parentheses that may hold anything; the
	// state follows it, the start time is field 22 (proc(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

// remove removes a group with all groups below it from every hierarchy. The
// kernel lets go of a group a moment after its last process ended.
func (g cgroups) remove(ctx context.Context, group string) error {
	for _, root := range g.roots {
		top := filepath.Join(root, group)
		var last error
		err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
			var dirs []string
			err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, p)
				}
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			})
			last = nil
			for _, dir := range slices.Backward(dirs) {
				if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
					last = fmt.Errorf("%s: %w", dir, err)
				}
			}
			return last == nil, err
		})
		if err != nil {
			return fmt.Errorf("remove cgroup: %w", errors.Join(last, err))
		}
	}
	return nil
}

// poll calls done at once and then every interval until it reports true or
// an error, or ctx ends.
func poll(ctx context.Context, interval time.Duration, done func() (bool, error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if ok, err := done(); err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
