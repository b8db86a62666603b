//go:build linux

package collector

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// States of sockets in /proc/PID/net, from the kernel's tcp_states.h.
const (
	established = 0x01
	unconnected = 0x07 // a datagram socket without a peer
	listening   = 0x0a
)

// firstEphemeral is the kernel's default first port for sockets that did not ask
// for one: net.ipv4.ip_local_port_range. A datagram socket above it is taken for
// a client.
const firstEphemeral = 32768

// socket is one line of /proc/PID/net/{tcp,tcp6,udp,udp6}.
type socket struct {
	protocol      string
	local, remote netip.AddrPort
	state         uint8
	inode         uint64
}

// parseSocket reads one line; ok is false for the heading.
func parseSocket(protocol, line string) (s socket, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return socket{}, false
	}
	s.protocol = protocol
	var err error
	if s.local, err = parseAddress(f[1]); err != nil {
		return socket{}, false
	}
	if s.remote, err = parseAddress(f[2]); err != nil {
		return socket{}, false
	}
	state, err := strconv.ParseUint(f[3], 16, 8)
	if err != nil {
		return socket{}, false
	}
	s.state = uint8(state)
	s.inode, err = strconv.ParseUint(f[9], 10, 64)
	return s, err == nil
}

// parseAddress reads an address and a port in the kernel's form: words of four
// bytes in the byte order of the machine.
func parseAddress(text string) (netip.AddrPort, error) {
	host, port, ok := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	if !ok || err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("socket address %q: malformed", text)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("socket address %q: malformed", text)
	}
	address, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(address.Unmap(), uint16(n)), nil
}

// sockets states those of a process's sockets that listen or have a peer. The
// tables are read once for each network namespace, and kept in tables.
func (p proc) sockets(s *snapshot, h held, inodes map[uint64]bool, tables map[uint64]map[socket]bool) {
	var st unix.Stat_t
	if err := unix.Stat(p.path(h.pid, "ns/net"), &st); err != nil {
		s.miss("sockets", err)
		return
	}
	table, ok := tables[st.Ino]
	if !ok {
		table = map[socket]bool{}
		for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
			s.miss("sockets", p.readSockets(h.pid, name, table))
		}
		tables[st.Ino] = table
	}
	type port struct {
		protocol string
		number   uint16
	}
	served := map[port]bool{}
	for k := range table {
		if k.state == listening {
			served[port{k.protocol, k.local.Port()}] = true
		}
	}
	for k := range table {
		if !inodes[k.inode] {
			continue
		}
		f := behavior.Fact{Kind: behavior.Network, Exe: h.exe, Protocol: k.protocol}
		switch {
		case k.state == listening, k.state == unconnected && k.local.Port() != 0 && k.local.Port() < firstEphemeral:
			f.Direction, f.Port = behavior.Listen, k.local.Port()
		case k.state == established && served[port{k.protocol, k.local.Port()}]:
			f.Direction, f.Port, f.Peer.Address = behavior.Ingress, k.local.Port(), k.remote.Addr()
		case k.state == established:
			f.Direction, f.Port, f.Peer.Address = behavior.Egress, k.remote.Port(), k.remote.Addr()
		default:
			continue
		}
		s.add(f)
	}
}

func (p proc) readSockets(pid int, name string, into map[socket]bool) error {
	f, err := os.Open(p.path(pid, "net/"+name))
	if err != nil {
		if gone(err) {
			return nil // a kernel without IPv6 has no such file
		}
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if k, ok := parseSocket(strings.TrimSuffix(name, "6"), lines.Text()); ok {
			into[k] = true
		}
		if len(into) >= maxSocketEntries {
			return fmt.Errorf("read sockets: more than %d", maxSocketEntries)
		}
	}
	return lines.Err()
}
