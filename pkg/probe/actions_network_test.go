//go:build linux

package probe

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// networkAction does what the words say; false when it is none of these.
func networkAction(args []string) (bool, error) {
	switch args[0] {
	case "socket": // socket FAMILY TYPE PROTOCOL, as numbers
		n, err := numbers(args[1:])
		if err != nil {
			return true, err
		}
		fd, err := unix.Socket(n[0], n[1], n[2])
		if err != nil {
			return true, err
		}
		return true, unix.Close(fd)
	case "socketpair":
		n, err := numbers(args[1:])
		if err != nil {
			return true, err
		}
		_, err = unix.Socketpair(n[0], n[1], n[2])
		return true, err
	case "deaf": // deaf ADDRESS: a UDP server that never asks who it was
		return true, deaf(netip.MustParseAddrPort(args[1]), unix.IPPROTO_UDP)
	case "udplite":
		return true, deaf(netip.MustParseAddrPort(args[1]), unix.IPPROTO_UDPLITE)
	case "fastopen": // a TCP connect by sending
		return true, fastOpen(netip.MustParseAddrPort(args[1]))
	case "connect": // connect ADDRESS: over TCP, which may be refused
		addr, family := sockaddr(netip.MustParseAddrPort(args[1]))
		fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
		if err != nil {
			return true, err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, addr); err != nil && err != unix.ECONNREFUSED {
			return true, err
		}
		return true, nil
	case "send", "sendconnected": // one UDP datagram, to whoever is there
		return true, send(netip.MustParseAddrPort(args[1]), args[0] == "sendconnected")
	case "ping": // ping ADDRESS TYPE: an echo over a socket of a type, and its reply
		n, err := numbers(args[2:])
		if err != nil {
			return true, err
		}
		return true, ping(netip.MustParseAddr(args[1]), n[0])
	case "raw": // raw ADDRESS PROTOCOL: sends to itself between two sockets
		n, err := numbers(args[2:])
		if err != nil {
			return true, err
		}
		return true, raw(netip.MustParseAddr(args[1]), n[0])
	case "sctp":
		return true, sctp(netip.MustParseAddrPort(args[1]))
	}
	return false, nil
}

func numbers(words []string) ([]int, error) {
	var list []int
	for _, w := range words {
		n, err := strconv.Atoi(w)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

func deaf(a netip.AddrPort, protocol int) error {
	addr, family := sockaddr(a)
	server, err := unix.Socket(family, unix.SOCK_DGRAM, protocol)
	if err != nil {
		return err
	}
	if err := unix.Bind(server, addr); err != nil {
		return err
	}
	client, err := unix.Socket(family, unix.SOCK_DGRAM, protocol)
	if err != nil {
		return err
	}
	if err := unix.Sendto(client, []byte("ask"), 0, addr); err != nil {
		return err
	}
	_, err = unix.Read(server, make([]byte, 10))
	return err
}

func fastOpen(a netip.AddrPort) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("3"), 0); err != nil {
		return err
	}
	addr, family := sockaddr(a)
	l, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(l, addr); err != nil {
		return err
	}
	if err := unix.Listen(l, 1); err != nil {
		return err
	}
	c, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return unix.Sendto(c, []byte("ask"), unix.MSG_FASTOPEN, addr)
}

func send(a netip.AddrPort, connected bool) error {
	return sendBytes(a, connected, []byte("ask"))
}

func sendBytes(a netip.AddrPort, connected bool, data []byte) error {
	addr, family := sockaddr(a)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !connected {
		return unix.Sendto(fd, data, 0, addr)
	}
	if err := unix.Connect(fd, addr); err != nil {
		return err
	}
	_, err = unix.Write(fd, data)
	return err
}

// ping sends an echo request and reads the reply.
func ping(a netip.Addr, socketType int) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		return err
	}
	addr, family := sockaddr(netip.AddrPortFrom(a, 0))
	protocol, request := unix.IPPROTO_ICMP, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}
	if family == unix.AF_INET6 {
		protocol, request = unix.IPPROTO_ICMPV6, []byte{128, 0, 0, 0, 0, 0, 0, 0}
	}
	fd, err := unix.Socket(family, socketType, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range 2 {
		if err := unix.Sendto(fd, request, 0, addr); err != nil {
			return err
		}
		if _, err := unix.Read(fd, make([]byte, 100)); err != nil {
			return err
		}
	}
	return nil
}

func raw(a netip.Addr, protocol int) error {
	addr, family := sockaddr(netip.AddrPortFrom(a, 0))
	server, err := unix.Socket(family, unix.SOCK_RAW, protocol)
	if err != nil {
		return err
	}
	client, err := unix.Socket(family, unix.SOCK_RAW, protocol)
	if err != nil {
		return err
	}
	if err := unix.Sendto(client, []byte("hello"), 0, addr); err != nil {
		return err
	}
	_, err = unix.Read(server, make([]byte, 100))
	return err
}

// sctp listens, connects and accepts, and sends from a socket of the other style.
func sctp(a netip.AddrPort) error {
	addr, family := sockaddr(a)
	l, err := unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		return err
	}
	if err := unix.Bind(l, addr); err != nil {
		return err
	}
	if err := unix.Listen(l, 1); err != nil {
		return err
	}
	c, err := unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err != nil {
		return err
	}
	if err := unix.Connect(c, addr); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	_, _, err = unix.Accept(l)
	return err
}
