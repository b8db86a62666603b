//go:build linux

package probe

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
)

// SyscallSet holds system calls of one architecture, by name, in order of the
// numbers.
type SyscallSet struct {
	Generation uint32 // of the mount namespace, as in Record

	Arch    string
	Runtime bool // made by the container's runtime, for the container or to enter it
	Names   []string
}

// Fill says how full a map is.
type Fill struct{ Used, Size int }

// Stats tell how much of the probe's room is in use.
type Stats struct {
	Maps map[string]Fill // processes, files, sockets, capabilities, namespaces
	Ring Fill            // bytes that wait to be read
}

// Counts calls visit for each fact that is counted: the Record's ID, how often it
// was seen, first and last. A fact that is added meanwhile may be left out.
func (p *Probe) Counts(visit func(id, count uint64, first, last time.Time)) error {
	return p.eachSeen(func(_ *ebpf.Map, _ any, _ uint64, s *bpf.FloorSeen) {
		visit(s.Id, s.Count, wallTime(s.First), wallTime(s.Last))
	})
}

// Syscalls gives what was called so far, by the inode number of the mount
// namespace: of every one that had it and was not forgotten.
func (p *Probe) Syscalls() (map[uint32][]SyscallSet, error) {
	all := map[uint32][]SyscallSet{}
	err := each(p.collection.Maps["namespaces"], func(number *uint64, ns *bpf.FloorNamespace) {
		if ns.Ignored != 0 {
			return
		}
		inode, generation := uint32(*number), uint32(*number>>32)
		all[inode] = append(all[inode], syscallSets(&ns.Called, generation, false)...)
		all[inode] = append(all[inode], syscallSets(&ns.CalledByRuntime, generation, true)...)
	})
	if err != nil {
		return nil, fmt.Errorf("read system calls: %w", err)
	}
	return all, nil
}

func syscallSets(called *[1024]uint8, generation uint32, byRuntime bool) []SyscallSet {
	var sets []SyscallSet
	for i, arch := range Arches(runtime.GOARCH) {
		set := SyscallSet{Generation: generation, Arch: arch, Runtime: byRuntime}
		half := len(called) / 2
		for number, c := range called[i*half : (i+1)*half] {
			if c != 0 {
				set.Names = append(set.Names, SyscallName(arch, number))
			}
		}
		if set.Names != nil {
			sets = append(sets, set)
		}
	}
	return sets
}

// Lost tells what was not recorded, or not in full, since the probe was opened:
// "reason: kind" to how often. An empty map means that nothing is known to be.
func (p *Probe) Lost() (map[string]uint64, error) {
	kinds := []string{"process", "file", "network", "capability", "syscall"}
	reasons := []string{"ring buffer full", "map full", "interrupted", "path too long", "path too deep", "path unreadable", "unknown number", "script not found", "return not seen", "descriptor closed at once"}
	lost := map[string]uint64{}
	for k, kind := range kinds {
		for r, reason := range reasons {
			var counts []uint64
			if err := p.collection.Maps["losses"].Lookup(uint32(k*int(bpf.FloorLossLOSSES)+r), &counts); err != nil {
				return nil, fmt.Errorf("read losses: %w", err)
			}
			for _, n := range counts {
				if n > 0 {
					lost[reason+": "+kind] += n
				}
			}
		}
	}
	if n := p.malformed.Load(); n > 0 {
		lost["malformed record"] = n
	}
	for name, program := range p.collection.Programs {
		stats, err := program.Stats()
		if errors.Is(err, ebpf.ErrNotSupported) {
			continue // before 5.12 the kernel does not count them
		}
		if err != nil {
			return nil, fmt.Errorf("read statistics of %s: %w", name, err)
		}
		if stats.RecursionMisses > 0 {
			lost["program re-entered: "+name] = stats.RecursionMisses
		}
	}
	return lost, nil
}

// Ignore stops observing the mount namespace that has this inode number now. One
// that was not seen yet is ignored from its first sight on, and then so is every
// later one of the number.
func (p *Probe) Ignore(mntns uint32) error {
	numbers, err := p.numbers(mntns)
	if err != nil {
		return fmt.Errorf("ignore mount namespace %d: %w", mntns, err)
	}
	if len(numbers) == 0 {
		err = p.collection.Maps["ignored"].Put(mntns, uint8(1))
	} else {
		err = p.collection.Maps["namespaces"].Put(slices.Max(numbers), &bpf.FloorNamespace{Ignored: 1})
	}
	if err != nil {
		return fmt.Errorf("ignore mount namespace %d: %w", mntns, err)
	}
	return nil
}

// Forget removes everything that is kept for a mount namespace: for one that is
// gone, so that its room can be used, or to have what happens there recorded
// anew. Where the kernel has given its inode number to another meanwhile, what is
// kept for that one stays.
func (p *Probe) Forget(mntns uint32) error {
	type entry struct {
		m   *ebpf.Map
		key any
	}
	var entries []entry
	numbers, err := p.numbers(mntns)
	if err != nil {
		return fmt.Errorf("forget mount namespace %d: %w", mntns, err)
	}
	var keep uint64
	if len(numbers) > 1 {
		keep = slices.Max(numbers)
	}
	for _, number := range numbers {
		if number != keep {
			entries = append(entries, entry{p.collection.Maps["namespaces"], number})
		}
	}
	gone := func(m *ebpf.Map, key any, number uint64) {
		if uint32(number) == mntns && number != keep {
			entries = append(entries, entry{m, key})
		}
	}
	executed := p.collection.Maps["executed"]
	err = errors.Join(
		p.eachSeen(func(m *ebpf.Map, key any, number uint64, _ *bpf.FloorSeen) { gone(m, key, number) }),
		each(executed, func(k *bpf.FloorExecutedKey, _ *uint8) { gone(executed, k, k.Mntns) }),
	)
	// Else the next namespace of this number would be ignored unseen.
	entries = append(entries, entry{p.collection.Maps["ignored"], mntns})
	if err != nil {
		return fmt.Errorf("forget mount namespace %d: %w", mntns, err)
	}
	for _, e := range entries {
		if err := e.m.Delete(e.key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget mount namespace %d: %w", mntns, err)
		}
	}
	return nil
}

// numbers gives the kernel side's numbers of the namespaces that were seen with an
// inode number.
func (p *Probe) numbers(mntns uint32) ([]uint64, error) {
	var numbers []uint64
	err := each(p.collection.Maps["namespaces"], func(number *uint64, _ *bpf.FloorNamespace) {
		if uint32(*number) == mntns {
			numbers = append(numbers, *number)
		}
	})
	return numbers, err
}

// Stats tell how much of the probe's room is in use. It reads whole maps: not to
// be called many times a second.
func (p *Probe) Stats() (Stats, error) {
	s := Stats{Maps: map[string]Fill{}, Ring: Fill{p.reader.AvailableBytes(), p.reader.BufferSize()}}
	for _, name := range []string{"processes", "files", "sockets", "capabilities", "namespaces"} {
		s.Maps[name] = Fill{Size: int(p.collection.Maps[name].MaxEntries())}
	}
	add := func(m *ebpf.Map) {
		for name, fill := range s.Maps {
			if p.collection.Maps[name] == m {
				fill.Used++
				s.Maps[name] = fill
			}
		}
	}
	err := errors.Join(
		p.eachSeen(func(m *ebpf.Map, _ any, _ uint64, _ *bpf.FloorSeen) { add(m) }),
		each(p.collection.Maps["namespaces"], func(*uint64, *bpf.FloorNamespace) { add(p.collection.Maps["namespaces"]) }),
	)
	return s, err
}

// eachSeen visits every entry of the maps that count. What the pointers point to
// is the visitor's to keep.
func (p *Probe) eachSeen(visit func(m *ebpf.Map, key any, number uint64, s *bpf.FloorSeen)) error {
	processes, files := p.collection.Maps["processes"], p.collection.Maps["files"]
	sockets, capabilities := p.collection.Maps["sockets"], p.collection.Maps["capabilities"]
	return errors.Join(
		each(processes, func(k *bpf.FloorProcessKey, s *bpf.FloorSeen) { visit(processes, k, k.Mntns, s) }),
		each(files, func(k *bpf.FloorFileKey, s *bpf.FloorSeen) { visit(files, k, k.Mntns, s) }),
		each(sockets, func(k *bpf.FloorSocketKey, s *bpf.FloorSeen) { visit(sockets, k, k.Mntns, s) }),
		each(capabilities, func(k *bpf.FloorCapabilityKey, s *bpf.FloorSeen) { visit(capabilities, k, k.Mntns, s) }),
	)
}

// each visits every entry of a hash map, bucket by bucket, so that none is given
// twice and none that stays is left out.
func each[K, V any](m *ebpf.Map, visit func(*K, *V)) error {
	const batch = 1024 // far more than one bucket can hold by chance
	var cursor ebpf.MapBatchCursor
	for {
		keys, values := make([]K, batch), make([]V, batch)
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			visit(&keys[i], &values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read map: %w", err)
		}
	}
}
