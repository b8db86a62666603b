//go:build linux

// Package plant lists what the planted program does in a container, each thing at a
// known place, and the facts that must be found of it. The program (tests/kernel/
// planted) does the things, the observer (tests/kernel/guest) looks for the facts:
// both read this one list. It must never look for a fact that no thing here does.
package plant

import (
	"errors"
	"fmt"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Roles are what the program is started as: the container's own program, one that
// ran before the collector came, one that entered the container from outside, one
// that the pod's specification names as a probe, and the 32-bit one.
const (
	RoleMain   = "main"
	RoleHeld   = "held"
	RoleExec   = "exec"
	RoleProbe  = "probe"
	RoleCompat = "compat"
)

// Where things are in a container's root directory.
const (
	Program = "/bin/planted"
	Child   = "/bin/child"
	Compat  = "/bin/planted32"
	Dir     = "/plant"
)

// ErrAbsent says that the kernel has not what a thing needs: it cannot be planted
// there, and so not be found.
var ErrAbsent = errors.New("the kernel has none")

// Thing is one thing to do, and what must be found of it.
type Thing struct {
	Name string
	Role string
	// Do does it, in the container; nil if starting the program in its role is all.
	Do func() error
	// Facts to find. What a fact leaves empty may be anything; what is false must be.
	Facts []behavior.Fact
	// Snapshot: it is from before the collector, and the evidence must say so.
	Snapshot bool
	// Gaps are what the collector's words may hold where a kernel cannot show it.
	Gaps []string
	// Arch is the only one that can do it; empty for all.
	Arch string
}

// Things are all of them, in the order in which they are done.
func Things() []Thing {
	var all []Thing
	for _, list := range [][]Thing{files(), operations(), processes(), network(), datagrams(), names(), capabilities(), rings(), calls(), compat(), held(), sessions()} {
		all = append(all, list...)
	}
	return all
}

// Of gives the things of a role on an architecture, by its name in Go.
func Of(role, arch string) []Thing {
	var list []Thing
	for _, t := range Things() {
		if t.Role == role && (t.Arch == "" || t.Arch == arch) {
			list = append(list, t)
		}
	}
	return list
}

// Run does all things of a role and tells report how each went.
func Run(role, arch string, report func(name string, err error)) {
	for _, t := range Of(role, arch) {
		if t.Do == nil {
			report(t.Name, nil)
			continue
		}
		report(t.Name, t.Do())
	}
}

// Found tells whether got is what want asks for.
func Found(want, got behavior.Fact) bool {
	free := func(w, g string) bool { return w == "" || w == g }
	return want.Kind == got.Kind && want.Runtime == got.Runtime && want.Origin == got.Origin &&
		want.Operation == got.Operation && want.Deleted == got.Deleted && want.Refused == got.Refused &&
		want.Direction == got.Direction && (want.Port == got.Port || want.Kind == behavior.DNS) &&
		(want.Access == 0 || want.Access == got.Access) &&
		(!want.Via.IsValid() || want.Via == got.Via) &&
		(!want.Peer.Address.IsValid() || want.Peer.Address == got.Peer.Address) &&
		free(want.Exe, got.Exe) && free(want.Parent, got.Parent) && free(want.Path, got.Path) &&
		free(want.Interpreter, got.Interpreter) && free(want.Arguments, got.Arguments) &&
		free(want.Protocol, got.Protocol) && free(want.Family, got.Family) && free(want.Type, got.Type) &&
		free(want.Target, got.Target) && free(want.Name, got.Name) && free(want.Syscall, got.Syscall) &&
		free(want.Arch, got.Arch) && free(want.Peer.Name, got.Peer.Name)
}

// Never says why a fact must not be there; empty if it may.
func Never(got behavior.Fact) string {
	switch {
	case got.Kind == behavior.Capability && got.Name == "SYS_ADMIN" && !got.Runtime &&
		(got.Syscall == "mmap" || got.Syscall == "brk" || got.Syscall == "execve" || got.Syscall == "mprotect" || got.Syscall == "clone"):
		return "the kernel asked in passing"
	case got.Kind == behavior.File && got.Path == Dir+"/only-resolved" && got.Operation == "":
		return "a path that was only resolved was not opened"
	case got.Kind == behavior.File && got.Path == Dir+"/symlink-to-read" && got.Operation == "":
		return "a file is named by where it is, not by a link to it"
	case got.Kind == behavior.Network && got.Port == portLookedUp:
		return "the socket sent nothing"
	case got.Kind == behavior.Network && got.Peer.Address.Is4In6():
		return "a mapped address is an IPv4 address"
	}
	return ""
}

func own(f behavior.Fact) behavior.Fact {
	if f.Exe == "" {
		f.Exe = Program
	}
	return f
}

// do runs steps until one fails.
func do(steps ...func() error) func() error {
	return func() error {
		for i, step := range steps {
			if err := step(); err != nil {
				return fmt.Errorf("step %d: %w", i+1, err)
			}
		}
		return nil
	}
}
