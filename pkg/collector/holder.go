//go:build linux

package collector

import (
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
)

// tree is how the processes of a container hang together when it is first met.
type tree struct {
	proc
	parents map[int]int // PID to the parent's, of all that are in it
	first   int         // the process that began first: the container's own
}

// tree reads how the processes of a container hang together.
func (p proc) tree(pids []int) tree {
	t := tree{proc: p, parents: map[int]int{}}
	var earliest uint64
	for _, pid := range pids {
		parent, err := p.parent(pid)
		if err != nil {
			continue
		}
		t.parents[pid] = parent
		began, err := p.began(strconv.Itoa(pid))
		if err == nil && (t.first == 0 || began < earliest || began == earliest && pid < t.first) {
			t.first, earliest = pid, began
		}
	}
	return t
}

// entered tells whether somebody entered the container with a program that a
// process comes from, and gives its arguments, escaped, as far as they are there. A
// process whose parent is outside of the container began it or entered it, or has
// lost its parent and been given another one of its PID namespace.
func (t tree) entered(pid int) (arguments []string, yes bool) {
	for range len(t.parents) {
		parent, ok := t.parents[pid]
		if _, inside := t.parents[parent]; !ok || !inside {
			break
		}
		pid = parent
	}
	if pid == t.first {
		return nil, false
	}
	mine, err := os.Readlink(t.path(pid, "ns/pid"))
	if err != nil {
		return nil, false
	}
	above, err := os.Readlink(t.path(t.parents[pid], "ns/pid"))
	if err != nil || mine == above {
		return nil, false
	}
	content, err := os.ReadFile(t.path(pid, "cmdline"))
	if err != nil || len(content) == 0 {
		return nil, true
	}
	content = content[:min(len(content), maxEntered)]
	for _, a := range strings.Split(strings.TrimSuffix(string(content), "\x00"), "\x00") {
		arguments = append(arguments, behavior.Escape(a))
	}
	return arguments, true
}

// origin is that of what a process did before anybody looked.
func (t tree) origin(pid int, info *containerInfo) behavior.Origin {
	if arguments, yes := t.entered(pid); yes {
		return info.origin(arguments)
	}
	return info.own()
}

// heldCapabilities reads the effective capabilities of a process.
func (p proc) heldCapabilities(pid int) (uint64, error) {
	content, err := os.ReadFile(p.path(pid, "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if text, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		}
	}
	return 0, os.ErrNotExist // a proc file system without it shows nothing
}

// capabilityNames names the bits of a set, sorted.
func capabilityNames(set uint64) []string {
	var names []string
	for ; set != 0; set &= set - 1 {
		names = append(names, probe.CapabilityName(bits.TrailingZeros64(set)))
	}
	slices.Sort(names)
	return names
}

// named gives the path of an open or mapped file without what the kernel puts after
// that of one that was removed. The file may have a name that ends so.
func (p proc) named(pid int, link, path string) string {
	bare, marked := strings.CutSuffix(path, deleted)
	if !marked {
		return path
	}
	var st unix.Stat_t
	if unix.Stat(link, &st) == nil {
		if st.Nlink == 0 {
			return bare
		}
		return path
	}
	// Links below map_files take a right that nothing else here needs.
	fd, err := openIn(p.path(pid, "root"), path)
	if err != nil {
		return bare
	}
	unix.Close(fd)
	return path
}

// mappings states the files that a process has mapped, other than its own
// executable, and which of them it may execute. The names come from links, since
// the table of mappings shows a newline and a backslash ambiguously.
func (p proc) mappings(s *snapshot, h held) {
	file, err := os.ReadFile(p.path(h.pid, "maps"))
	if err != nil {
		s.miss("mapped files", err)
		return
	}
	paths := map[string]string{} // by device and inode; empty for what is no file of the container
	stated := map[string]bool{}  // the same, and whether it may be executed
	count := 0
	for line := range strings.Lines(string(file)) {
		if count++; count > maxMappings {
			s.lost["snapshot of mapped files"]++
			return
		}
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[4] == "0" {
			continue
		}
		path, known := paths[fields[3]+fields[4]]
		if !known {
			link := filepath.Join(p.path(h.pid, "map_files"), mapName(fields[0]))
			if path, err = os.Readlink(link); err != nil {
				s.miss("a mapped file", err)
				continue
			}
			if path = behavior.Escape(p.named(h.pid, link, path)); !strings.HasPrefix(path, "/") || internal(path) || path == h.exe {
				path = ""
			}
			paths[fields[3]+fields[4]] = path
		}
		code := len(fields[1]) > 2 && fields[1][2] == 'x'
		key := fields[3] + fields[4] + strconv.FormatBool(code)
		if path == "" || stated[key] {
			continue
		}
		stated[key] = true
		s.add(h, behavior.Fact{Kind: behavior.File, Exe: h.exe, Path: path, Access: behavior.Read})
		if code {
			s.add(h, behavior.Fact{Kind: behavior.File, Exe: h.exe, Path: path, Access: behavior.Read, Operation: behavior.OpExecMap})
		}
	}
}

// mapName turns a range of the table of mappings into its link's name, which has
// no leading zeros.
func mapName(addresses string) string {
	from, to, _ := strings.Cut(addresses, "-")
	trim := func(s string) string {
		if t := strings.TrimLeft(s, "0"); t != "" {
			return t
		}
		return "0"
	}
	return trim(from) + "-" + trim(to)
}
