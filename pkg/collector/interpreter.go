//go:build linux

package collector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
)

// lookup asks for the ELF interpreter of a program that a container runs.
type lookup struct {
	container *container
	mountNS   uint32
	pids      []int // processes through whose root to look, the best first
	fact      behavior.Fact
	at        time.Time
}

// maxRoots bounds the processes whose root is tried for one lookup.
const maxRoots = 8

// ask queues a lookup. The caller holds the lock.
func (c *Collector) ask(l lookup) {
	select {
	case c.lookups <- l:
	default:
		l.container.lose("dynamic linker of a program not looked up", 1)
	}
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
			path, err := "", error(nil)
			if strings.HasPrefix(l.fact.Path, "/") { // others are in no file system of the container
				path, err = c.proc.interpreter(l)
			}
			c.mu.Lock()
			switch {
			case err != nil:
				l.container.lose("dynamic linker of a program that was gone", 1)
			case path != "":
				for _, exe := range []string{l.fact.Path, l.fact.Parent} {
					if exe != "" {
						c.store.add(l.container, behavior.Fact{Kind: behavior.File, Exe: exe, Path: path, Access: behavior.Read}, 0, l.at)
					}
				}
			}
			c.mu.Unlock()
		}
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
		if ns, nsErr := p.mountNSOf(pid); nsErr != nil || ns != l.mountNS {
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
