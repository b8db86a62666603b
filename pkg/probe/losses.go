//go:build linux

package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Losses tell what was not recorded, or not in full, since the probe was opened:
// "reason: kind" to how often. No entry means that nothing is known to be lost.
type Losses struct {
	// Node are those of which it is not known whose they are, and those of mount
	// namespaces that were forgotten before they were told.
	Node map[string]uint64
	// Namespace are the others, by the inode number of the mount namespace: the
	// latest that has it. They are not in Node.
	Namespace map[uint32]map[string]uint64
}

// losses maps the kernel's counters to words: index kind * LOSSES + loss.
type losses [int(bpf.FloorKindKINDS) * int(bpf.FloorLossLOSSES)]uint32

func lossKinds() []behavior.Kind {
	return []behavior.Kind{
		behavior.Process, behavior.File, behavior.Network, behavior.Capability, behavior.Syscall, behavior.Socket,
		"socket owner", // whose packets then belong to nobody
		behavior.DNS,
	}
}

func lossReasons() []string {
	return []string{
		"ring buffer full", "map full", "interrupted", "path too long", "path too deep", "path unreadable", "unknown number",
		"script not found", "return not seen", "descriptor closed at once", "share of map used up", "share of ring buffer used up",
		"arguments cut", "who entered unknown", "socket of unknown owner", "over the budget of packets to be read",
	}
}

func lossWord(index int) string {
	kind, reason := index/int(bpf.FloorLossLOSSES), index%int(bpf.FloorLossLOSSES)
	return lossReasons()[reason] + ": " + string(lossKinds()[kind])
}

// words gives what is more than in told.
func (l losses) words(told losses) map[string]uint64 {
	words := map[string]uint64{}
	for i, n := range l {
		if n > told[i] {
			words[lossWord(i)] += uint64(n - told[i])
		}
	}
	return words
}

// Lost tells what is known to be lost. What a namespace lost is not told any more
// once it is forgotten, but what it lost since the last call is then the node's.
func (p *Probe) Lost() (Losses, error) {
	l := Losses{Node: map[string]uint64{}, Namespace: map[uint32]map[string]uint64{}}
	for i := range len(losses{}) {
		var counts []uint64
		if err := p.collection.Maps["losses"].Lookup(uint32(i), &counts); err != nil {
			return Losses{}, fmt.Errorf("read losses: %w", err)
		}
		for _, n := range counts {
			if n > 0 {
				l.Node[lossWord(i)] += n
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	told, newest := map[uint64]losses{}, map[uint32]uint64{}
	err := each(p.collection.Maps["namespaces"], func(number *uint64, ns *bpf.FloorNamespace) {
		if lost := losses(ns.Lost); lost != (losses{}) {
			told[*number] = lost
			newest[uint32(*number)] = max(newest[uint32(*number)], *number)
		}
	})
	if err != nil {
		return Losses{}, fmt.Errorf("read losses: %w", err)
	}
	for number, lost := range told {
		if newest[uint32(number)] == number {
			l.Namespace[uint32(number)] = lost.words(losses{})
		} else {
			p.disown(number, lost)
		}
	}
	p.told = told
	for reason, n := range p.disowned {
		l.Node[reason] += n
	}
	if n := p.malformed.Load(); n > 0 {
		l.Node["malformed record"] = n
	}
	if n := p.forgotten.Load(); n > 0 {
		l.Node["actor forgotten: network"] = n
	}
	p.resolver.tell(l)
	if n := p.conversations.broken.Load(); n > 0 {
		l.Node["connection incomplete: dns"] = n
	}
	for name, program := range p.collection.Programs {
		stats, err := program.Stats()
		if errors.Is(err, ebpf.ErrNotSupported) {
			continue // before 5.12 the kernel does not count them
		}
		if err != nil {
			return Losses{}, fmt.Errorf("read statistics of %s: %w", name, err)
		}
		if stats.RecursionMisses > 0 {
			l.Node["program re-entered: "+name] = stats.RecursionMisses
		}
	}
	return l, nil
}

// disown makes the node's what a namespace lost and nobody was told of. The
// caller holds the lock.
func (p *Probe) disown(number uint64, lost losses) {
	for reason, n := range lost.words(p.told[number]) {
		p.disowned[reason] += n
	}
	delete(p.told, number)
}

// rooms are the maps whose entries are counted, by name.
func rooms() map[string]uint32 {
	return map[string]uint32{
		"processes": uint32(bpf.FloorKindKIND_PROCESS), "files": uint32(bpf.FloorKindKIND_FILE),
		"sockets": uint32(bpf.FloorKindKIND_NETWORK), "capabilities": uint32(bpf.FloorKindKIND_CAPABILITY),
		"made": uint32(bpf.FloorKindKIND_SOCKET), "questions": uint32(bpf.FloorKindKIND_DNS), "introductions": uint32(bpf.FloorKindKIND_ACTOR),
		"namespaces": uint32(bpf.FloorRoomROOM_NAMESPACES), "executed": uint32(bpf.FloorRoomROOM_EXECUTED),
		"entrants": uint32(bpf.FloorRoomROOM_ENTRANTS),
	}
}

// MapUse tells how full each map has been at most since the probe was opened,
// from counters: it reads no whole map. A race of n processors may have it short
// by n.
func (p *Probe) MapUse() (map[string]behavior.MapUse, error) {
	use := map[string]behavior.MapUse{}
	for name, room := range rooms() {
		var u bpf.FloorUse
		if err := p.collection.Maps["uses"].Lookup(room, &u); err != nil {
			return nil, fmt.Errorf("read use of map %s: %w", name, err)
		}
		use[name] = behavior.MapUse{High: u.High, Size: uint64(p.collection.Maps[name].MaxEntries())}
	}
	return use, nil
}

// remove deletes an entry and counts that it is gone. The caller holds the lock.
func (p *Probe) remove(name string, key any) error {
	err := p.collection.Maps[name].Delete(key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	room, counted := rooms()[name]
	if !counted {
		return nil
	}
	p.freed[room]++
	return p.collection.Maps["freed"].Put(room, p.freed[room])
}
