//go:build linux

package probe

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Record is the first occurrence of a fact in one mount namespace.
type Record struct {
	MountNS uint32 // inode number of the task's mount namespace
	// Generation tells apart the mount namespaces that had this inode number one
	// after the other; 0 where the kernel does not tell.
	Generation uint32
	PID        int // process, in the initial PID namespace
	// CgroupNames are the task's cgroups, escaped: of the default hierarchy from
	// leaf to root, then of a version 1 hierarchy. A container may make cgroups
	// below its own and name them as it likes, so of several names that look
	// right the last one of a hierarchy counts. Empty when they are too deep.
	CgroupNames []string
	// ID is the fact's in Counts; zero when the map was full and nothing counts.
	ID   uint64
	Time time.Time
	Fact behavior.Fact
	// Truncated: one of the paths could not be read up to its beginning.
	Truncated bool
	// Unresolved: the path is what the task named, relative to where, and nobody
	// could tell what that led to; it is also counted as lost.
	Unresolved bool
	// Deleted: the file had no name any more; Path is where it was.
	Deleted bool
	// Directory: a file fact about a directory that was opened.
	Directory bool
	// Session is 0 for the container's own tree; else a hash of the arguments of
	// the program with which somebody entered the container from outside.
	Session uint32
	// Entered are those arguments, each escaped, 4 KiB at most together: only on
	// the process records that begin a session, and as the kernel gave them to
	// the program: those of a script begin with its interpreter. None when they
	// could not be read, which is also counted as lost.
	Entered []string
	// Parent is the executable of the acting process's parent at the time, empty
	// for one outside of the container. HasParent: it is known; of what the
	// container's runtime did it is not.
	Parent    string
	HasParent bool
	// Answers are of a DNS fact: what the container was told, each time that it
	// was told something else and from time to time. None: the question.
	Answers []Answer
	// Script: Path is no program but a script, which was started together with
	// its interpreter; that has a record of its own, with the same parent.
	Script bool

	given *reference // how to find the path, where only a name is known
}

const (
	truncatedPath = uint8(bpf.FloorPathFlagPATH_LONG | bpf.FloorPathFlagPATH_DEEP | bpf.FloorPathFlagPATH_UNREADABLE)
	headerBytes   = int(unsafe.Sizeof(bpf.FloorRecord{}))
)

// decode makes a Record of what the programs wrote, and gives the rest that they
// said of it. wall turns boot time into wall time. A record of an actor has no
// fact but whose it is; one that names an actor does not say whose it is.
func decode(raw []byte, wall func(boot uint64) time.Time) (Record, bpf.FloorRecord, error) {
	var h bpf.FloorRecord
	if len(raw) < headerBytes {
		return Record{}, h, fmt.Errorf("%w: %d bytes", ErrRecord, len(raw))
	}
	if _, err := binary.Decode(raw[:headerBytes], binary.NativeEndian, &h); err != nil {
		return Record{}, h, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	r, err := recordOf(&h, raw[headerBytes:], wall)
	return r, h, err
}

func recordOf(h *bpf.FloorRecord, rest []byte, wall func(boot uint64) time.Time) (Record, error) {
	var parts [6][][]byte
	for i, n := range []uint16{h.CgroupsLen, h.ExeLen, h.ParentLen, h.PathLen, h.ArgumentsLen, h.PayloadLen} {
		if int(n) > len(rest) {
			return Record{}, fmt.Errorf("%w: string %d of %d bytes, %d are left", ErrRecord, i, n, len(rest))
		}
		var err error
		switch i {
		case 4:
			parts[i] = arguments(rest[:n])
		case 5: // a payload, which is not for this room
		default:
			parts[i], err = names(rest[:n])
		}
		if err != nil {
			return Record{}, err
		}
		rest = rest[n:]
	}
	if len(rest) > 0 {
		return Record{}, fmt.Errorf("%w: %d bytes too many", ErrRecord, len(rest))
	}
	r := Record{
		MountNS:   uint32(h.Mntns),
		PID:       int(h.Pid),
		ID:        h.Id,
		Session:   h.Session,
		Time:      wall(h.Time),
		Truncated: (h.ExeFlags|h.PathFlags|h.ParentFlags)&truncatedPath != 0,
		Directory: has(h.Flags, bpf.FloorRecordFlagRECORD_DIRECTORY),
		Script:    has(h.Flags, bpf.FloorRecordFlagRECORD_SCRIPT),
	}
	r.Generation = uint32(h.Mntns >> 32)
	for _, name := range parts[0] {
		r.CgroupNames = append(r.CgroupNames, behavior.Escape(string(name)))
	}
	exe, parent, file := path(parts[1], h.ExeFlags), path(parts[2], h.ParentFlags), path(parts[3], h.PathFlags)
	if bpf.FloorKind(h.Kind) == bpf.FloorKindKIND_FILE && h.NameFlags != 0 {
		r.given = &reference{
			mountNS: h.Mntns, pids: []int{int(h.Pid), int(h.Reaper)}, base: rawPath(parts[3]), baseFlags: h.PathFlags, file: file,
			name: string(bytes.Join(parts[4], []byte{0})), flags: bpf.FloorNameFlag(h.NameFlags),
		}
		if len(parts[4]) == 0 { // it did not fit
			r.given.baseFlags |= uint8(bpf.FloorPathFlagPATH_LONG)
		}
		file = r.given.unresolved()
	}
	if has(h.Flags, bpf.FloorRecordFlagRECORD_RUNTIME) {
		exe = ""
	}
	if h.ParentLen == 0 {
		parent = ""
	}
	r.Parent, r.HasParent = parent, !has(h.Flags, bpf.FloorRecordFlagRECORD_RUNTIME)
	fact, err := factOf(h, exe, file, parent)
	if err != nil {
		return Record{}, err
	}
	for i, argument := range parts[4] {
		escaped := behavior.Escape(string(argument))
		if has(h.Flags, bpf.FloorRecordFlagRECORD_ENTERED) {
			r.Entered = append(r.Entered, escaped)
		}
		if has(h.Flags, bpf.FloorRecordFlagRECORD_ARGUMENTS) {
			// A space is escaped too, and nothing is quoted: so that each is told.
			if i > 0 {
				fact.Arguments += " "
			}
			fact.Arguments += cmp.Or(strings.ReplaceAll(escaped, " ", `\x20`), `""`)
		}
	}
	r.Fact = fact
	switch fact.Kind {
	case behavior.File:
		r.Deleted = r.given == nil && h.PathFlags&uint8(bpf.FloorPathFlagPATH_DELETED) != 0
		r.Fact.Deleted = r.Deleted
	case behavior.Process:
		r.Deleted = h.ExeFlags&uint8(bpf.FloorPathFlagPATH_DELETED) != 0
	}
	return r, nil
}

func factOf(h *bpf.FloorRecord, exe, file, parent string) (behavior.Fact, error) {
	f := behavior.Fact{Exe: exe, Runtime: has(h.Flags, bpf.FloorRecordFlagRECORD_RUNTIME)}
	switch bpf.FloorKind(h.Kind) {
	case bpf.FloorKindKIND_PROCESS:
		f = behavior.Fact{Kind: behavior.Process, Path: exe, Parent: parent}
		f.Deleted = h.ExeFlags&uint8(bpf.FloorPathFlagPATH_DELETED) != 0
		if has(h.Flags, bpf.FloorRecordFlagRECORD_SCRIPT) {
			f.Interpreter = file
		}
	case bpf.FloorKindKIND_FILE:
		f.Kind, f.Path, f.Access = behavior.File, file, behavior.Access(h.Access)
		if n := int(h.Operation); n > len(behavior.Operations()) {
			return f, fmt.Errorf("%w: operation %d", ErrRecord, n)
		} else if n > 0 {
			f.Operation = behavior.Operations()[n-1]
		}
	case bpf.FloorKindKIND_NETWORK:
		f.Kind, f.Port = behavior.Network, h.Port
		f.Protocol = ProtocolName(int(h.Protocol))
		var ok bool
		if f.Direction, ok = direction(h.Direction); !ok {
			return f, fmt.Errorf("%w: direction %d", ErrRecord, h.Direction)
		}
		if f.Direction != behavior.Listen {
			f.Peer.Address = address(h.Address)
		}
		if h.ViaPort != 0 {
			f.Via = netip.AddrPortFrom(address(h.Via), h.ViaPort)
		}
	case bpf.FloorKindKIND_SOCKET:
		f.Kind, f.Family, f.Type = behavior.Socket, FamilyName(int(h.Family)), SocketTypeName(int(h.Type))
		f.Protocol = socketProtocolName(int(h.Family), int(h.Protocol))
	case bpf.FloorKindKIND_ACTOR, bpf.FloorKindKIND_DNS:
		return f, nil // the rest is told elsewhere
	case bpf.FloorKindKIND_CAPABILITY:
		arch := Arches(runtime.GOARCH)[0]
		if has(h.Flags, bpf.FloorRecordFlagRECORD_COMPAT) {
			arch = Arches(runtime.GOARCH)[1]
		}
		f.Kind, f.Name, f.Syscall = behavior.Capability, CapabilityName(int(h.Capability)), SyscallName(arch, int(h.Syscall))
		if !f.Runtime {
			var values [maxWords]uint32
			for i := range values {
				values[i] = binary.NativeEndian.Uint32(h.Address[4*i:])
			}
			f.Arguments = sayWords(f.Syscall, values[:])
		}
		f.Refused = has(h.Flags, bpf.FloorRecordFlagRECORD_REFUSED)
	default:
		return f, fmt.Errorf("%w: kind %d", ErrRecord, h.Kind)
	}
	if err := f.Validate(); err != nil {
		return f, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return f, nil
}

// address is an IPv4 or IPv6 one, as the programs write both.
func address(raw [16]uint8) netip.Addr { return netip.AddrFrom16(raw).Unmap() }

func has(flags uint8, flag bpf.FloorRecordFlag) bool { return flags&uint8(flag) != 0 }

func direction(d uint8) (behavior.Direction, bool) {
	switch bpf.FloorDirection(d) {
	case bpf.FloorDirectionDIRECTION_EGRESS:
		return behavior.Egress, true
	case bpf.FloorDirectionDIRECTION_INGRESS:
		return behavior.Ingress, true
	case bpf.FloorDirectionDIRECTION_LISTEN:
		return behavior.Listen, true
	}
	return "", false
}

// arguments splits a program's arguments, each ended by NUL; the last one may have
// been cut.
func arguments(raw []byte) [][]byte {
	if len(raw) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(raw, []byte{0}), []byte{0})
}

// names splits strings that each end in NUL.
func names(raw []byte) ([][]byte, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if raw[len(raw)-1] != 0 {
		return nil, fmt.Errorf("%w: a name without its end", ErrRecord)
	}
	return bytes.Split(raw[:len(raw)-1], []byte{0}), nil
}

// path joins the names of a path, last one first, to escaped text; the package
// comment says what stands before a path that is not absolute.
func path(names [][]byte, flags uint8) string {
	is := func(f bpf.FloorPathFlag) bool { return flags&uint8(f) != 0 }
	if is(bpf.FloorPathFlagPATH_INTERNAL) {
		var name, filesystem string
		if len(names) > 0 {
			name = string(names[0])
		}
		if len(names) > 1 {
			filesystem = string(names[1])
		}
		if strings.HasPrefix(name, "memfd:") {
			return behavior.Escape(name)
		}
		return behavior.Escape(filesystem + ":" + name)
	}
	return qualified(rawPath(names), flags)
}

// qualified escapes a raw path and says why, where it is not absolute in the
// container.
func qualified(p string, flags uint8) string {
	is := func(f bpf.FloorPathFlag) bool { return flags&uint8(f) != 0 }
	switch {
	case flags&truncatedPath != 0:
		p = "truncated:" + p
	case is(bpf.FloorPathFlagPATH_DETACHED):
		p = "detached:" + p
	case is(bpf.FloorPathFlagPATH_OUTSIDE):
		p = "outside:" + p
	}
	return behavior.Escape(p)
}

// rawPath joins the names of a path, last one first.
func rawPath(names [][]byte) string {
	names = slices.Clone(names)
	slices.Reverse(names)
	return "/" + string(bytes.Join(names, []byte{'/'}))
}
