//go:build linux

package plant

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// portLookedUp is of sockets that are connected and send nothing, as resolvers do.
const portLookedUp = 7999

func talk(direction behavior.Direction, protocol string, port uint16, peer string) behavior.Fact {
	f := own(behavior.Fact{Kind: behavior.Network, Direction: direction, Protocol: protocol, Port: port})
	if peer != "" {
		f.Peer.Address = netip.MustParseAddr(peer)
	}
	return f
}

// all three sides of one conversation of the container with itself.
func both(protocol string, port uint16, peer string) []behavior.Fact {
	return []behavior.Fact{
		talk(behavior.Listen, protocol, port, ""), talk(behavior.Egress, protocol, port, peer), talk(behavior.Ingress, protocol, port, peer),
	}
}

func network() []Thing {
	thing := func(name string, do func() error, facts ...behavior.Fact) Thing {
		return Thing{Name: name, Role: RoleMain, Do: do, Facts: facts}
	}
	made := func(family, kind, protocol string) behavior.Fact {
		return own(behavior.Fact{Kind: behavior.Socket, Family: family, Type: kind, Protocol: protocol})
	}
	service := talk(behavior.Egress, "tcp", Served().Port(), "127.0.0.1")
	service.Via = Service()
	stream := func(to string, protocol int) func() error {
		return func() error { return converse(netip.MustParseAddrPort(to), protocol) }
	}
	return []Thing{
		thing("TCP", stream("127.0.0.1:7001", 0), both("tcp", 7001, "127.0.0.1")...),
		thing("TCP over IPv6", stream("[::1]:7002", 0), both("tcp", 7002, "::1")...),
		thing("TCP to a mapped address", stream("[::ffff:127.0.0.1]:7003", 0), both("tcp", 7003, "127.0.0.1")...),
		thing("TCP Fast Open", fastOpen(7004), talk(behavior.Egress, "tcp", 7004, "127.0.0.1")),
		{Name: "TCP through a Service", Role: RoleMain, Do: throughService, Facts: []behavior.Fact{service}, Gaps: []string{gapTranslation}},
		thing("SCTP", stream("127.0.0.1:7005", unix.IPPROTO_SCTP), both("sctp", 7005, "127.0.0.1")...),
		thing("ICMP", raw(unix.AF_INET, unix.IPPROTO_ICMP, "127.0.0.2"), talk(behavior.Egress, "icmp", 0, "127.0.0.2")),
		thing("ICMPv6", raw(unix.AF_INET6, unix.IPPROTO_ICMPV6, "::1"), talk(behavior.Egress, "icmpv6", 0, "::1")),
		thing("raw socket", raw(unix.AF_INET, 99, "127.0.0.3"), talk(behavior.Egress, "99", 0, "127.0.0.3")),
		thing("packet socket", packet, made("packet", "raw", "")),
		thing("netlink socket", made1(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE), made("netlink", "raw", "route")),
		thing("stream socket", made1(unix.AF_INET, unix.SOCK_STREAM, 0), made("inet", "stream", "")),
		thing("datagram socket over IPv6", made1(unix.AF_INET6, unix.SOCK_DGRAM, 0), made("inet6", "dgram", "")),
		thing("Unix datagram socket", made1(unix.AF_UNIX, unix.SOCK_DGRAM, 0), made("unix", "dgram", "")),
	}
}

// gapTranslation is in what the collector says where it cannot look before those who
// translate.
const gapTranslation = "addresses before Service translation are not observed"

// Service is an address that the observer translates, for the container, to Served.
func Service() netip.AddrPort { return netip.MustParseAddrPort("198.51.100.7:80") }

// Served is where the container itself listens behind Service.
func Served() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:7006") }

// NoServiceVariable names a variable that says, when it is set, that nobody translates Service: in a real
// pod the address leads nowhere, and the connection would wait for minutes.
const NoServiceVariable = "PLANT_NO_SERVICE"

// throughService connects to the one and accepts at the other.
func throughService() error {
	if os.Getenv(NoServiceVariable) != "" {
		return ErrAbsent
	}
	server, err := listening(Served(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(server)
	_, _, err = joined(server, Service(), 0)
	return err
}

// absent makes ErrAbsent of what the kernel says about a family or protocol that it
// has not.
func absent(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		return ErrAbsent
	}
	return err
}

func sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}, unix.AF_INET6
}

func made1(family, kind, protocol int) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return absent(err)
		}
		return unix.Close(fd)
	}
}

// listening gives a socket that listens.
func listening(at netip.AddrPort, protocol int) (int, error) {
	address, family := sockaddr(at)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, absent(err)
	}
	if err := unix.Bind(fd, address); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if err := unix.Listen(fd, 4); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// converse listens, connects to itself and accepts. A mapped address is connected
// to from an IPv6 socket while the listener is an IPv4 one.
func converse(at netip.AddrPort, protocol int) error {
	server, err := listening(netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), protocol)
	if err != nil {
		return err
	}
	defer unix.Close(server)
	_, _, err = joined(server, at, protocol)
	return err
}

// joined connects to a listener and accepts; both ends stay open.
func joined(server int, at netip.AddrPort, protocol int) (client, served int, err error) {
	address, family := sockaddr(at)
	client, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, -1, err
	}
	if err := unix.Connect(client, address); err != nil {
		return -1, -1, err
	}
	served, _, err = unix.Accept(server)
	return client, served, err
}

// fastOpen connects by its first send.
func fastOpen(port uint16) func() error {
	return func() error {
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
		server, err := listening(at, 0)
		if err != nil {
			return err
		}
		defer unix.Close(server)
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(client)
		address, _ := sockaddr(at)
		if err := unix.Sendto(client, []byte("first"), unix.MSG_FASTOPEN, address); err == unix.EOPNOTSUPP {
			return ErrAbsent // switched off by net.ipv4.tcp_fastopen
		} else if err != nil {
			return err
		}
		served, _, err := unix.Accept(server)
		if err != nil {
			return err
		}
		return unix.Close(served)
	}
}

// raw sends what looks like an echo request.
func raw(family, protocol int, to string) func() error {
	return func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return absent(err)
		}
		defer unix.Close(fd)
		address, _ := sockaddr(netip.AddrPortFrom(netip.MustParseAddr(to), 0))
		echo := []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0} // type, code, sum, number, sequence
		if family == unix.AF_INET6 {
			echo[0] = 128
		}
		return unix.Sendto(fd, echo, 0, address)
	}
}

func packet() error {
	return made1(unix.AF_PACKET, unix.SOCK_RAW, 0)()
}
