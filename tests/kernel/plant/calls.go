//go:build linux

package plant

import (
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// calls are system calls that the program would not make otherwise.
func calls() []Thing {
	called := func(name string) behavior.Fact {
		return behavior.Fact{Kind: behavior.Syscall, Name: name, Arch: runtime.GOARCH}
	}
	return []Thing{
		{Name: "system calls", Role: RoleMain, Do: func() error {
			_, err := unix.Times(&unix.Tms{})
			if err != nil {
				return err
			}
			return unix.Sysinfo(&unix.Sysinfo_t{})
		}, Facts: []behavior.Fact{called("times"), called("sysinfo")}},
	}
}

// compat is what the 32-bit program does; it is started by the main one.
func compat() []Thing {
	by := func(f behavior.Fact) behavior.Fact {
		f.Exe = Compat
		return f
	}
	called := func(name string) behavior.Fact { return behavior.Fact{Kind: behavior.Syscall, Name: name, Arch: "386"} }
	thing := func(name string, do func() error, facts ...behavior.Fact) Thing {
		return Thing{Name: name, Role: RoleCompat, Do: do, Facts: facts, Arch: "386"}
	}
	conversation := both("tcp", 7061, "127.0.0.1")
	for i := range conversation {
		conversation[i] = by(conversation[i])
	}
	return []Thing{
		{Name: "32-bit program", Role: RoleMain, Do: run(Compat, RoleCompat), Facts: []behavior.Fact{process(Compat, Program)}, Arch: "amd64"},
		thing("32-bit open", open("compat", unix.O_RDONLY), by(file("compat", behavior.Read))),
		thing("32-bit TCP", func() error { return converse(netip.MustParseAddrPort("127.0.0.1:7061"), 0) }, conversation...),
		thing("32-bit rename", func() error { return unix.Rename(Dir+"/compat", Dir+"/compat-new") },
			by(operation("compat", behavior.OpRename, behavior.Write)), by(operation("compat-new", behavior.OpRename, behavior.Write|behavior.Create))),
		thing("32-bit system calls", func() error {
			_, err := unix.Times(&unix.Tms{})
			return err
		}, called("times")),
	}
}

// sessions are what the observer has others do in the container: see tests/kernel/guest.
func sessions() []Thing {
	read := func(name string, origin behavior.Origin) []behavior.Fact {
		f := file(name, behavior.Read)
		f.Origin = origin
		return []behavior.Fact{f}
	}
	return []Thing{
		{Name: "entered from outside", Role: RoleExec, Do: open("by-exec", unix.O_RDONLY), Facts: read("by-exec", behavior.OriginExec)},
		{Name: "a probe of the pod", Role: RoleProbe, Do: open("by-probe", unix.O_RDONLY), Facts: read("by-probe", behavior.OriginProbe)},
	}
}
