//go:build linux

package plant

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// held is what a container holds that ran before the collector came. What its
// program did then is over: only what is still open is to be found.
func held() []Thing {
	thing := func(name string, do func() error, facts ...behavior.Fact) Thing {
		return Thing{Name: name, Role: RoleHeld, Do: do, Facts: facts, Snapshot: true}
	}
	return []Thing{
		thing("process before", nil, behavior.Fact{Kind: behavior.Process, Path: Program}),
		thing("open file before", keep("held-read", unix.O_RDONLY), file("held-read", behavior.Read)),
		thing("file open for writing before", keep("held-write", unix.O_WRONLY), file("held-write", behavior.Write)),
		thing("mapped code before", holdCode, operation("held-library", behavior.OpExecMap, 0)),
		thing("listener before", holdListener(7101), talk(behavior.Listen, "tcp", 7101, "")),
		thing("connection before", holdConnection(7102), both("tcp", 7102, "127.0.0.1")...),
		thing("connected UDP socket before", holdDatagrams(7103), talk(behavior.Egress, "udp", 7103, "127.0.0.1")),
	}
}

// Later is what the held container does once the collector is there.
func Later() Thing {
	return Thing{
		Name: "open file of a container that was there before", Role: RoleHeld, Do: open("held-later", unix.O_RDONLY),
		Facts: []behavior.Fact{file("held-later", behavior.Read)},
	}
}

// keep opens a file that stays open as long as the program runs.
func keep(name string, flags int) func() error {
	return func() error {
		_, err := unix.Open(Dir+"/"+name, flags, 0)
		return err
	}
}

func holdCode() error {
	fd, err := unix.Open(Dir+"/held-library", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	_, err = unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	return errors.Join(err, unix.Close(fd))
}

func holdListener(port uint16) func() error {
	return func() error {
		_, err := listening(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), 0)
		return err
	}
}

func holdConnection(port uint16) func() error {
	return func() error {
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
		server, err := listening(at, 0)
		if err != nil {
			return err
		}
		_, _, err = joined(server, at, 0)
		return err
	}
}

func holdDatagrams(port uint16) func() error {
	return func() error {
		address, family := sockaddr(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
		fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		return unix.Connect(fd, address)
	}
}
