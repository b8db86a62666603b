//go:build linux

package probe

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
)

// SyscallSet holds system calls of one architecture, by name, in order of the
// numbers.
type SyscallSet struct {
	Generation uint32 // of the mount namespace, as in Record

	Arch    string
	Runtime bool // made by the container's runtime, for the container or to enter it
	Entered bool // made by sessions: programs with which somebody entered, and what they started
	Names   []string
}

// Fill says how full a map is.
type Fill struct{ Used, Size int }

// Stats tell how much of the probe's room is in use.
type Stats struct {
	Maps map[string]Fill // processes, files, sockets, capabilities, namespaces
	Ring Fill            // bytes that wait to be read
	// Dropped is what was read of packets and is no fact: answers that match no
	// question of their socket, and what is no message of DNS. Nothing is lost
	// with it.
	Dropped map[string]uint64
}

// Counts calls visit for each fact that is counted: the Record's ID, how often it
// was seen, first and last. A fact that is added meanwhile may be left out.
func (p *Probe) Counts(visit func(id, count uint64, first, last time.Time)) error {
	booted := wallTime(0) // once: the clocks move while it reads
	return p.eachSeen(func(_ string, _ any, _ uint64, s *bpf.FloorSeen) {
		visit(s.Id, s.Count, booted.Add(time.Duration(s.First)), booted.Add(time.Duration(s.Last)))
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
		all[inode] = slices.Concat(all[inode], syscallSets(&ns.Called, SyscallSet{Generation: generation}),
			syscallSets(&ns.CalledByRuntime, SyscallSet{Generation: generation, Runtime: true}),
			syscallSets(&ns.CalledByEntrants, SyscallSet{Generation: generation, Entered: true}))
	})
	if err != nil {
		return nil, fmt.Errorf("read system calls: %w", err)
	}
	return all, nil
}

func syscallSets(called *[1024]uint8, by SyscallSet) []SyscallSet {
	var sets []SyscallSet
	for i, arch := range Arches(runtime.GOARCH) {
		set := by
		set.Arch = arch
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

// Heed ends what Ignore began for an inode number: what the next namespace of that
// number does is recorded, and what one that has it already does from now on.
func (p *Probe) Heed(mntns uint32) error {
	ignored := []uint64{}
	err := each(p.collection.Maps["namespaces"], func(number *uint64, ns *bpf.FloorNamespace) {
		if uint32(*number) == mntns && ns.Ignored != 0 {
			ignored = append(ignored, *number)
		}
	})
	if err == nil {
		err = p.remove("ignored", mntns)
	}
	for _, number := range ignored {
		err = errors.Join(err, p.remove("namespaces", number))
	}
	if err != nil {
		return fmt.Errorf("heed mount namespace %d: %w", mntns, err)
	}
	return nil
}

// Forget removes everything that is kept for a mount namespace, told by inode number
// and generation as in a Record: for one that is gone, so that its room can be used,
// or to have what happens there recorded anew. What is kept for others that had or
// have its inode number stays.
func (p *Probe) Forget(mntns, generation uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.forget(uint64(generation)<<32 | uint64(mntns)); err != nil {
		return fmt.Errorf("forget mount namespace %d of generation %d: %w", mntns, generation, err)
	}
	return nil
}

func (p *Probe) forget(number uint64) error {
	type entry struct {
		name string
		key  any
	}
	var entries []entry
	gone := func(name string, key any, of uint64) {
		if of == number {
			entries = append(entries, entry{name, key})
		}
	}
	err := errors.Join(
		p.eachSeen(func(name string, key any, number uint64, _ *bpf.FloorSeen) { gone(name, key, number) }),
		each(p.collection.Maps["executed"], func(k *bpf.FloorExecutedKey, _ *uint8) { gone("executed", k, k.Mntns) }),
	)
	if err != nil {
		return err
	}
	entered := false
	err = each(p.collection.Maps["entrants"], func(_ *bpf.FloorEntrantKey, e *bpf.FloorEntrant) { entered = entered || e.Mntns == number })
	if err != nil {
		return err
	}
	var ns bpf.FloorNamespace
	switch err := p.collection.Maps["namespaces"].Lookup(number, &ns); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
	case err != nil:
		return err
	default:
		if err := p.vacate(number, ns, entered); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := p.remove(e.name, e.key); err != nil {
			return err
		}
	}
	return nil
}

// vacate removes what is kept of a namespace itself.
func (p *Probe) vacate(number uint64, ns bpf.FloorNamespace, entered bool) error {
	p.disown(number, ns.Lost)
	if n := p.resolver.forget(number); n > 0 {
		p.disowned[lossUnresolved] += n
	}
	if entered {
		// Who is in there still is looked up as long as the entry is there; one
		// more, in case that another enters right now.
		return p.collection.Maps["namespaces"].Put(number, &bpf.FloorNamespace{Entrants: ns.Entrants + 1, Crowded: ns.Crowded})
	}
	return p.remove("namespaces", number)
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
	for _, name := range []string{"processes", "files", "sockets", "capabilities", "made", "introductions", "questions", "namespaces"} {
		s.Maps[name] = Fill{Size: int(p.collection.Maps[name].MaxEntries())}
	}
	var err error
	if s.Dropped, err = p.dropped(); err != nil {
		return s, err
	}
	add := func(name string) {
		fill := s.Maps[name]
		fill.Used++
		s.Maps[name] = fill
	}
	err = errors.Join(
		p.eachSeen(func(name string, _ any, _ uint64, _ *bpf.FloorSeen) { add(name) }),
		each(p.collection.Maps["namespaces"], func(*uint64, *bpf.FloorNamespace) { add("namespaces") }),
	)
	return s, err
}

func (p *Probe) dropped() (map[string]uint64, error) {
	reasons := map[bpf.FloorDrop]string{bpf.FloorDropDROP_UNASKED: "answer that nobody asked for", bpf.FloorDropDROP_MALFORMED: "no DNS message"}
	all := map[string]uint64{}
	for drop, reason := range reasons {
		var counts []uint64
		if err := p.collection.Maps["dropped"].Lookup(uint32(drop), &counts); err != nil {
			return nil, fmt.Errorf("read what was dropped: %w", err)
		}
		for _, n := range counts {
			all[reason] += n
		}
	}
	all[reasons[bpf.FloorDropDROP_UNASKED]] += p.conversations.unasked.Load()
	all[reasons[bpf.FloorDropDROP_MALFORMED]] += p.conversations.malformed.Load()
	maps.DeleteFunc(all, func(_ string, n uint64) bool { return n == 0 })
	return all, nil
}

// eachSeen visits every entry of the maps that count. The key is the visitor's to
// keep, what s points to is not.
func (p *Probe) eachSeen(visit func(name string, key any, number uint64, s *bpf.FloorSeen)) error {
	m := p.collection.Maps
	return errors.Join(
		each(m["processes"], func(k *bpf.FloorProcessKey, s *bpf.FloorSeen) { visit("processes", k, k.Mntns, s) }),
		each(m["files"], func(k *bpf.FloorFileKey, s *bpf.FloorSeen) { visit("files", k, k.Mntns, s) }),
		each(m["sockets"], func(k *bpf.FloorSocketKey, s *bpf.FloorSeen) { visit("sockets", k, k.Mntns, s) }),
		each(m["capabilities"], func(k *bpf.FloorCapabilityKey, s *bpf.FloorSeen) { visit("capabilities", k, k.Mntns, s) }),
		each(m["made"], func(k *bpf.FloorMadeKey, s *bpf.FloorSeen) { visit("made", k, k.Mntns, s) }),
		each(m["questions"], func(k *bpf.FloorQuestionKey, s *bpf.FloorSeen) { visit("questions", k, k.Mntns, s) }),
		each(m["introductions"], func(k *bpf.FloorIntroductionKey, s *bpf.FloorSeen) { visit("introductions", k, k.Mntns, s) }),
	)
}

// each visits every entry of a hash map, bucket by bucket, so that none is given
// twice and none that stays is left out. The key is the visitor's to keep, the
// value is not.
func each[K, V any](m *ebpf.Map, visit func(*K, *V)) error {
	const most, least, bytes = 1024, 64, 128 << 10 // far more than one bucket can hold by chance
	var value V
	batch := min(most, max(least, bytes/int(unsafe.Sizeof(value))))
	values := make([]V, batch)
	var cursor ebpf.MapBatchCursor
	for {
		keys := make([]K, batch)
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
