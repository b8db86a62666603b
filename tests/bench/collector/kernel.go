//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// objects are what there is of BPF in the kernel, by ID.
type objects struct {
	programs map[ebpf.ProgramID]bool
	maps     map[ebpf.MapID]bool
	links    map[link.ID]bool
}

// kernelObjects lists what there is now, as bpftool does.
func kernelObjects() (objects, error) {
	o := objects{map[ebpf.ProgramID]bool{}, map[ebpf.MapID]bool{}, map[link.ID]bool{}}
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return o, fmt.Errorf("list programs: %w", err)
		}
		id, o.programs[next] = next, true
	}
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return o, fmt.Errorf("list maps: %w", err)
		}
		id, o.maps[next] = next, true
	}
	iterator := new(link.Iterator)
	defer iterator.Close()
	for iterator.Next() {
		o.links[iterator.ID] = true
	}
	if err := iterator.Err(); err != nil {
		return o, fmt.Errorf("list links: %w", err)
	}
	return o, nil
}

// objectsOf lists what a process holds. Other processes' objects, which come and
// go meanwhile, are not among them.
func objectsOf(pid int) (objects, error) {
	o := objects{map[ebpf.ProgramID]bool{}, map[ebpf.MapID]bool{}, map[link.ID]bool{}}
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return o, fmt.Errorf("list descriptors: %w", err)
	}
	for _, name := range names {
		content, err := os.ReadFile(dir + "/" + name.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return o, fmt.Errorf("read descriptor: %w", err)
		}
		for line := range strings.Lines(string(content)) {
			var id uint32
			if n, _ := fmt.Sscanf(line, "link_id: %d", &id); n == 1 {
				o.links[link.ID(id)] = true
			} else if n, _ := fmt.Sscanf(line, "prog_id: %d", &id); n == 1 {
				o.programs[ebpf.ProgramID(id)] = true
			} else if n, _ := fmt.Sscanf(line, "map_id: %d", &id); n == 1 {
				o.maps[ebpf.MapID(id)] = true
			}
		}
	}
	return o, nil
}

func (o objects) minus(other objects) objects {
	return objects{without(o.programs, other.programs), without(o.maps, other.maps), without(o.links, other.links)}
}

func without[K comparable](m, other map[K]bool) map[K]bool {
	left := maps.Clone(m)
	maps.DeleteFunc(left, func(k K, _ bool) bool { return other[k] })
	return left
}

func (o objects) count() int { return len(o.programs) + len(o.maps) + len(o.links) }

// hook is where a program is attached.
type hook struct {
	program ebpf.ProgramID
	name    string // of the program
	tracing string // the tracepoint's name; empty for a cgroup's hook
	kind    ebpf.ProgramType
	cgroup  ebpf.AttachType
}

// hooks tells where the programs of the links are attached.
func (o objects) hooks() ([]hook, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("load kernel types: %w", err)
	}
	var list []hook
	for _, id := range slices.Sorted(maps.Keys(o.links)) {
		h, err := hookOf(id, kernel)
		if err != nil {
			return nil, fmt.Errorf("read link %d: %w", id, err)
		}
		list = append(list, h)
	}
	return list, nil
}

func hookOf(id link.ID, kernel *btf.Spec) (hook, error) {
	l, err := link.NewFromID(id)
	if err != nil {
		return hook{}, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return hook{}, err
	}
	h := hook{program: info.Program}
	program, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return hook{}, err
	}
	defer program.Close()
	about, err := program.Info()
	if err != nil {
		return hook{}, err
	}
	h.name, h.kind = about.Name, about.Type
	switch {
	case info.RawTracepoint() != nil:
		h.tracing = info.RawTracepoint().Name
	case info.Tracing() != nil:
		t, err := kernel.TypeByID(info.Tracing().TargetBtfId)
		if err != nil {
			return hook{}, err
		}
		h.tracing = strings.TrimPrefix(t.TypeName(), "btf_trace_")
	case info.Cgroup() != nil:
		h.cgroup = ebpf.AttachType(info.Cgroup().AttachType)
	default:
		return hook{}, fmt.Errorf("program %s: links of type %d are not known", h.name, info.Type)
	}
	return h, nil
}

// attachEmpty attaches a program that does nothing to each hook. The caller calls
// what it returns to remove them.
func attachEmpty(hooks []hook, cgroups string) (_ func(), err error) {
	var closers []interface{ Close() error }
	closeAll := func() {
		for _, c := range closers {
			_ = c.Close() // closing a descriptor that we own
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	for _, h := range hooks {
		spec := &ebpf.ProgramSpec{Name: "empty", License: "GPL", Type: h.kind, AttachType: ebpf.AttachTraceRawTp, AttachTo: h.tracing,
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}}
		if h.tracing == "" {
			spec.AttachType = h.cgroup
			spec.Instructions[0] = asm.Mov.Imm(asm.R0, 1) // go on
		}
		program, err := ebpf.NewProgram(spec)
		if err != nil {
			return nil, fmt.Errorf("load empty program for %s: %w", h.name, err)
		}
		closers = append(closers, program)
		var l link.Link
		if h.tracing == "" {
			l, err = link.AttachCgroup(link.CgroupOptions{Path: cgroups, Attach: h.cgroup, Program: program})
		} else {
			l, err = link.AttachTracing(link.TracingOptions{Program: program})
		}
		if err != nil {
			return nil, fmt.Errorf("attach empty program for %s: %w", h.name, err)
		}
		closers = append(closers, l)
	}
	return closeAll, nil
}

// spent is what one program did while statistics were on.
type spent struct {
	runs uint64
	time time.Duration
}

// spentBy tells what each program has done so far, by its name.
func (o objects) spentBy() (map[string]spent, error) {
	all := map[string]spent{}
	for id := range o.programs {
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			return nil, fmt.Errorf("open program %d: %w", id, err)
		}
		info, err := program.Info()
		var stats *ebpf.ProgramStats
		if err == nil {
			stats, err = program.Stats()
		}
		if err = errors.Join(err, program.Close()); err != nil {
			return nil, fmt.Errorf("read statistics of program %d: %w", id, err)
		}
		all[info.Name] = spent{all[info.Name].runs + stats.RunCount, all[info.Name].time + stats.Runtime}
	}
	return all, nil
}

// mapRoom is the memory that one map holds in the kernel.
type mapRoom struct {
	name      string
	bytes     uint64
	max, used uint32
	grows     bool // memory is taken for entries as they come
}

// rooms lists the maps with their memory, the largest first. How many entries are
// in use is counted in the hash maps.
func (o objects) rooms() ([]mapRoom, error) {
	var list []mapRoom
	for id := range o.maps {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, fmt.Errorf("open map %d: %w", id, err)
		}
		r, err := roomOf(m)
		if err = errors.Join(err, m.Close()); err != nil {
			return nil, fmt.Errorf("read map %d: %w", id, err)
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b mapRoom) int { return int(int64(b.bytes) - int64(a.bytes)) })
	return list, nil
}

func roomOf(m *ebpf.Map) (mapRoom, error) {
	info, err := m.Info()
	if err != nil {
		return mapRoom{}, err
	}
	r := mapRoom{name: info.Name, max: info.MaxEntries, grows: info.Flags&unix.BPF_F_NO_PREALLOC != 0}
	if r.bytes, err = memlock(m.FD()); err != nil {
		return r, err
	}
	if info.Type != ebpf.Hash && info.Type != ebpf.LRUHash {
		return r, nil
	}
	var key []byte
	for next, err := m.NextKeyBytes(nil); ; next, err = m.NextKeyBytes(key) {
		if err != nil {
			return r, err
		}
		if next == nil || r.used >= r.max {
			return r, nil
		}
		key = next
		r.used++
	}
}

// memlock is what the kernel says that a map takes.
func memlock(fd int) (uint64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		if n, ok := strings.CutPrefix(scanner.Text(), "memlock:"); ok {
			return strconv.ParseUint(strings.TrimSpace(n), 10, 64)
		}
	}
	return 0, errors.New("no memlock in fdinfo")
}

// pins counts the objects that are pinned in the BPF file system.
func pins() (int, error) {
	n := 0
	err := fs.WalkDir(os.DirFS("/sys/fs/bpf"), ".", func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return n, err
}

// cgroupPrograms counts what is attached to the root of the cgroups.
func cgroupPrograms(cgroups string) (int, error) {
	n := 0
	dir, err := os.Open(cgroups)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	for _, attach := range []ebpf.AttachType{
		ebpf.AttachCGroupInetIngress, ebpf.AttachCGroupInetEgress, ebpf.AttachCGroupInetSockCreate, ebpf.AttachCgroupInetSockRelease,
		ebpf.AttachCGroupSockOps, ebpf.AttachCGroupInet4Bind, ebpf.AttachCGroupInet6Bind, ebpf.AttachCGroupInet4PostBind, ebpf.AttachCGroupInet6PostBind,
		ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect, ebpf.AttachCGroupUDP4Sendmsg, ebpf.AttachCGroupUDP6Sendmsg,
		ebpf.AttachCGroupUDP4Recvmsg, ebpf.AttachCGroupUDP6Recvmsg, ebpf.AttachCGroupGetsockopt, ebpf.AttachCGroupSetsockopt,
	} {
		result, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: attach})
		if err != nil {
			return 0, fmt.Errorf("query control group for %s: %w", attach, err)
		}
		n += len(result.Programs)
	}
	return n, nil
}
