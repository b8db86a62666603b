//go:build linux

package collector

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
)

// Bounds of the names that are remembered for one container, and of those of one
// address; of an address that many names lead to the last asked count.
const (
	maxNamed      = 4096
	maxNamesOfOne = 8
	maxNameless   = 8192 // connections of a node that wait for a name
)

// How long a connection waits for the name that led there, and how often that is
// looked at. Records of several processors are out of order by microseconds.
const (
	namelessGrace = 300 * time.Millisecond
	namelessEvery = 250 * time.Millisecond
)

// namesForgotten is the loss of a container that asked for more names than are
// remembered.
const namesForgotten = "names that led to addresses"

// binding is a name that a container asked for, and when it was told the address.
// How long an answer may be believed does not count: programs keep connections and
// answers for longer, and it is what was asked for that is meant.
type binding struct {
	name string // as in behavior.Peer
	at   time.Time
}

// names are the names that led a container to addresses.
type names map[netip.Addr][]binding

// learn takes in that a name led to an address. It tells whether another address
// had to be forgotten for it.
func (n names) learn(address netip.Addr, name string, at time.Time) (forgot bool) {
	address = address.Unmap()
	list, known := n[address]
	if !known && len(n) >= maxNamed {
		delete(n, n.oldest())
		forgot = true
	}
	list = slices.DeleteFunc(list, func(b binding) bool { return b.name == name && !b.at.After(at) })
	i, _ := slices.BinarySearchFunc(list, at, func(b binding, at time.Time) int { return b.at.Compare(at) })
	if list = slices.Insert(list, i, binding{name, at}); len(list) > maxNamesOfOne {
		list = slices.Delete(list, 0, 1)
	}
	n[address] = list
	return forgot
}

// oldest is the address that was led to the longest time ago.
func (n names) oldest() netip.Addr {
	var oldest netip.Addr
	var at time.Time
	for address, list := range n {
		if last := list[len(list)-1].at; !oldest.IsValid() || last.Before(at) {
			oldest, at = address, last
		}
	}
	return oldest
}

// of gives the name that was the last to lead to an address at a moment; empty for
// none.
func (n names) of(address netip.Addr, at time.Time) string {
	list := n[address.Unmap()]
	for i := len(list) - 1; i >= 0; i-- {
		if !list[i].at.After(at) {
			return list[i].name
		}
	}
	return ""
}

// nameOf gives the name that led to the peer of a network fact: to the address
// that the container asked for, where that was translated.
func (n names) nameOf(f behavior.Fact, at time.Time) string {
	if f.Via.IsValid() {
		if name := n.of(f.Via.Addr(), at); name != "" {
			return name
		}
	}
	return n.of(f.Peer.Address, at)
}

// hear takes in what a container was told.
func (k *container) hear(question string, answers []probe.Answer, at time.Time) {
	for _, a := range answers {
		if !a.Address.IsValid() {
			continue
		}
		name := question
		if strings.HasPrefix(question, "_") {
			name = a.Name // a service's address is that of its target, which it names
		}
		if k.names == nil {
			k.names = names{}
		}
		if k.names.learn(a.Address, name, at) {
			k.lose(namesForgotten, 1, at, at)
		}
	}
}

// nameless is a record of a connection that no name is known for: the answer may
// come from another processor a moment later.
type nameless struct {
	container *container
	record    Record
}

// mayHaveName tells whether a name may have led to what a fact is about.
func mayHaveName(f behavior.Fact) bool {
	return f.Kind == behavior.Network && f.Direction == behavior.Egress && !f.Runtime &&
		f.Peer.Address.IsValid() && !f.Peer.Address.IsLoopback() && !f.Peer.Address.IsUnspecified()
}

// name puts the name that led there into a record, or keeps the record until one
// cannot come any more; then it is false.
func (c *Collector) name(k *container, r *Record) bool {
	if !mayHaveName(r.Fact) {
		return true
	}
	r.Fact.Peer.Name = k.names.nameOf(r.Fact, r.Time)
	if r.Fact.Peer.Name != "" || c.now().Sub(r.Time) >= namelessGrace || len(c.nameless) >= maxNameless {
		return true
	}
	c.nameless = append(c.nameless, nameless{k, *r})
	return false
}

// release states the records that wait for a name and have one now, or have waited
// for long enough; all of them when all is set.
func (c *Collector) release(all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	c.nameless = slices.DeleteFunc(c.nameless, func(w nameless) bool {
		r := w.record
		r.Fact.Peer.Name = w.container.names.nameOf(r.Fact, r.Time)
		if r.Fact.Peer.Name == "" && !all && now.Sub(r.Time) < namelessGrace {
			return false
		}
		c.state(w.container, r)
		return true
	})
}
