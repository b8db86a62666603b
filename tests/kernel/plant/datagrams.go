//go:build linux

package plant

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func datagrams() []Thing {
	thing := func(name, at string, ask func(server int, at netip.AddrPort) error, peer string) Thing {
		to := netip.MustParseAddrPort(at)
		return Thing{Name: name, Role: RoleMain, Facts: both("udp", to.Port(), peer), Do: func() error { return served(to, ask) }}
	}
	unnamed := thing("UDP read without address", "127.0.0.1:7014", askUnnamed, "127.0.0.1")
	connected := thing("UDP connected", "127.0.0.1:7012", askConnected, "127.0.0.1")
	lookedUp := Thing{Name: "UDP connected and silent", Role: RoleMain, Do: func() error {
		address, family := sockaddr(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), portLookedUp))
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, address)
	}}
	return []Thing{
		thing("UDP", "127.0.0.1:7011", askFrom, "127.0.0.1"),
		thing("UDP over IPv6", "[::1]:7013", askFrom, "::1"),
		connected, unnamed, lookedUp,
	}
}

// served runs ask beside a UDP socket that is bound to at.
func served(at netip.AddrPort, ask func(server int, at netip.AddrPort) error) error {
	address, family := sockaddr(at)
	server, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(server)
	if err := unix.Bind(server, address); err != nil {
		return err
	}
	return ask(server, at)
}

// askFrom sends without being connected and gets an answer.
func askFrom(server int, at netip.AddrPort) error {
	return asked(server, at, false)
}

func askConnected(server int, at netip.AddrPort) error {
	return asked(server, at, true)
}

func asked(server int, at netip.AddrPort, connected bool) error {
	address, family := sockaddr(at)
	client, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	if connected {
		if err := unix.Connect(client, address); err != nil {
			return err
		}
		_, err = unix.Write(client, []byte("ask"))
	} else {
		err = unix.Sendto(client, []byte("ask"), 0, address)
	}
	if err != nil {
		return err
	}
	buffer := make([]byte, 16)
	_, from, err := unix.Recvfrom(server, buffer, 0)
	if err != nil {
		return err
	}
	if err := unix.Sendto(server, []byte("answer"), 0, from); err != nil {
		return err
	}
	_, _, err = unix.Recvfrom(client, buffer, 0)
	return err
}

// askUnnamed has the server read without asking who sent.
func askUnnamed(server int, at netip.AddrPort) error {
	address, family := sockaddr(at)
	client, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	if err := unix.Sendto(client, []byte("ask"), 0, address); err != nil {
		return err
	}
	_, err = unix.Read(server, make([]byte, 16))
	return err
}

func question(name, kind, target string) behavior.Fact {
	return own(behavior.Fact{Kind: behavior.DNS, Name: name, Type: kind, Target: target})
}
