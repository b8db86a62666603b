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
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
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

// socket is one line of /proc/PID/net/{tcp,tcp6,udp,udp6,raw,raw6,packet,unix}.
type socket struct {
	protocol      string
	local, remote netip.AddrPort
	state         uint8
	inode         uint64
	// family and kind are those of a socket that is stated as one that was made:
	// what may be sent by it has no ports.
	family, kind string
	path         string // of a Unix socket that waits for peers, as its process said it
}

// parseLine reads one line of a table; ok is false for the heading, and for a
// socket that says nothing.
func parseLine(table, line string) (s socket, ok bool) {
	switch name := strings.TrimSuffix(table, "6"); name {
	case "packet":
		return parsePacket(line)
	case "unix":
		return parseUnix(line)
	case "raw":
		if s, ok = parseSocket(name, line); !ok {
			return socket{}, false
		}
		family := "inet"
		if table != name {
			family = "inet6"
		}
		// Its port is its protocol.
		return socket{family: family, kind: "raw", protocol: probe.ProtocolName(int(s.local.Port())), inode: s.inode}, true
	default:
		return parseSocket(name, line)
	}
}

// parsePacket reads one line of packet: sk RefCnt Type Proto Iface R Rmem User Inode.
func parsePacket(line string) (s socket, ok bool) {
	f := strings.Fields(line)
	if len(f) < 9 {
		return socket{}, false
	}
	kind, err := strconv.ParseUint(f[2], 10, 8)
	if err != nil {
		return socket{}, false
	}
	inode, err := strconv.ParseUint(f[8], 10, 64)
	return socket{family: "packet", kind: probe.SocketTypeName(int(kind)), inode: inode}, err == nil
}

// parseUnix reads one line of unix: Num RefCount Protocol Flags Type St Inode Path.
// A path is the text that a process gave, so a newline in it begins another line,
// which counts only where its process has a socket of that number.
func parseUnix(line string) (s socket, ok bool) {
	f := strings.SplitN(strings.TrimLeft(line, " "), " ", 7)
	if len(f) < 7 || !strings.HasSuffix(f[0], ":") {
		return socket{}, false
	}
	flags, flagsErr := strconv.ParseUint(f[3], 16, 32)
	kind, kindErr := strconv.ParseUint(f[4], 16, 16)
	inode, path, named := strings.Cut(strings.TrimLeft(f[6], " "), " ")
	n, inodeErr := strconv.ParseUint(inode, 10, 64)
	// One that was accepted has the path of the one that waits.
	waits := flags&unixAccepts != 0 || kind == unix.SOCK_DGRAM
	if flagsErr != nil || kindErr != nil || inodeErr != nil || !named || !waits || !strings.HasPrefix(path, "/") {
		return socket{}, false
	}
	return socket{path: path, inode: n}, true
}

// unixAccepts is the kernel's __SO_ACCEPTCON: a socket that listens.
const unixAccepts = 1 << 16

// otherSocket states a Unix socket by its path, where it is still there by the path
// that leads to it now, and others as made.
func (p proc) otherSocket(s *snapshot, h held, k socket) {
	if k.path == "" {
		s.add(h, behavior.Fact{Kind: behavior.Socket, Exe: h.exe, Family: k.family, Type: k.kind, Protocol: k.protocol})
		return
	}
	s.add(h, behavior.Fact{
		Kind: behavior.File, Exe: h.exe, Path: behavior.Escape(resolveIn(p.path(h.pid, "root"), k.path)),
		Access: behavior.Write | behavior.Create, Operation: behavior.OpBind,
	})
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
		for _, name := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "unix"} {
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
		if k.path != "" || k.family != "" {
			p.otherSocket(s, h, k)
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
		s.add(h, f)
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
		if k, ok := parseLine(name, lines.Text()); ok {
			into[k] = true
		}
		if len(into) >= maxSocketEntries {
			return fmt.Errorf("read sockets: more than %d", maxSocketEntries)
		}
	}
	return lines.Err()
}
