//go:build linux

package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// encode is what the programs write.
func encode(h bpf.FloorRecord, cgroups, exe, path, parent string) []byte {
	h.CgroupsLen, h.ExeLen, h.PathLen, h.ParentLen = uint16(len(cgroups)), uint16(len(exe)), uint16(len(path)), uint16(len(parent))
	raw, err := binary.Append(nil, binary.NativeEndian, h)
	if err != nil {
		panic(err)
	}
	return append(raw, cgroups+exe+parent+path...)
}

func bootTime(ns uint64) time.Time { return time.Unix(0, int64(ns)).UTC() }

func TestDecode(t *testing.T) {
	outside := uint8(bpf.FloorPathFlagPATH_OUTSIDE)
	internal := uint8(bpf.FloorPathFlagPATH_INTERNAL)
	cases := []struct {
		name string
		raw  []byte
		want Record
	}{
		{
			"a path's names come last one first",
			encode(bpf.FloorRecord{Kind: 1, Access: 1, Mntns: 7, Pid: 8, Id: 9, Time: 10}, "leaf\x00root\x00", "sh\x00bin\x00", "c\x00b\x00a\x00", ""),
			Record{MountNS: 7, PID: 8, ID: 9, Time: bootTime(10), CgroupNames: []string{"leaf", "root"},
				Fact: behavior.Fact{Kind: behavior.File, Exe: "/bin/sh", Path: "/a/b/c", Access: behavior.Read}},
		},
		{
			"a path without names is the root directory",
			encode(bpf.FloorRecord{Kind: 1, Access: 1, Flags: 2}, "", "sh\x00", "", ""),
			Record{Time: bootTime(0), Directory: true, Fact: behavior.Fact{Kind: behavior.File, Exe: "/sh", Path: "/", Access: behavior.Read}},
		},
		{
			"a process has no executable but its path",
			encode(bpf.FloorRecord{Kind: 0}, "", "ls\x00bin\x00", "", "sh\x00bin\x00"),
			Record{Time: bootTime(0), Fact: behavior.Fact{Kind: behavior.Process, Path: "/bin/ls", Parent: "/bin/sh"}},
		},
		{
			"a script has its interpreter",
			encode(bpf.FloorRecord{Kind: 0, Flags: 4}, "", "run\x00", "sh\x00bin\x00", ""),
			Record{Time: bootTime(0), Script: true, Fact: behavior.Fact{Kind: behavior.Process, Path: "/run", Interpreter: "/bin/sh"}},
		},
		{
			"what is outside of the container says so",
			encode(bpf.FloorRecord{Kind: 1, Access: 2, PathFlags: outside}, "", "sh\x00", "shadow\x00etc\x00", ""),
			Record{Time: bootTime(0), Fact: behavior.Fact{Kind: behavior.File, Exe: "/sh", Path: "outside:/etc/shadow", Access: behavior.Write}},
		},
		{
			"a file in memory has the name it was given",
			encode(bpf.FloorRecord{Kind: 0, ExeFlags: internal}, "", "memfd:x\ny\x00tmpfs\x00", "", ""),
			Record{Time: bootTime(0), Fact: behavior.Fact{Kind: behavior.Process, Path: `memfd:x\x0ay`}},
		},
		{
			"a file of an internal file system has the type's name",
			encode(bpf.FloorRecord{Kind: 1, Access: 1, PathFlags: internal}, "", "sh\x00", "\x00nsfs\x00", ""),
			Record{Time: bootTime(0), Fact: behavior.Fact{Kind: behavior.File, Exe: "/sh", Path: "nsfs:", Access: behavior.Read}},
		},
		{
			"what the runtime did has no executable",
			encode(bpf.FloorRecord{Kind: 1, Access: 1, Flags: 1}, "", "", "a\x00", ""),
			Record{Time: bootTime(0), Fact: behavior.Fact{Kind: behavior.File, Runtime: true, Path: "/a", Access: behavior.Read}},
		},
		{
			"a listener has no peer",
			encode(bpf.FloorRecord{Kind: 2, Direction: 3, Protocol: 6, Port: 80}, "", "sh\x00", "", ""),
			Record{Time: bootTime(0), Fact: behavior.Fact{Kind: behavior.Network, Exe: "/sh", Direction: behavior.Listen, Protocol: "tcp", Port: 80}},
		},
		{
			"a mapped address is an IPv4 address",
			encode(bpf.FloorRecord{Kind: 2, Direction: 1, Protocol: 17, Port: 53, Address: netip.MustParseAddr("::ffff:10.0.0.1").As16()}, "", "sh\x00", "", ""),
			Record{Time: bootTime(0), Fact: behavior.Fact{Kind: behavior.Network, Exe: "/sh", Direction: behavior.Egress, Protocol: "udp", Port: 53,
				Peer: behavior.Peer{Address: netip.MustParseAddr("10.0.0.1")}}},
		},
		{
			"a capability that was refused",
			encode(bpf.FloorRecord{Kind: 3, Flags: 8, Capability: 13, Syscall: 9999}, "", "sh\x00", "", ""),
			Record{Time: bootTime(0), Fact: behavior.Fact{Kind: behavior.Capability, Exe: "/sh", Name: "NET_RAW", Syscall: "sys_9999", Refused: true}},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := decode(c.raw, bootTime)
			if err != nil {
				t.Fatal(err)
			}
			if got.Fact != c.want.Fact || !bytes.Equal(fingerprint(got), fingerprint(c.want)) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// fingerprint holds what of a Record is beside its fact.
func fingerprint(r Record) []byte {
	names := bytes.Join(func() (b [][]byte) {
		for _, n := range r.CgroupNames {
			b = append(b, []byte(n))
		}
		return b
	}(), []byte{0})
	for _, flag := range []bool{r.Truncated, r.Deleted, r.Directory, r.Script} {
		if flag {
			names = append(names, 1)
		}
		names = append(names, 0)
	}
	names = binary.NativeEndian.AppendUint64(names, r.ID)
	return binary.NativeEndian.AppendUint64(names, uint64(r.MountNS)<<32|uint64(r.PID))
}

func TestDecodeRefuses(t *testing.T) {
	good := encode(bpf.FloorRecord{Kind: 1, Access: 1}, "", "sh\x00", "a\x00", "")
	cases := []struct {
		name string
		raw  []byte
	}{
		{"nothing", nil},
		{"less than a header", good[:headerBytes-1]},
		{"a string that is cut", good[:len(good)-1]},
		{"more than its strings", append(bytes.Clone(good), 0)},
		{"a name without its end", encode(bpf.FloorRecord{Kind: 1, Access: 1}, "", "sh", "a\x00", "")},
		{"a kind that is none", encode(bpf.FloorRecord{Kind: 99}, "", "sh\x00", "", "")},
		{"a direction that is none", encode(bpf.FloorRecord{Kind: 2, Protocol: 6}, "", "sh\x00", "", "")},
		{"a file without access", encode(bpf.FloorRecord{Kind: 1}, "", "sh\x00", "a\x00", "")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if r, _, err := decode(c.raw, bootTime); !errors.Is(err, ErrRecord) {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(bpf.FloorRecord{Kind: 1, Access: 1, PathFlags: 16}, "leaf\x00", "sh\x00bin\x00", "memfd:x\x00tmpfs\x00", ""))
	f.Add(encode(bpf.FloorRecord{Kind: 2, Direction: 1, Protocol: 6}, "", "\xff\x00", "", "p\x00"))
	f.Add(encode(bpf.FloorRecord{Kind: 3, Capability: 200, Syscall: 1 << 31}, "", "", "", ""))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, h, err := decode(raw, bootTime)
		if err != nil {
			if !errors.Is(err, ErrRecord) {
				t.Errorf("error is not ErrRecord: %v", err)
			}
			return
		}
		if err := r.Fact.Validate(); err != nil && bpf.FloorKind(h.Kind) != bpf.FloorKindKIND_ACTOR {
			t.Errorf("invalid fact: %v", err)
		}
		for _, name := range r.CgroupNames {
			if !behavior.IsEscaped(name) {
				t.Errorf("cgroup name %q is not escaped", name)
			}
		}
	})
}
