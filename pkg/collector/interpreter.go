//go:build linux

package collector

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
)

// lookup asks for the ELF interpreter of a program that a container runs.
type lookup struct {
	program
	space *namespace
	pids  []int // processes through whose root to look, the best first
}

// program is one run of a program, by the fact that tells of it.
type program struct {
	fact     behavior.Fact
	at       time.Time
	session  uint32 // as in Record
	snapshot bool   // it ran before
}

// question is what is asked about once.
type question struct {
	fact    behavior.Fact
	session uint32
}

// linkers is what is known of the interpreters of programs, by escaped path.
type linkers struct {
	known map[string]string // empty for a static program
	// unknown are programs whose processes were gone before they could be looked
	// at.
	unknown []program
}

func (l *linkers) learn(exe, path string) {
	if l.known == nil {
		l.known = map[string]string{}
	}
	l.known[exe] = path
}

// Bounds of the lookups of one mount namespace, and of the processes whose root
// is tried for one of them.
const (
	maxPrograms = 4096
	maxRoots    = 8
	maxAsking   = 512 // of one namespace in the queue, so that it has room for others
)

// ask queues a lookup at once, before it is known whose the program is: it may
// be gone soon. The caller holds the lock.
func (c *Collector) ask(n *namespace, pids []int, p program) {
	f, asked := p.fact, question{p.fact, p.session}
	host := n.sure && n.place.container == ""
	// Other paths are in no file system of the container.
	if f.Kind != behavior.Process || f.Runtime || host || n.asked[asked] || !strings.HasPrefix(f.Path, "/") {
		return
	}
	l := lookup{program: p, space: n, pids: pids}
	if len(n.asked) >= maxPrograms {
		n.lose("dynamic linkers of programs not looked up", 1, p.at, p.at)
		return
	}
	if n.asked == nil {
		n.asked = map[question]bool{}
	}
	n.asked[asked] = true
	if n.asking < maxAsking {
		select {
		case c.lookups <- l:
			n.asking++
			return
		default:
		}
	}
	n.linkers.unknown = append(n.linkers.unknown, l.program)
	c.claim(n)
}

// interpreters carries out the lookups until the context ends. The kernel opens
// a program's interpreter without a system call, so no probe sees it: the fact is
// stated for the program, and for its parent too, which the process still ran
// when the kernel opened it.
func (c *Collector) interpreters(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case l := <-c.lookups:
			path, err := c.proc.interpreter(l)
			c.found(l, path, err)
		}
	}
}

// found takes in what a lookup ended in.
func (c *Collector) found(l lookup, path string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := l.space
	n.asking--
	if n.foreign {
		return
	}
	if err != nil {
		n.linkers.unknown = append(n.linkers.unknown, l.program)
	} else {
		n.linkers.learn(l.fact.Path, path)
		for _, f := range l.reads(path) {
			if l.snapshot && n.container != nil {
				c.store.add(n.container, sighting{fact: f, at: l.at, snapshot: true})
				continue
			}
			c.deliver(n, Record{MountNS: n.number, Time: l.at, Fact: f, Session: l.session})
		}
	}
	c.claim(n)
}

// reads are the facts that follow from a program with an interpreter.
func (p program) reads(path string) []behavior.Fact {
	var facts []behavior.Fact
	for _, exe := range []string{p.fact.Path, p.fact.Parent} {
		if exe != "" && path != "" {
			facts = append(facts, behavior.Fact{Kind: behavior.File, Exe: exe, Path: path, Access: behavior.Read, Origin: p.fact.Origin})
		}
	}
	return facts
}

// claim gives what the namespace's lookups found to its container, if it is
// known.
func (c *Collector) claim(n *namespace) {
	if n.container == nil {
		return
	}
	for exe, path := range n.linkers.known {
		n.container.linkers.learn(exe, path)
	}
	for _, p := range n.linkers.unknown {
		if !p.snapshot {
			p.fact.Origin, _ = c.originOf(n, Record{Session: p.session})
		}
		n.container.linkers.unknown = append(n.container.linkers.unknown, p)
	}
	n.linkers = linkers{}
}

// relink finds the interpreters of programs that were gone in containers of the
// same image, whose digest says that they hold the same. What stays unknown is a
// loss of the container.
func (c *Collector) relink() {
	known := map[string]map[string]string{}
	for _, k := range c.store.containers {
		if !strings.Contains(k.info.image, "@") {
			continue
		}
		if known[k.info.image] == nil {
			known[k.info.image] = map[string]string{}
		}
		maps.Copy(known[k.info.image], k.linkers.known)
	}
	for _, k := range c.store.containers {
		k.linkers.unknown = slices.DeleteFunc(k.linkers.unknown, func(p program) bool {
			path, ok := known[k.info.image][p.fact.Path]
			for _, f := range p.reads(path) {
				c.store.add(k, sighting{fact: f, at: p.at, snapshot: p.snapshot})
			}
			return ok
		})
	}
}

// interpreter finds the escaped path of the interpreter of a lookup's program, as
// the kernel would resolve it in the container; empty for a static program.
func (p proc) interpreter(l lookup) (string, error) {
	exe, err := behavior.Unescape(l.fact.Path)
	if err != nil {
		return "", err
	}
	err = errors.New("no process of the container is left")
	pids := l.pids
	if len(pids) > maxRoots {
		pids = pids[:maxRoots]
	}
	for _, pid := range pids {
		root := p.path(pid, "root")
		// A process that changed its root would resolve the path elsewhere.
		if at, linkErr := os.Readlink(root); linkErr != nil || at != "/" {
			continue
		}
		if ns, nsErr := p.mountNSOf(pid); nsErr != nil || ns != l.space.number {
			continue
		}
		var path string
		if path, err = resolveInterpreter(root, exe); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find interpreter of %s: %w", l.fact.Path, err)
}

// resolveInterpreter reads the interpreter's name from the program and resolves
// it, both inside the root.
func resolveInterpreter(root, exe string) (string, error) {
	program, err := openRegular(root, exe)
	if err != nil {
		return "", err
	}
	defer program.Close()
	name, err := probe.Interpreter(program)
	if err != nil || name == "" {
		return "", err
	}
	linker, err := openIn(root, name)
	if err != nil {
		return "", err
	}
	defer unix.Close(linker)
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(linker))
	if err != nil {
		return "", err
	}
	return behavior.Escape(path), nil
}

// openRegular opens a regular file for reading.
func openRegular(root, path string) (*os.File, error) {
	fd, err := openIn(root, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("open %s: not a regular file", behavior.Escape(path))
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(fd))
}
