//go:build linux

package plant

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

const (
	apiName   = "api.plant.test"
	aliasName = "alias.plant.test"
	// named is what apiName leads to, and what is connected to after asking. It is no
	// address of the container's own, which no name leads to: the observer gives it one
	// that looks like another's.
	named = "203.0.113.77"
)

// Named is the address that the container must have for the connection to one that DNS
// gave; where it has not, that is not planted.
func Named() netip.Addr { return netip.MustParseAddr(named) }

func names() []Thing {
	thing := func(name string, kind dnsmessage.Type, ask string, overTCP bool, facts ...behavior.Fact) Thing {
		do := func() error { return askUDP(ask, kind) }
		if overTCP {
			do = func() error { return askTCP(ask, kind) }
		}
		return Thing{Name: name, Role: RoleMain, Do: do, Facts: facts}
	}
	reached := talk(behavior.Egress, "tcp", 7051, named)
	reached.Peer.Name = apiName
	return []Thing{
		thing("DNS question", dnsmessage.TypeA, apiName, false, question(apiName, "A", "")),
		{Name: "connection to an address that DNS gave", Role: RoleMain, Do: func() error {
			err := converse(netip.AddrPortFrom(Named(), 7051), 0)
			if errors.Is(err, unix.EADDRNOTAVAIL) { // from bind: nobody gave it to us
				return fmt.Errorf("%w: address %s: %w", ErrAbsent, named, err)
			}
			return err
		}, Facts: []behavior.Fact{reached}},
		thing("DNS question for IPv6", dnsmessage.TypeAAAA, apiName, false, question(apiName, "AAAA", "")),
		thing("DNS alias", dnsmessage.TypeA, aliasName, false, question(aliasName, "A", apiName)),
		thing("DNS service", dnsmessage.TypeSRV, "_http._tcp.plant.test", false, question("_http._tcp.plant.test", "SRV", apiName)),
		thing("DNS question over TCP", dnsmessage.TypeA, "tcp.plant.test", true, question("tcp.plant.test", "A", "")),
	}
}

// answer is what the tiny server says to a question.
func answer(id uint16, name string, kind dnsmessage.Type, response bool) ([]byte, error) {
	full, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, err
	}
	api, err := dnsmessage.NewName(apiName + ".")
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, Response: response, RecursionDesired: true, RecursionAvailable: response},
		Questions: []dnsmessage.Question{{Name: full, Type: kind, Class: dnsmessage.ClassINET}},
	}
	header := dnsmessage.ResourceHeader{Name: full, Class: dnsmessage.ClassINET, TTL: 60}
	a := &dnsmessage.AResource{A: Named().As4()}
	switch {
	case !response:
	case kind == dnsmessage.TypeSRV:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.SRVResource{Port: 80, Target: api}}}
	case kind == dnsmessage.TypeAAAA:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("fd00::77").As16()}}}
	case name == aliasName:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: api}}}
		header.Name = api
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: a})
	default:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: a}}
	}
	return m.Pack()
}

func askUDP(name string, kind dnsmessage.Type) error {
	return served(netip.MustParseAddrPort("127.0.0.1:53"), func(server int, at netip.AddrPort) error {
		address, family := sockaddr(at)
		client, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(client)
		if err := unix.Connect(client, address); err != nil {
			return err
		}
		ask, err := answer(4711, name, kind, false)
		if err != nil {
			return err
		}
		if _, err := unix.Write(client, ask); err != nil {
			return err
		}
		buffer := make([]byte, 512)
		_, from, err := unix.Recvfrom(server, buffer, 0)
		if err != nil {
			return err
		}
		reply, err := answer(4711, name, kind, true)
		if err != nil {
			return err
		}
		if err := unix.Sendto(server, reply, 0, from); err != nil {
			return err
		}
		_, err = unix.Read(client, buffer)
		return err
	})
}

func askTCP(name string, kind dnsmessage.Type) error {
	at := netip.MustParseAddrPort("127.0.0.1:53")
	server, err := listening(at, 0)
	if err != nil {
		return err
	}
	defer unix.Close(server)
	client, served, err := joined(server, at, 0)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	defer unix.Close(served)
	ask, err := answer(4712, name, kind, false)
	if err != nil {
		return err
	}
	reply, err := answer(4712, name, kind, true)
	if err != nil {
		return err
	}
	return errors.Join(passed(client, served, ask), passed(served, client, reply))
}

// passed sends a message with its length before it, and reads it at the other end.
func passed(from, to int, message []byte) error {
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
	if _, err := unix.Write(from, framed); err != nil {
		return err
	}
	_, err := unix.Read(to, make([]byte, 1024))
	return err
}
