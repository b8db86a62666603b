//go:build linux

package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// dnsAction asks servers of its own on port 53 of an address:
//
//	ask ADDRESS NAME TYPE [connected|forged|cut|pieces|tcp]...
//	ask-many ADDRESS N: N names, in one datagram each, nobody answers
func dnsAction(args []string) (bool, error) {
	switch args[0] {
	case "ask":
		address := netip.AddrPortFrom(netip.MustParseAddr(args[1]), 53)
		how := strings.Join(args[4:], " ")
		if strings.Contains(how, "tcp") || strings.Contains(how, "pieces") {
			return true, askTCP(address, args[2], args[3], strings.Contains(how, "pieces"))
		}
		return true, askUDP(address, args[2], args[3], how)
	case "send-dns", "connect-dns": // a question that nobody answers
		name := map[bool]string{true: "elsewhere.test", false: "connected.test"}[args[0] == "send-dns"]
		question, err := dnsQuestion(1, name, "A")
		if err != nil {
			return true, err
		}
		return true, sendBytes(netip.MustParseAddrPort(args[1]), args[0] != "send-dns", question)
	case "ask-many":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return true, err
		}
		return true, askMany(netip.AddrPortFrom(netip.MustParseAddr(args[1]), 53), n)
	}
	return false, nil
}

func dnsType(word string) dnsmessage.Type {
	return map[string]dnsmessage.Type{
		"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "SRV": dnsmessage.TypeSRV, "PTR": dnsmessage.TypePTR,
		"MX": dnsmessage.TypeMX, "TXT": dnsmessage.TypeTXT,
	}[word]
}

func dnsQuestion(id uint16, name, kind string) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	q := dnsmessage.Question{Type: dnsType(kind), Class: dnsmessage.ClassINET}
	var err error
	if q.Name, err = dnsmessage.NewName(name + "."); err != nil {
		return nil, err
	}
	if err := b.Question(q); err != nil {
		return nil, err
	}
	return b.Finish()
}

// dnsAnswer is what the server says: every name is an alias of "real." before it,
// with an address each, and every service is that name's.
func dnsAnswer(question []byte, truncated bool) ([]byte, error) {
	var asked dnsmessage.Message
	if err := asked.Unpack(question); err != nil {
		return nil, err
	}
	q := asked.Questions[0]
	target := dnsmessage.MustNewName("Real." + strings.ToLower(q.Name.String()))
	header := func(name dnsmessage.Name, kind dnsmessage.Type) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name, Type: kind, Class: dnsmessage.ClassINET, TTL: 30}
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: asked.ID, Response: true, Truncated: truncated}, Questions: asked.Questions}
	v4 := dnsmessage.Resource{Header: header(target, dnsmessage.TypeA), Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}
	v6 := dnsmessage.Resource{Header: header(target, dnsmessage.TypeAAAA), Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}}
	alias := dnsmessage.Resource{Header: header(q.Name, dnsmessage.TypeCNAME), Body: &dnsmessage.CNAMEResource{CNAME: target}}
	other := dnsmessage.Resource{Header: header(dnsmessage.MustNewName("unrelated.test."), dnsmessage.TypeA), Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 66}}}
	switch q.Type {
	case dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{alias, v4, other}
	case dnsmessage.TypeAAAA:
		m.Answers = []dnsmessage.Resource{alias, v6}
	case dnsmessage.TypeSRV:
		m.Answers = []dnsmessage.Resource{{Header: header(q.Name, q.Type), Body: &dnsmessage.SRVResource{Port: 5432, Target: target}}}
		m.Additionals = []dnsmessage.Resource{v4}
	}
	return m.Pack()
}

// bound makes a socket of a type that is bound to an address.
func bound(a netip.AddrPort, socketType int) (int, error) {
	addr, family := sockaddr(a)
	fd, err := unix.Socket(family, socketType, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, addr)
}

func askUDP(server netip.AddrPort, name, kind, how string) error {
	s, err := bound(server, unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	addr, family := sockaddr(server)
	c, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(c)
	question, err := dnsQuestion(4711, name, kind)
	if err != nil {
		return err
	}
	if strings.Contains(how, "connected") {
		if err = unix.Connect(c, addr); err == nil {
			_, err = unix.Write(c, question)
		}
	} else {
		err = unix.Sendto(c, question, 0, addr)
	}
	if err != nil {
		return err
	}
	buffer := make([]byte, 4096)
	n, from, err := unix.Recvfrom(s, buffer, 0)
	if err != nil {
		return err
	}
	answer, err := dnsAnswer(buffer[:n], strings.Contains(how, "cut"))
	if err != nil {
		return err
	}
	if strings.Contains(how, "forged") { // another id, and another name
		forged := append([]byte(nil), answer...)
		forged[0]++
		if err := unix.Sendto(s, forged, 0, from); err != nil {
			return err
		}
		evil, err := dnsQuestion(4711, "evil.test", kind)
		if err != nil {
			return err
		}
		if forged, err = dnsAnswer(evil, false); err != nil {
			return err
		}
		if err := unix.Sendto(s, forged, 0, from); err != nil {
			return err
		}
	}
	if err := unix.Sendto(s, answer, 0, from); err != nil {
		return err
	}
	_, err = unix.Read(c, buffer)
	return err
}

// askTCP asks on a connection; in pieces, each byte is a segment.
func askTCP(server netip.AddrPort, name, kind string, pieces bool) error {
	l, err := bound(server, unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	if err := unix.Listen(l, 1); err != nil {
		return err
	}
	addr, family := sockaddr(server)
	c, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(c)
	if err := unix.Connect(c, addr); err != nil {
		return err
	}
	s, _, err := unix.Accept(l)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	question, err := dnsQuestion(815, name, kind)
	if err != nil {
		return err
	}
	answer, err := dnsAnswer(question, false)
	if err != nil {
		return err
	}
	if err := pass(c, s, question, pieces); err != nil {
		return err
	}
	return pass(s, c, answer, pieces)
}

// pass sends a message and reads it.
func pass(from, to int, message []byte, pieces bool) error {
	message = append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
	if err := unix.SetsockoptInt(from, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	for len(message) > 0 {
		n := len(message)
		if pieces {
			n = 1
		}
		if _, err := unix.Write(from, message[:n]); err != nil {
			return err
		}
		if _, err := unix.Read(to, make([]byte, n)); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

func askMany(server netip.AddrPort, n int) error {
	addr, family := sockaddr(server)
	c, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(c)
	for i := range n {
		question, err := dnsQuestion(uint16(i), fmt.Sprintf("name-%d.many.test", i), "A")
		if err != nil {
			return err
		}
		if err := unix.Sendto(c, question, 0, addr); err != nil {
			return err
		}
	}
	return nil
}
